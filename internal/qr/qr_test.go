package qr_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"callbox/internal/qr"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const margin = 4

// TestACodeReadsBack decodes what was printed, from the characters up.
func TestACodeReadsBack(t *testing.T) {
	for _, text := range []string{
		"https://203.0.113.7:8443/doctor/AbCdEf0123456789-_AbCdEf0123456789",
		"https://call.example/setup?token=0123456789abcdef0123456789abcdef0123456789a",
		"http://[2001:db8::1]:8080/",
	} {
		var out bytes.Buffer
		if err := qr.Print(&out, text); err != nil {
			t.Fatal(err)
		}
		if got := decode(t, modules(t, out.String())); got != text {
			t.Errorf("%q reads as %q", text, got)
		}
	}
}

func TestACodeHasItsMarginAndBothColours(t *testing.T) {
	var out bytes.Buffer
	if err := qr.Print(&out, "http://192.168.1.2:8080/setup"); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	for _, line := range lines {
		if !strings.HasPrefix(line, "\x1b[38;5;16;48;5;231m") || !strings.HasSuffix(line, "\x1b[0m") {
			t.Fatalf("a line without its colours: %q", line)
		}
	}
	m := modules(t, out.String())
	for y := range m {
		for x := range m[y] {
			outside := x < margin || y < margin || x >= len(m[y])-margin || y >= len(m[y])-margin
			if outside && m[y][x] {
				t.Fatalf("the margin is dark at column %d, row %d", x, y)
			}
		}
	}
	if len(lines) > 24 || len(m[0]) > 80 {
		t.Errorf("%d lines of %d columns for a short link", len(lines), len(m[0]))
	}
}

func TestWhatDoesNotFitIsAnError(t *testing.T) {
	if err := qr.Print(&bytes.Buffer{}, strings.Repeat("x", 3000)); err == nil {
		t.Error("3,000 bytes were printed")
	}
	if err := qr.Print(broken{}, "x"); !errors.Is(err, errBroken) {
		t.Errorf("a writer's failure is lost: %v", err)
	}
}

var errBroken = errors.New("broken")

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errBroken }

// modules are the dark places of what was printed, margin and all.
func modules(t *testing.T, printed string) [][]bool {
	t.Helper()
	var out [][]bool
	for line := range strings.Lines(printed) {
		line = strings.TrimSuffix(strings.TrimPrefix(strings.TrimSuffix(line, "\n"), "\x1b[38;5;16;48;5;231m"), "\x1b[0m")
		var upper, lower []bool
		for _, r := range line {
			if !strings.ContainsRune(" █▀▄", r) {
				t.Fatalf("%q in a code", r)
			}
			upper = append(upper, r == '█' || r == '▀')
			lower = append(lower, r == '█' || r == '▄')
		}
		out = append(out, upper, lower)
	}
	return out
}

// decode reads a code of byte mode and one block (versions 1 to 5 at level L) in mask 0, without error correction.
func decode(t *testing.T, printed [][]bool) string {
	t.Helper()
	size := len(printed[0]) - 2*margin
	version := (size - 17) / 4
	if size%4 != 1 || version < 1 || version > 5 {
		t.Fatalf("a code of %d modules", size)
	}
	dark := func(x, y int) bool { return printed[y+margin][x+margin] }
	function := func(x, y int) bool {
		finder := x < 9 && y < 9 || x >= size-8 && y < 9 || x < 9 && y >= size-8
		align := version > 1 && x >= size-9 && x <= size-5 && y >= size-9 && y <= size-5
		return finder || align || x == 6 || y == 6
	}
	var bits []bool
	up := true
	for right := size - 1; right > 0; right -= 2 {
		if right == 6 {
			right-- // the timing column is no part of a pair
		}
		for i := range size {
			y := i
			if up {
				y = size - 1 - i
			}
			for _, x := range []int{right, right - 1} {
				if !function(x, y) {
					bits = append(bits, dark(x, y) != ((x+y)%2 == 0))
				}
			}
		}
		up = !up
	}
	read := func(n int) (v int) {
		for _, b := range bits[:n] {
			v <<= 1
			if b {
				v |= 1
			}
		}
		bits = bits[n:]
		return v
	}
	if mode := read(4); mode != 4 {
		t.Fatalf("mode %d", mode)
	}
	out := make([]byte, read(8))
	for i := range out {
		out[i] = byte(read(8))
	}
	return string(out)
}
