package qr

import (
	"fmt"

	"rsc.io/qr"
)

// Size is what Print of a text takes, in columns and lines.
func Size(text string) (columns, lines int, err error) {
	code, err := qr.Encode(text, qr.L)
	if err != nil {
		return 0, 0, fmt.Errorf("QR code: %w", err)
	}
	side := code.Size + 2*quiet
	return side, (side + 1) / 2, nil
}

// below is how many lines the prompt and a remark may take below a code.
const below = 2

// Fits says whether a code of a text can be seen whole on a terminal of that size.
func Fits(text string, columns, lines int) bool {
	c, l, err := Size(text)
	return err == nil && c <= columns && l+below <= lines
}
