// Package qr prints a text as a QR code (ISO/IEC 18004) on a terminal, for links that a phone is to open. It makes no
// images and reads no codes.
package qr

import (
	"bytes"
	"fmt"
	"io"

	"rsc.io/qr"
)

const (
	// quiet is the width of the empty margin that readers need, in modules.
	quiet = 4
	// paint is black on white of the fixed part of the 256-colour palette: the sixteen colours before it are the
	// terminal theme's own, and a code in the wrong colours is a negative, which not every phone reads.
	paint = "\x1b[38;5;16;48;5;231m"
	reset = "\x1b[0m"
)

// Print writes text as a QR code of half blocks, two rows of modules to a line, with its margin. It sets both colours,
// so that the code is right on a dark and on a light terminal; elsewhere than on a terminal it makes no sense. A link of
// 100 bytes is 45 columns wide and 23 lines high. It is an error if text does not fit into a code (2,953 bytes).
func Print(w io.Writer, text string) error {
	code, err := qr.Encode(text, qr.L) // a screen is not torn or stained: the least redundancy makes the largest modules
	if err != nil {
		return fmt.Errorf("QR code: %w", err)
	}
	var out bytes.Buffer
	for y := -quiet; y < code.Size+quiet; y += 2 {
		out.WriteString(paint)
		for x := -quiet; x < code.Size+quiet; x++ {
			switch upper, lower := code.Black(x, y), code.Black(x, y+1); {
			case upper && lower:
				out.WriteRune('█')
			case upper:
				out.WriteRune('▀')
			case lower:
				out.WriteRune('▄')
			default:
				out.WriteByte(' ')
			}
		}
		out.WriteString(reset + "\n")
	}
	if _, err := w.Write(out.Bytes()); err != nil {
		return fmt.Errorf("QR code: %w", err)
	}
	return nil
}
