package static

import (
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func get(t *testing.T, method, path string, header ...string) *http.Response {
	t.Helper()
	r := httptest.NewRequest(method, path, nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	Handler(func(w http.ResponseWriter, _ *http.Request, status int) { w.WriteHeader(status) }).ServeHTTP(w, r)
	return w.Result()
}

func TestFilesAreServedWithTheirTypes(t *testing.T) {
	for path, want := range map[string]string{
		"/static/callbox.js":        "text/javascript; charset=utf-8",
		"/static/callbox/client.js": "text/javascript; charset=utf-8",
		"/static/page/call.js":      "text/javascript; charset=utf-8",
		"/static/style/base.css":    "text/css; charset=utf-8",
		"/static/icon.svg":          "image/svg+xml",
	} {
		answer := get(t, "GET", path)
		if answer.StatusCode != 200 {
			t.Errorf("%s: status %d, want 200", path, answer.StatusCode)
		}
		if got := answer.Header.Get("Content-Type"); got != want {
			t.Errorf("%s: type %q, want %q", path, got, want)
		}
		for _, name := range []string{"ETag", "Cache-Control", "X-Content-Type-Options"} {
			if answer.Header.Get(name) == "" {
				t.Errorf("%s: no %s", path, name)
			}
		}
	}
}

func TestUnchangedFileIsNotSentAgain(t *testing.T) {
	first := get(t, "GET", "/static/callbox.js")
	again := get(t, "GET", "/static/callbox.js", "If-None-Match", first.Header.Get("ETag"))
	if again.StatusCode != http.StatusNotModified {
		t.Fatalf("status %d, want 304", again.StatusCode)
	}
	if head := get(t, "HEAD", "/static/callbox.js"); head.StatusCode != 200 || head.ContentLength == 0 {
		t.Fatalf("HEAD: status %d, length %d", head.StatusCode, head.ContentLength)
	}
}

func TestNothingElseIsServed(t *testing.T) {
	for _, path := range []string{
		"/static/", "/static", "/static/callbox", "/static/templates/call.html", "/static/static.go",
		"/static/client_test.mjs", "/static/../static.go", "/callbox.js",
	} {
		if answer := get(t, "GET", path); answer.StatusCode != http.StatusNotFound {
			t.Errorf("%s: status %d, want 404", path, answer.StatusCode)
		}
	}
	answer := get(t, "POST", "/static/callbox.js")
	if answer.StatusCode != http.StatusMethodNotAllowed || answer.Header.Get("Allow") != "GET, HEAD" {
		t.Errorf("POST: status %d, Allow %q", answer.StatusCode, answer.Header.Get("Allow"))
	}
}

// The modules name each other by path, so a file that is left out of the embed
// would be noticed only in a browser.
func TestEveryImportAndReferenceIsEmbedded(t *testing.T) {
	imports := regexp.MustCompile(`(?:import|export)\s[^;"]*?from "(\.[^"]+)"`)
	references := regexp.MustCompile(`(?:src|href)="/static/([^"]+)"`)
	files, err := load(assets)
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	preloaded := everyTemplate(t)
	for name, file := range files {
		// What is not preloaded is found only after what imports it has arrived, one round trip later each.
		if strings.HasSuffix(name, ".js") && !strings.Contains(preloaded, `"/static/`+name+`"`) {
			t.Errorf("%s is in no template", name)
		}
		for _, match := range imports.FindAllStringSubmatch(string(file.body), -1) {
			seen++
			target := filepath.ToSlash(filepath.Join(filepath.Dir(name), match[1]))
			if _, ok := files[target]; !ok {
				t.Errorf("%s imports %s, which is not embedded", name, target)
			}
		}
	}
	for _, match := range references.FindAllStringSubmatch(preloaded, -1) {
		seen++
		if _, ok := files[match[1]]; !ok {
			t.Errorf("a template refers to %s, which is not embedded", match[1])
		}
	}
	if seen < 15 {
		t.Fatalf("only %d imports and references found", seen)
	}
}

// everyTemplate is the text of all templates.
func everyTemplate(t *testing.T) string {
	t.Helper()
	entries, err := templateFiles.ReadDir("templates")
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, entry := range entries {
		text, err := templateFiles.ReadFile("templates/" + entry.Name())
		if err != nil {
			t.Fatal(err)
		}
		all.Write(text)
	}
	return all.String()
}
