package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"

	"go.yaml.in/yaml/v3"
)

// YAML is the configuration as a file that Load reads, secrets masked, each
// setting with the source of its value as a comment. Settings that have no
// value stand in comments.
func (c Config) YAML(origins Origins) ([]byte, error) {
	var out bytes.Buffer
	v := reflect.ValueOf(c)
	for _, f := range allFields() {
		texts, given := f.texts(v.FieldByIndex(f.index))
		origin := origins[f.name]
		if f.name == "config" || !given {
			fmt.Fprintf(&out, "# %s:", f.name)
			if given {
				fmt.Fprintf(&out, " %s", texts[0])
			}
			fmt.Fprintf(&out, " # %s\n", origin)
			continue
		}
		line, err := f.yamlLine(texts, origin)
		if err != nil {
			return nil, fmt.Errorf("setting %s: %w", f.name, err)
		}
		out.Write(line)
	}
	return out.Bytes(), nil
}

func (f field) yamlLine(texts []string, origin string) ([]byte, error) {
	value := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
	for _, text := range texts {
		item := &yaml.Node{}
		item.SetString(text) // quotes what YAML would take for something else
		if _, err := strconv.Atoi(text); err == nil {
			item = &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!int", Value: text}
		}
		value.Content = append(value.Content, item)
	}
	if !f.list {
		value = value.Content[0]
	}
	value.LineComment = origin
	return yaml.Marshal(&yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{
		{Kind: yaml.ScalarNode, Value: f.name}, value,
	}})
}

// JSON is the configuration as one object, secrets masked: strings, numbers,
// lists of strings, in the syntax of the flags; null where there is no value.
func (c Config) JSON() ([]byte, error) {
	object := make(map[string]any)
	v := reflect.ValueOf(c)
	for _, f := range allFields() {
		field := v.FieldByIndex(f.index)
		texts, given := f.texts(field)
		switch {
		case f.list:
			object[f.name] = texts
		case !given:
			object[f.name] = nil
		case field.Type() == reflect.TypeFor[int]():
			object[f.name] = field.Int()
		default:
			object[f.name] = texts[0]
		}
	}
	return json.MarshalIndent(object, "", "  ")
}

// texts are the masked texts of a field, and whether it has a value at all.
func (f field) texts(v reflect.Value) (texts []string, given bool) {
	if !f.list {
		text := masked(v)
		return []string{text}, text != ""
	}
	texts = []string{}
	for i := range v.Len() {
		texts = append(texts, masked(v.Index(i)))
	}
	return texts, len(texts) > 0
}

func masked(v reflect.Value) string {
	if secret, ok := v.Interface().(interface{ Masked() string }); ok {
		return secret.Masked()
	}
	return format(v)
}
