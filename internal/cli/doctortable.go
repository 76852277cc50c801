package cli

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"callbox/internal/doctor"
)

// tableWidth is how many columns the table takes: what the smallest usual terminal has.
const tableWidth = 80

// colours are escape sequences for each verdict; the zero value has none.
type colours struct {
	on map[doctor.Verdict]string
}

// colours are for a person's terminal, unless NO_COLOR is set (no-color.org) or the terminal is dumb.
func (c *call) colours() colours {
	plain := slices.ContainsFunc(c.Environ, func(v string) bool {
		name, value, _ := strings.Cut(v, "=")
		return name == "NO_COLOR" && value != "" || name == "TERM" && value == "dumb"
	})
	if !c.Terminal || plain {
		return colours{}
	}
	return colours{map[doctor.Verdict]string{doctor.OK: "\x1b[32m", doctor.Warn: "\x1b[33m", doctor.Fail: "\x1b[1;31m", doctor.Skipped: "\x1b[2m"}}
}

func (c colours) paint(v doctor.Verdict, text string) string {
	if start := c.on[v]; start != "" {
		return start + text + "\x1b[0m"
	}
	return text
}

// doctorTable is a report for people.
func doctorTable(r doctor.Report, paint colours) string {
	names := 0
	for _, c := range r.Checks {
		names = max(names, len(c.Name))
	}
	var b strings.Builder
	for _, c := range r.Checks {
		b.WriteString(doctorRow(c, names, paint))
	}
	b.WriteString("\n" + doctorSum(r))
	return b.String()
}

// doctorRow is one check: name, verdict and what was seen side by side, and below them what to do.
func doctorRow(c doctor.Check, names int, paint colours) string {
	verdicts := len(doctor.Skipped)
	indent := names + 2 + verdicts + 2
	var b strings.Builder
	lines := wrapAt(c.Saw, tableWidth-indent)
	fmt.Fprintf(&b, "%-*s  %s%s  %s\n", names, c.Name, paint.paint(c.Verdict, string(c.Verdict)), strings.Repeat(" ", verdicts-len(c.Verdict)), lines[0])
	for _, line := range lines[1:] {
		fmt.Fprintf(&b, "%*s%s\n", indent, "", line)
	}
	if c.Remedy == "" {
		return b.String()
	}
	mark := "-> "
	for _, line := range wrapAt(c.Remedy, tableWidth-indent-len(mark)) {
		fmt.Fprintf(&b, "%*s%s%s\n", indent, "", mark, line)
		mark = "   "
	}
	return b.String()
}

// doctorSum counts the verdicts.
func doctorSum(r doctor.Report) string {
	count := func(v doctor.Verdict) int { return len(r.With(v)) }
	return fmt.Sprintf("%d ok, %d warn, %d fail, %d skipped\n", count(doctor.OK), count(doctor.Warn), count(doctor.Fail), count(doctor.Skipped))
}

// wrapAt breaks a text between words into lines of at most so many characters. Its line breaks become spaces. A longer word
// has a line of its own: half a command cannot be copied.
func wrapAt(text string, width int) []string {
	lines := []string{""}
	for _, word := range strings.Fields(text) {
		last := &lines[len(lines)-1]
		switch {
		case *last == "":
			*last = word
		case utf8.RuneCountInString(*last)+1+utf8.RuneCountInString(word) <= width:
			*last += " " + word
		default:
			lines = append(lines, word)
		}
	}
	return lines
}

// progress is one line on the terminal that says what is being looked at.
type progress struct {
	c     *call
	width int // of what stands there
	shown bool
}

// progress shows itself on Stderr where a person reads.
func (c *call) progress(wanted bool) *progress { return &progress{c: c, shown: wanted && c.Terminal} }

func (p *progress) tell(at doctor.Progress) {
	if !p.shown {
		return
	}
	p.clear()
	text := fmt.Sprintf("[%d/%d] %s…", at.Done+1, at.Of, at.Name)
	p.width = utf8.RuneCountInString(text)
	fmt.Fprint(p.c.Stderr, text)
}

func (p *progress) clear() {
	if p.width > 0 {
		fmt.Fprintf(p.c.Stderr, "\r%*s\r", p.width, "")
		p.width = 0
	}
}
