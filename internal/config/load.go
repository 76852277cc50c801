package config

import (
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strings"
)

// EnvPrefix begins the name of every environment variable that is read.
const EnvPrefix = "CALLBOX_"

// maxFile bounds the configuration file, in bytes.
const maxFile = 1 << 20

// Sources are where settings come from, each in its own raw form.
type Sources struct {
	Flags   map[string][]string // the texts given for each flag, by name without dashes
	Environ []string            // KEY=VALUE, as os.Environ gives it

	// Check, where it is given, finds further faults, of what the settings name: only the program that will open a file can
	// say what it must be like. A setting that does not parse has its zero value there. Load adds the sources.
	Check func(Config) Faults
}

// Origins says for each key where its value came from: "flag", the name of the
// variable, FILE:LINE, or "default".
type Origins map[string]string

const fromDefault = "default"

// given is the raw text of one setting and its source.
type given struct {
	values []string
	source string
}

// Load merges the sources, reads the configuration file that they name, and
// parses and checks every value. An error is always Faults, and holds all of them.
func Load(s Sources) (Config, Origins, error) {
	var faults Faults
	fields := allFields()
	flags := fromFlags(s.Flags, fields, &faults)
	env := fromEnviron(s.Environ, fields, &faults)

	var file map[string]given
	for _, layer := range []map[string]given{flags, env} {
		if g, ok := layer["config"]; ok {
			file = fromFile(g, fields, &faults)
			break
		}
	}

	var c Config
	origins := make(Origins, len(fields))
	target := reflect.ValueOf(&c).Elem()
	for _, f := range fields {
		g := given{source: fromDefault}
		if f.def != "" {
			g.values = []string{f.def}
		}
		for _, layer := range []map[string]given{flags, env, file} {
			if found, ok := layer[f.name]; ok {
				g = found
				break
			}
		}
		origins[f.name] = g.source
		if g.source != fromDefault || f.def != "" {
			faults = append(faults, f.set(target.FieldByIndex(f.index), g)...)
		}
	}
	finish(&c, origins)
	faults = append(faults, check(c, origins, faults)...)
	if s.Check != nil {
		for _, f := range s.Check(c) {
			f.Source = origins[f.Key]
			faults = append(faults, f)
		}
	}
	if len(faults) > 0 {
		return Config{}, nil, faults
	}
	return c, origins, nil
}

func fromFlags(flags map[string][]string, fields []field, faults *Faults) map[string]given {
	out := make(map[string]given, len(flags))
	for name, values := range flags {
		if !known(fields, name) {
			*faults = append(*faults, unknown(name, "flag", fields, func(n string) string { return "--" + n }))
			continue
		}
		out[name] = given{values: values, source: "flag"}
	}
	return out
}

// fromEnviron reads the CALLBOX_ variables. An empty one counts as not set, as
// container tools pass empty ones on; those that Kubernetes makes for a service
// named callbox (CALLBOX_SERVICE_HOST, CALLBOX_PORT_443_TCP and so on) are no settings.
func fromEnviron(environ []string, fields []field, faults *Faults) map[string]given {
	out := make(map[string]given)
	for _, kv := range environ {
		variable, value, _ := strings.Cut(kv, "=")
		rest, ok := strings.CutPrefix(variable, EnvPrefix)
		if !ok || value == "" || rest == "PORT" || strings.HasPrefix(rest, "PORT_") || strings.HasPrefix(rest, "SERVICE_") {
			continue
		}
		name := strings.ReplaceAll(strings.ToLower(rest), "_", "-")
		if !known(fields, name) || variable != variableOf(name) {
			*faults = append(*faults, unknown(name, variable, fields, variableOf))
			continue
		}
		out[name] = given{values: []string{value}, source: variable}
	}
	return out
}

func variableOf(name string) string {
	return EnvPrefix + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
}

func fromFile(where given, fields []field, faults *Faults) map[string]given {
	path := where.values[len(where.values)-1]
	problem := func(text, remedy string) map[string]given {
		*faults = append(*faults, Fault{Key: "config", Source: where.source, Problem: text, Remedy: remedy})
		return nil
	}
	if path == "" {
		return problem("names no file", "give the path of a YAML file")
	}
	f, err := os.Open(path)
	if err != nil {
		return problem("cannot be opened: "+err.Error(), "give the path of a YAML file that this user can read")
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return problem("cannot be read: "+err.Error(), "give the path of a YAML file that this user can read")
	}
	if len(text) > maxFile {
		return problem(fmt.Sprintf("%s is longer than %d bytes", path, maxFile), "give the path of a YAML file of settings")
	}
	out, more := parseFile(path, text, fields)
	*faults = append(*faults, more...)
	return out
}

// field is one setting, as the tags of Config describe it.
type field struct {
	index          []int
	name, def      string
	minimum, upper string
	list           bool
	reload         bool // can change while a server runs
	spacedOnly     bool // the values contain commas, so only spaces separate them
}

func allFields() []field {
	t := reflect.TypeFor[Config]()
	out := make([]field, 0, t.NumField())
	for i := range t.NumField() {
		f := t.Field(i)
		out = append(out, field{
			index: f.Index, name: f.Tag.Get("name"), def: f.Tag.Get("def"),
			minimum: f.Tag.Get("min"), upper: f.Tag.Get("max"),
			reload:     f.Tag.Get("reload") != "",
			list:       f.Type.Kind() == reflect.Slice,
			spacedOnly: f.Type == reflect.TypeFor[[]ICEServer]() || f.Type == reflect.TypeFor[[]WebhookURL](),
		})
	}
	return out
}

func known(fields []field, name string) bool {
	return slices.ContainsFunc(fields, func(f field) bool { return f.name == name })
}

// set parses the given texts into the field of Config.
func (f field) set(into reflect.Value, g given) Faults {
	bad := func(text string, err error) Fault {
		p := asProblem(err)
		return Fault{Key: f.name, Source: g.source, Value: text, Problem: p.text, Remedy: p.remedy, secret: slices.Contains([]string{"bus", "ice-server", "webhook"}, f.name)}
	}
	if !f.list {
		if g.source == "flag" && len(g.values) > 1 {
			return Faults{bad(strings.Join(g.values, " "), fault("is given more than once", "give it once"))}
		}
		text := g.values[0]
		if text == "" {
			return Faults{bad("", fault("is empty", "give a value or leave it out"))}
		}
		if err := parse(into, text); err != nil {
			return Faults{bad(text, err)}
		}
		if err := f.bounds(into); err != nil {
			return Faults{bad(text, err)}
		}
		return nil
	}
	var faults Faults
	list := reflect.MakeSlice(into.Type(), 0, len(g.values))
	for _, text := range f.split(g.values) {
		v := reflect.New(into.Type().Elem()).Elem()
		if err := parse(v, text); err != nil {
			faults = append(faults, bad(text, err))
			continue
		}
		list = reflect.Append(list, v)
	}
	into.Set(list)
	return faults
}

// split separates the values of a list by spaces and, where no value has them, commas.
func (f field) split(values []string) []string {
	var out []string
	for _, v := range values {
		out = append(out, strings.FieldsFunc(v, func(r rune) bool {
			return r == ' ' || r == '\t' || r == '\n' || r == ',' && !f.spacedOnly
		})...)
	}
	return out
}

func (f field) bounds(v reflect.Value) error {
	beyond := func(limit string, outside func(value, limit int64) bool) bool {
		if limit == "" {
			return false
		}
		l := reflect.New(v.Type()).Elem()
		return parse(l, limit) == nil && outside(v.Int(), l.Int())
	}
	if beyond(f.minimum, func(value, limit int64) bool { return value < limit }) || beyond(f.upper, func(value, limit int64) bool { return value > limit }) {
		return fault("is out of range", "give a value from "+f.minimum+" to "+f.upper)
	}
	return nil
}
