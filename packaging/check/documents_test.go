package check

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"callbox/internal/testkit"
)

// anchors are the names of a document's headings, as GitHub makes them.
func anchors(text string) map[string]bool {
	out := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(text, -1) {
		name := regexp.MustCompile(`[^a-z0-9 _-]`).ReplaceAllString(strings.ToLower(m[1]), "")
		out[strings.ReplaceAll(name, " ", "-")] = true
	}
	return out
}

func TestDocumentsLinkToWhatThereIs(t *testing.T) {
	root := testkit.Root(t)
	documents, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil || len(documents) == 0 {
		t.Fatal(documents, err)
	}
	named := read(t, "README.md")
	for _, path := range append(documents, filepath.Join(root, "README.md"), filepath.Join(root, "CONTRIBUTING.md"), filepath.Join(root, "CHANGELOG.md")) {
		name, err := filepath.Rel(root, path)
		if err != nil {
			t.Fatal(err)
		}
		text := read(t, name)
		for _, m := range regexp.MustCompile(`(?s)\[[^\]]+\]\(([^)\s]+)\)`).FindAllStringSubmatch(text, -1) {
			target, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(target, "://") {
				continue
			}
			in := text
			if target != "" {
				to := filepath.Join(filepath.Dir(path), filepath.FromSlash(target))
				info, err := os.Stat(to)
				if err != nil {
					t.Errorf("%s leads to %s: %v", name, m[1], err)
					continue
				}
				if info.IsDir() || !strings.HasSuffix(to, ".md") {
					continue
				}
				rel, err := filepath.Rel(root, to)
				if err != nil {
					t.Fatal(err)
				}
				in = read(t, rel)
			}
			if anchor != "" && !anchors(in)[anchor] {
				t.Errorf("%s leads to %s: there is no such heading", name, m[1])
			}
		}
		if strings.HasPrefix(name, "docs") && !strings.Contains(named, filepath.ToSlash(name)) {
			t.Errorf("README's map of documents lacks %s", name)
		}
	}
}
