// Package static holds what a browser gets: the web pages, their styles, and
// callbox.js, the reference client of callbox.v1. Everything is embedded and
// needs no build step. It knows nothing of users, sessions or rooms: the caller
// decides who may see a page and hands it the values to show.
package static

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"time"
)

//go:embed callbox.js callbox/*.js page/*.js style/*.css icon.svg
var assets embed.FS

// Prefix is the path under which Handler expects to be mounted.
const Prefix = "/static/"

// asset is one embedded file, ready to be served. It is never changed after
// Handler has built it.
type asset struct {
	body        []byte
	contentType string
	etag        string
}

// contentType names the types that are served. The operating system's own
// table is not asked: on some it calls JavaScript text/plain, and a browser
// then refuses the module.
func contentType(name string) string {
	switch path.Ext(name) {
	case ".js":
		return "text/javascript; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".svg":
		return "image/svg+xml"
	}
	return "application/octet-stream"
}

// Handler serves the embedded files under Prefix. Each has an ETag made of its
// content and is revalidated on every use, so that a page and its modules
// always come from the same release. Only GET and HEAD are answered; CORS
// headers, for other origins that import callbox.js, are the caller's.
// What is not there, or not asked with GET, refuse answers: with 404, or with 405 and the header Allow set.
func Handler(refuse func(w http.ResponseWriter, r *http.Request, status int)) http.Handler {
	files, err := load(assets)
	if err != nil {
		// The files are part of the binary: this cannot fail in one that has
		// passed its tests.
		panic(err)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			refuse(w, r, http.StatusMethodNotAllowed)
			return
		}
		name, ok := strings.CutPrefix(r.URL.Path, Prefix)
		file, found := files[name]
		if !ok || !found {
			refuse(w, r, http.StatusNotFound)
			return
		}
		h := w.Header()
		h.Set("Content-Type", file.contentType)
		h.Set("ETag", file.etag)
		h.Set("Cache-Control", "public, no-cache")
		h.Set("X-Content-Type-Options", "nosniff")
		// An SVG that is opened by itself is a document: it gets no rights.
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; sandbox")
		http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(file.body))
	})
}

// load reads every file of fsys.
func load(fsys fs.FS) (map[string]asset, error) {
	files := make(map[string]asset)
	err := fs.WalkDir(fsys, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		body, err := fs.ReadFile(fsys, name)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(body)
		files[name] = asset{
			body:        body,
			contentType: contentType(name),
			etag:        `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`,
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("embedded files: %w", err)
	}
	return files, nil
}
