package config

import (
	"slices"
	"strings"
)

// Fault is one thing wrong with the configuration.
type Fault struct {
	Key     string // name of the setting
	Source  string // "flag", the name of the variable, FILE:LINE, or "default"
	Value   string // the text at fault, where there is one
	Problem string // what is wrong, as the rest of a sentence about the key
	Remedy  string // what to do

	secret bool // Value may hold a secret and is not shown
}

// Error says key, source, problem and remedy in one line.
func (f Fault) Error() string {
	var b strings.Builder
	b.WriteString(f.Key)
	switch f.Source {
	case "":
	case "flag":
		b.WriteString(" (--" + f.Key + ")")
	default:
		b.WriteString(" (" + f.Source + ")")
	}
	b.WriteString(": ")
	if f.Value != "" && !f.secret {
		b.WriteString("“" + clip(f.Value) + "” ")
	}
	b.WriteString(f.Problem)
	if f.Remedy != "" {
		b.WriteString("; " + f.Remedy)
	}
	return b.String()
}

func clip(s string) string {
	s = strings.ToValidUTF8(s, "?")
	s = strings.Map(func(r rune) rune {
		if r < ' ' {
			return '?'
		}
		return r
	}, s)
	if len(s) > 100 {
		return strings.ToValidUTF8(s[:100], "") + "…"
	}
	return s
}

// Faults are all faults of one configuration, in no order that means anything.
type Faults []Fault

// Error lists the faults, one a line, sorted by key.
func (f Faults) Error() string {
	lines := make([]string, len(f))
	for i, fault := range f {
		lines[i] = fault.Error()
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// unknown is the fault of a key that does not exist; spell writes a name as its source does.
func unknown(name, source string, fields []field, spell func(string) string) Fault {
	f := Fault{Key: clip(name), Source: source, Problem: "is not a setting", Remedy: "callbox config lists all settings"}
	best, distance := "", len(name)/3+2
	for _, field := range fields {
		if d := editDistance(strings.ToLower(strings.ReplaceAll(name, "_", "-")), field.name); d < distance {
			best, distance = field.name, d
		}
	}
	if best != "" {
		f.Remedy = "did you mean " + spell(best) + "?"
	}
	return f
}

// editDistance counts the insertions, deletions and substitutions from a to b.
func editDistance(a, b string) int {
	if len(a) > 64 {
		return len(a)
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}
