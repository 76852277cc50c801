package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// maxPasswordInput bounds what is read from standard input, in bytes: more than any password may have.
const maxPasswordInput = 4096

var errInterrupted = errors.New("interrupted; nothing was changed")

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// terminalSize asks for the size of a terminal; 0 where it does not say.
func terminalSize(f *os.File) func() (columns, lines int) {
	return func() (int, int) {
		columns, lines, err := term.GetSize(int(f.Fd()))
		if err != nil {
			return 0, 0
		}
		return columns, lines
	}
}

// password gets a new password: from standard input where that was asked for,
// else from a person, who types it twice.
func (c *call) password(ctx context.Context, fromStdin bool) (string, error) {
	if fromStdin {
		text, err := io.ReadAll(io.LimitReader(c.Stdin, maxPasswordInput))
		if err != nil {
			return "", fmt.Errorf("password from standard input: %w", err)
		}
		return strings.TrimRight(string(text), "\r\n"), nil
	}
	if c.ReadPassword == nil {
		return "", usagef("there is no terminal to ask for the password on; give it with --password-stdin")
	}
	first, err := c.ReadPassword(ctx, "New password: ")
	if err != nil {
		return "", err
	}
	second, err := c.ReadPassword(ctx, "The same again: ")
	if err != nil {
		return "", err
	}
	if first != second {
		return "", errors.New("the two passwords differ; nothing was changed")
	}
	return first, nil
}

// passwordReader asks on a terminal; nil where in is none.
func passwordReader(in, out *os.File) func(context.Context, string) (string, error) {
	if !isTerminal(in) {
		return nil
	}
	return func(ctx context.Context, prompt string) (string, error) {
		before, err := term.GetState(int(in.Fd()))
		if err != nil {
			return "", fmt.Errorf("terminal: %w", err)
		}
		type typed struct {
			text []byte
			err  error
		}
		answer := make(chan typed, 1)
		fmt.Fprint(out, prompt)
		// Nothing can interrupt this read; where the context ends first, the process ends next.
		go func() {
			text, err := term.ReadPassword(int(in.Fd()))
			answer <- typed{text, err}
		}()
		select {
		case a := <-answer:
			fmt.Fprintln(out)
			if a.err != nil {
				return "", fmt.Errorf("password: %w", a.err)
			}
			return string(a.text), nil
		case <-ctx.Done():
			fmt.Fprintln(out)
			return "", errors.Join(errInterrupted, term.Restore(int(in.Fd()), before))
		}
	}
}
