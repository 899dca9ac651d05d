package wasm

import (
	"crypto/sha256"
	"os"
	"path"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"github.com/perigee-network/perigee"
	"github.com/stretchr/testify/require"
)

// diskTree is a perigee.Tree of real files, indexed in place.
type diskTree struct {
	entries map[string]perigee.TreeEntry
	views   map[string]perigee.FileView
}

// indexTree indexes files, whose names end in "@" for symlinks, under a new
// directory in extents of the given size; every second extent of a file named
// *.inline is given by value.
func indexTree(t testing.TB, extent int, files map[string]string) (*diskTree, string) {
	t.Helper()
	dir := t.TempDir()
	tree := &diskTree{entries: map[string]perigee.TreeEntry{".": {Kind: perigee.KindDir}}, views: map[string]perigee.FileView{}}
	for name, content := range files {
		for up := path.Dir(name); up != "."; up = path.Dir(up) {
			tree.entries[up] = perigee.TreeEntry{Name: path.Base(up), Kind: perigee.KindDir}
		}
		if link, is := strings.CutSuffix(name, "@"); is {
			tree.entries[link] = perigee.TreeEntry{Name: path.Base(link), Kind: perigee.KindSymlink, Target: content}
			continue
		}
		at := filepath.Join(dir, filepath.FromSlash(name))
		require.NoError(t, os.MkdirAll(filepath.Dir(at), 0o755))
		require.NoError(t, os.WriteFile(at, []byte(content), 0o644))
		e := perigee.TreeEntry{Name: path.Base(name), Kind: perigee.KindFile, Size: int64(len(content))}
		if name == "." {
			e.Name = ""
		}
		tree.entries[name] = e
		tree.views[name] = viewOf(at, []byte(content), extent)
	}
	return tree, dir
}

func viewOf(at string, content []byte, extent int) perigee.FileView {
	v := perigee.FileView{Size: int64(len(content))}
	for off := 0; off < len(content); off += extent {
		part := content[off:min(off+extent, len(content))]
		x := perigee.Extent{Length: int64(len(part)), Sum: sha256.Sum256(part), Path: at, Offset: int64(off)}
		if strings.HasSuffix(at, ".inline") && len(v.Extents)%2 == 1 {
			x.Path, x.Offset, x.Data = "", 0, part
		}
		v.Extents = append(v.Extents, x)
	}
	return v
}

// fileTree is a tree whose root is a file with a given view.
func fileTree(v perigee.FileView) *diskTree {
	return &diskTree{entries: map[string]perigee.TreeEntry{".": {Kind: perigee.KindFile, Size: v.Size}},
		views: map[string]perigee.FileView{".": v}}
}

func (d *diskTree) Stat(name string) (perigee.TreeEntry, error) {
	e, ok := d.entries[name]
	if !ok {
		return e, perigee.E("test.Stat", perigee.NotFound, "%s is not there", name)
	}
	return e, nil
}

func (d *diskTree) ReadDir(name string) ([]perigee.TreeEntry, error) {
	var list []perigee.TreeEntry
	for p, e := range d.entries {
		if p != "." && path.Dir(p) == name {
			list = append(list, e)
		}
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Name < list[j].Name })
	return list, nil
}

func (d *diskTree) Open(name string) (perigee.FileView, error) {
	v, ok := d.views[name]
	if !ok {
		return v, perigee.E("test.Open", perigee.NotFound, "%s is no file", name)
	}
	return v, nil
}

var _ perigee.Tree = (*diskTree)(nil)
