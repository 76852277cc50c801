package qr_test

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"

	"callbox/internal/qr"
)

func TestSizeIsThatOfWhatIsPrinted(t *testing.T) {
	for _, text := range []string{"x", "https://192.168.1.7:8080/setup?token=c2V0dXBzZXR1cHNldHVw", strings.Repeat("https://", 40)} {
		var out bytes.Buffer
		if err := qr.Print(&out, text); err != nil {
			t.Fatal(err)
		}
		printed := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
		first := strings.TrimSuffix(strings.TrimPrefix(printed[0], "\x1b[38;5;16;48;5;231m"), "\x1b[0m")
		columns, lines, err := qr.Size(text)
		if err != nil || columns != utf8.RuneCountInString(first) || lines != len(printed) {
			t.Errorf("%d x %d (%v), printed are %d x %d", columns, lines, err, utf8.RuneCountInString(first), len(printed))
		}
		if !qr.Fits(text, columns, lines+2) || qr.Fits(text, columns-1, lines+2) || qr.Fits(text, columns, lines+1) {
			t.Errorf("%.20q: the terminal it needs is not %d x %d", text, columns, lines+2)
		}
	}
	if qr.Fits(strings.Repeat("x", 3000), 1000, 1000) {
		t.Error("a text without a code fits")
	}
}
