package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"

	"go.yaml.in/yaml/v3"
)

// parseFile reads a YAML mapping of flat keys to scalars or lists of scalars.
// It works on the nodes, because decoding into Go types would turn "off" into
// a boolean, drop the lines and stop at the first fault.
func parseFile(path string, text []byte, fields []field) (map[string]given, Faults) {
	var faults Faults
	at := func(line int) string { return fmt.Sprintf("%s:%d", path, line) }
	whole := func(line int, problem, remedy string) Faults {
		return Faults{{Key: "config", Source: at(line), Problem: problem, Remedy: remedy}}
	}
	const shape = "write one setting a line, as listen: :8080"

	dec := yaml.NewDecoder(bytes.NewReader(text))
	var doc yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return nil, nil
	} else if err != nil {
		line, problem := yamlError(err)
		return nil, whole(line, "is not valid YAML: "+problem, shape)
	}
	var second yaml.Node
	if err := dec.Decode(&second); err == nil {
		return nil, whole(second.Line, "has a second YAML document", "keep all settings in one document")
	} else if !errors.Is(err, io.EOF) {
		line, problem := yamlError(err)
		return nil, whole(line, "is not valid YAML: "+problem, shape)
	}
	root := doc.Content[0]
	if root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
		return nil, nil
	}
	if root.Kind != yaml.MappingNode {
		return nil, whole(root.Line, "is not a mapping of keys to values", shape)
	}

	out := make(map[string]given, len(root.Content)/2)
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, value := root.Content[i], root.Content[i+1]
		name, source := key.Value, at(key.Line)
		switch earlier, twice := out[name]; {
		case name == "config":
			faults = append(faults, Fault{Key: name, Source: source, Problem: "stands inside a configuration file", Remedy: "give it as --config or " + variableOf("config")})
			continue
		case !known(fields, name):
			faults = append(faults, unknown(name, source, fields, func(n string) string { return n }))
			continue
		case twice:
			faults = append(faults, Fault{Key: name, Source: source, Problem: "stands in the file twice, first at " + earlier.source, Remedy: "keep one of them"})
			continue
		}
		values, problem := scalars(value, listed(fields, name))
		if problem != "" {
			faults = append(faults, Fault{Key: name, Source: source, Problem: problem, Remedy: "give a plain value, or leave the key out"})
			continue
		}
		out[name] = given{values: values, source: source}
	}
	return out, faults
}

func listed(fields []field, name string) bool {
	for _, f := range fields {
		if f.name == name {
			return f.list
		}
	}
	return false
}

// scalars returns the texts of a scalar or, where a list may stand, of a list of scalars.
func scalars(n *yaml.Node, list bool) (values []string, problem string) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	switch {
	case n.Kind == yaml.ScalarNode && n.Tag == "!!null":
		return nil, "has no value"
	case n.Kind == yaml.ScalarNode:
		return []string{n.Value}, ""
	case n.Kind != yaml.SequenceNode:
		return nil, "is a mapping, not a value"
	case !list:
		return nil, "is a list, and takes one value"
	}
	values = make([]string, 0, len(n.Content))
	for _, item := range n.Content {
		if item.Kind != yaml.ScalarNode || item.Tag == "!!null" {
			return nil, fmt.Sprintf("has an item that is no plain value, on line %d", item.Line)
		}
		values = append(values, item.Value)
	}
	return values, ""
}

// yamlError takes the line out of the text of a YAML error, as it has no field for it.
func yamlError(err error) (line int, problem string) {
	m := regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)$`).FindStringSubmatch(err.Error())
	if m == nil {
		return 1, err.Error()
	}
	line = 1
	if m[1] != "" {
		fmt.Sscan(m[1], &line)
	}
	return line, m[2]
}
