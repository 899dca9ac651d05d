package layers

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestThreatsNameRealTests checks that every test that doc/threats.md gives as
// evidence exists.
func TestThreatsNameRealTests(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join(root, "doc", "threats.md"))
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]bool{}
	function := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)
	walk(t, []string{".git", ".cache", "bin"}, func(name string) {
		if !strings.HasSuffix(name, "_test.go") {
			return
		}
		b, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range function.FindAllStringSubmatch(string(b), -1) {
			have[m[1]] = true
		}
	})
	named := regexp.MustCompile(`\b(?:Test|Fuzz)[A-Z]\w*`).FindAllString(string(doc), -1)
	if len(named) < 20 {
		t.Fatalf("doc/threats.md names %d tests only", len(named))
	}
	for _, name := range named {
		if !have[name] {
			t.Errorf("doc/threats.md names %s, which is no test", name)
		}
	}
}
