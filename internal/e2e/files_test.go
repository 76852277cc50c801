package e2e

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
)

// readText returns a file's text, and nothing for a picture or a file that is listed but not there now.
func readText(path string) (string, error) {
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	if bytes.IndexByte(content, 0) >= 0 {
		return "", nil
	}
	return string(content), nil
}
