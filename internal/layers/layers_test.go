package layers

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	module = "github.com/perigee-network/perigee"
	root   = "../.."
)

// floors is the plan of the house. "" is the root package, the vocabulary.
var floors = map[string]int{
	"":         1,
	"identity": 2, "db": 2, "wasm": 2, "schedule": 2, "client": 2, "container": 2, "market": 2,
	"p2p":       3,
	"data":      4,
	"requester": 5, "provider": 5, "ledger": 5,
	"api": 6, "service": 6, "function": 6, "console": 6,
	"node":        7,
	"demo":        8,
	"cmd/perigee": 9, "bench": 9, "e2e": 9, "sim": 9,
	"internal/layers": 9,
}

// libraries are those with one room only. Interfaces of go-libp2p/core are
// free for all: they are how rooms speak of hosts and keys.
var libraries = []struct{ prefix, except, room string }{
	{"github.com/libp2p/", "github.com/libp2p/go-libp2p/core", "p2p"},
	{"github.com/ipfs/boxo", "", "data"},
	{"github.com/bytecodealliance/wasmtime-go", "", "wasm"},
	{"github.com/cockroachdb/pebble", "", "db"},
}

// made directories hold nothing that is in the repository, foreign ones no
// packages of this module.
var (
	made    = []string{".git", ".cache", "bin"}
	foreign = append([]string{"tools", "testdata", "vendor"}, made...)
)

// source is one Go file of the module.
type source struct {
	path    string // slash-separated, from the root
	dir     string // its package, "" for the root
	test    bool
	pkg     string
	doc     bool
	imports []string
}

func sources(t *testing.T) []source {
	t.Helper()
	var out []source
	fset := token.NewFileSet()
	walk(t, foreign, func(name string) {
		if !strings.HasSuffix(name, ".go") {
			return
		}
		f, err := parser.ParseFile(fset, filepath.Join(root, name), nil, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			return
		}
		dir := path.Dir(name)
		if dir == "." {
			dir = ""
		}
		s := source{path: name, dir: dir, test: strings.HasSuffix(name, "_test.go"), pkg: strings.TrimSuffix(f.Name.Name, "_test"), doc: documented(f)}
		for _, i := range f.Imports {
			p, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			s.imports = append(s.imports, p)
		}
		out = append(out, s)
	})
	if len(out) < 10 {
		t.Fatalf("found only %d Go files below %s", len(out), root)
	}
	return out
}

func documented(f *ast.File) bool {
	return f.Doc != nil && strings.TrimSpace(f.Doc.Text()) != ""
}

// walk calls fn for each file of the repository, leaving out the directories named.
func walk(t *testing.T, without []string, fn func(name string)) {
	t.Helper()
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if p != root && slices.Contains(without, d.Name()) {
				return filepath.SkipDir
			}
			return nil
		}
		if d.Type().IsRegular() {
			rel, err := filepath.Rel(root, p)
			if err != nil {
				return err
			}
			fn(filepath.ToSlash(rel))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// roomOf returns the room that a package stands in: the nearest of its parents
// with a floor.
func roomOf(dir string) (string, bool) {
	for d := dir; d != "" && d != "."; d = path.Dir(d) {
		if _, ok := floors[d]; ok {
			return d, true
		}
	}
	return "", dir == ""
}

func ours(imp string) (dir string, ok bool) {
	if imp == module {
		return "", true
	}
	return strings.CutPrefix(imp, module+"/")
}

// TestFloors checks that packages import lower floors only, or packages of
// their own room. Tests may import their own floor too: a requester is best
// tested with a real provider.
func TestFloors(t *testing.T) {
	for _, s := range sources(t) {
		room, ok := roomOf(s.dir)
		if !ok {
			t.Errorf("%s: package %s has no floor; give it one in internal/layers/layers_test.go", s.path, s.dir)
			continue
		}
		for _, imp := range s.imports {
			dir, ok := ours(imp)
			if !ok {
				continue
			}
			if msg := forbidden(s, room, dir); msg != "" {
				t.Errorf("%s: %s", s.path, msg)
			}
		}
	}
}

func forbidden(s source, room, dir string) string {
	other, ok := roomOf(dir)
	switch {
	case !ok:
		return fmt.Sprintf("imports %s, which has no floor", dir)
	case other == room:
		return ""
	case floors[other] < floors[room], s.test && floors[other] == floors[room]:
		return ""
	}
	return fmt.Sprintf("%s (floor %d) must not import %s (floor %d): a package imports lower floors only", room, floors[room], dir, floors[other])
}

// TestLibraries checks that the large libraries stay behind the package that
// hides them, and that the client is light: anyone may import it.
func TestLibraries(t *testing.T) {
	for _, s := range sources(t) {
		room, _ := roomOf(s.dir)
		if s.test {
			continue
		}
		for _, imp := range s.imports {
			for _, l := range libraries {
				free := l.except != "" && (imp == l.except || strings.HasPrefix(imp, l.except+"/"))
				if strings.HasPrefix(imp, l.prefix) && !free && room != l.room {
					t.Errorf("%s: only package %s may import %s", s.path, l.room, imp)
				}
			}
			if first, _, _ := strings.Cut(imp, "/"); room == "client" && strings.Contains(first, ".") && imp != module && s.dir == "client" {
				t.Errorf("%s: the client imports the standard library and package perigee only, not %s", s.path, imp)
			}
		}
	}
}

// TestPackageComments checks that every package says what it is for.
func TestPackageComments(t *testing.T) {
	documented := map[string]bool{}
	for _, s := range sources(t) {
		key := "package " + s.pkg + " in " + s.dir
		documented[key] = documented[key] || s.doc
		if slices.Contains([]string{"utils", "util", "common", "helpers", "misc"}, s.pkg) {
			t.Errorf("%s: a package named %s says nothing of what it holds", s.path, s.pkg)
		}
	}
	for key, ok := range documented {
		if !ok {
			t.Errorf("%s has no package comment", key)
		}
	}
}

// TestNoStrayText checks that no file speaks of the place where it was written.
func TestNoStrayText(t *testing.T) {
	farm := "farm"
	stray := []string{"../" + "shared", "/" + "work/", farm + "-studio", farm + "-bench"}
	walk(t, made, func(name string) {
		b, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Error(err)
			return
		}
		if bytes.IndexByte(b[:min(len(b), 8000)], 0) >= 0 {
			return // not text
		}
		for _, w := range stray {
			if i := bytes.Index(b, []byte(w)); i >= 0 {
				t.Errorf("%s:%d mentions %q", name, 1+bytes.Count(b[:i], []byte("\n")), w)
			}
		}
	})
}
