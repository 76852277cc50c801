package datadir

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
)

// Bounds of secret files: a short secret is a mistake, a long file another file.
const (
	minSecret     = 16
	maxSecrets    = 64
	maxSecretFile = 64 << 10
)

// FileError is what is wrong with a secret file, and what to do about it.
type FileError struct {
	Path    string
	Line    int    // 0: the file as a whole
	Problem string // said of Where: "does not exist"
	Remedy  string

	cause error
}

// Where is the path, with the line where one is at fault.
func (e *FileError) Where() string {
	if e.Line == 0 {
		return e.Path
	}
	return e.Path + ":" + strconv.Itoa(e.Line)
}

// Error is one line with all of it.
func (e *FileError) Error() string { return e.Where() + " " + e.Problem + "; " + e.Remedy }

// Unwrap gives the cause: ErrRights, or what the operating system said; nil where the content is at fault.
func (e *FileError) Unwrap() error { return e.cause }

// ReadSecrets reads a file of secrets, one a line. Empty lines and lines that
// begin with # do not count. A file that everybody may read is refused. An error
// is a *FileError.
func ReadSecrets(path string) ([][]byte, error) {
	return readSecrets(path, ownerGroup, "g-w,o=")
}

func readSecrets(path string, closed fs.FileMode, mode string) ([][]byte, error) {
	// Asked first, because opening a pipe waits for its writer.
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return nil, &FileError{Path: path, Problem: "is not a regular file", Remedy: "give the path of a file with one secret a line"}
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, unreadable(path, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, unreadable(path, err)
	}
	if open := openTo(info, closed); open != "" {
		return nil, &FileError{Path: path, Problem: open, Remedy: "run: chmod " + mode + " " + path, cause: ErrRights}
	}
	text, err := io.ReadAll(io.LimitReader(f, maxSecretFile+1))
	if err != nil {
		return nil, unreadable(path, err)
	}
	return parseSecrets(path, text)
}

// unreadable explains an error of the operating system.
func unreadable(path string, err error) error {
	e := &FileError{Path: path, cause: err}
	var system *fs.PathError
	if errors.As(err, &system) {
		err = system.Err // without the path, which is named already
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		e.Problem, e.Remedy = "does not exist", makeOne(path)
	case errors.Is(err, fs.ErrPermission):
		e.Problem, e.Remedy = "may not be read by this user", "run this as the user that owns it, or give the file to that user"
		e.cause = errors.Join(ErrRights, e.cause)
	default:
		e.Problem, e.Remedy = "cannot be read: "+err.Error(), "give the path of a file with one secret a line"
	}
	return e
}

func makeOne(path string) string {
	return "make one with: openssl rand -base64 32 > " + path + "; chmod 600 " + path
}

func parseSecrets(path string, text []byte) ([][]byte, error) {
	fault := func(problem, remedy string) ([][]byte, error) {
		return nil, &FileError{Path: path, Problem: problem, Remedy: remedy}
	}
	if len(text) > maxSecretFile {
		return fault(fmt.Sprintf("is longer than %d bytes", maxSecretFile), "give the path of a file with one secret a line")
	}
	var out [][]byte
	number := 0
	for line := range bytes.Lines(text) {
		number++
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		if len(line) < minSecret {
			return nil, &FileError{Path: path, Line: number, Problem: fmt.Sprintf("is a secret shorter than %d bytes", minSecret), Remedy: "make one with: openssl rand -base64 32"}
		}
		out = append(out, line)
	}
	switch {
	case len(out) == 0:
		return fault("has no secret in it", makeOne(path))
	case len(out) > maxSecrets:
		return fault(fmt.Sprintf("has more than %d secrets", maxSecrets), "strike off the oldest, at the end")
	}
	return out, nil
}
