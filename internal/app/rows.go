package app

import (
	"strings"
	"unicode/utf8"
)

// pageWidth is how many columns the start page takes: what the smallest usual terminal has.
const pageWidth = 80

// rows are titles with lines of text beside them, the text broken between words so that it ends within pageWidth.
type rows []row

type row struct {
	title string
	lines []string
}

func (t *rows) add(title string, lines ...string) {
	if len(lines) > 0 {
		*t = append(*t, row{title, lines})
	}
}

// String indents by two, and puts the texts of all rows into one column.
func (t rows) String() string {
	titles := 0
	for _, r := range t {
		titles = max(titles, utf8.RuneCountInString(r.title))
	}
	var b strings.Builder
	for _, r := range t {
		title := r.title
		for _, line := range r.lines {
			for _, part := range wrap(line, pageWidth-titles-4) {
				pad := strings.Repeat(" ", titles-utf8.RuneCountInString(title))
				b.WriteString(strings.TrimRight("  "+title+pad+"  "+part, " ") + "\n")
				title = ""
			}
		}
	}
	return b.String()
}

// wrap breaks a text between words into lines of at most so many characters. A word that is longer, such as a URL, gets a
// line of its own: a half of it can be neither clicked nor copied.
func wrap(text string, width int) []string {
	lines, used := []string{""}, 0
	for i, word := range strings.Split(text, " ") {
		n, last := utf8.RuneCountInString(word), len(lines)-1
		switch {
		case i == 0:
			lines[last], used = word, n
		case used+1+n <= width:
			lines[last] += " " + word
			used += 1 + n
		default:
			lines, used = append(lines, word), n
		}
	}
	for i := range lines {
		lines[i] = strings.ReplaceAll(lines[i], noBreak, " ")
	}
	return lines
}

// noBreak stands for a space that wrap leaves alone. No path has it.
const noBreak = "\x00"

// unbroken keeps the words of a path in one line.
func unbroken(path string) string { return strings.ReplaceAll(path, " ", noBreak) }
