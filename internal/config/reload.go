package config

import "reflect"

// Reload is the configuration of a running server after its sources were read
// again: c with the settings of next that can change while it runs. changed are
// the keys of those that did, restart those of others that differ and wait for
// the next start.
func (c Config) Reload(next Config) (merged Config, changed, restart []string) {
	merged = c
	target, from := reflect.ValueOf(&merged).Elem(), reflect.ValueOf(next)
	for _, f := range allFields() {
		old, value := target.FieldByIndex(f.index), from.FieldByIndex(f.index)
		switch {
		case reflect.DeepEqual(old.Interface(), value.Interface()):
		case f.reload:
			changed = append(changed, f.name)
			old.Set(value)
		default:
			restart = append(restart, f.name)
		}
	}
	return merged, changed, restart
}

// Reloadable are the keys of the settings that can change while a server runs.
func Reloadable() []string {
	var out []string
	for _, f := range allFields() {
		if f.reload {
			out = append(out, f.name)
		}
	}
	return out
}
