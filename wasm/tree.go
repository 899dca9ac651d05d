package wasm

import (
	"sort"
	"strings"

	"github.com/perigee-network/perigee"
)

// node is a file, directory or symlink that the guest can reach. There are
// three origins: directories that only lead to mounts, nodes of an input tree,
// which are read-only and filled in when they are first looked at, and scratch
// nodes below the outputs and /tmp, which the guest may change.
type node struct {
	ino    uint64
	kind   perigee.FileKind
	parent *node // of a directory; the root is its own
	fixed  bool  // a mount point, output directory or a way to one: cannot be removed
	times  [2]uint64

	children map[string]*node // of a directory
	scratch  bool             // may be written
	content  *scratchFile     // of a scratch file
	links    int              // names of a scratch node
	opens    int              // descriptors of a scratch node
	target   string           // of a symlink

	mount  int    // the input tree it belongs to, -1 for none
	inner  string // its name in that tree
	listed bool   // all children are here
	size   int64  // of an input file
	input  *inputFile
}

func (n *node) isDir() bool { return n.kind == perigee.KindDir }

// tree is the guest's file system.
type tree struct {
	root    *node
	lastIno uint64
	// ask resolves a name of an input tree: nil when there is none. It stops
	// the guest itself when the input cannot be had.
	ask interface {
		stat(mount int, name string) (*nodeMessage, bool)
		list(mount int, name string) ([]nodeMessage, bool)
	}
}

// errno is an error number of WASI preview 1.
type errno uint16

// The error numbers the host uses, after
// https://github.com/WebAssembly/WASI/blob/main/legacy/preview1/docs.md#errno.
const (
	ok           errno = 0
	eBADF        errno = 8
	eBUSY        errno = 10
	eEXIST       errno = 20
	eFAULT       errno = 21
	eFBIG        errno = 22
	eILSEQ       errno = 25
	eINVAL       errno = 28
	eIO          errno = 29
	eISDIR       errno = 31
	eLOOP        errno = 32
	eMFILE       errno = 33
	eNAMETOOLONG errno = 37
	eNOENT       errno = 44
	eNOTDIR      errno = 54
	eNOTEMPTY    errno = 55
	eNOTSUP      errno = 58
	eOVERFLOW    errno = 61
	ePERM        errno = 63
	eROFS        errno = 69
	eSPIPE       errno = 70
	eNOTCAPABLE  errno = 76
	errnoCount         = 77
)

func newTree() *tree {
	t := &tree{}
	t.root = t.newNode(perigee.KindDir)
	t.root.parent, t.root.fixed, t.root.listed = t.root, true, true
	return t
}

func (t *tree) newNode(kind perigee.FileKind) *node {
	t.lastIno++
	const epoch = EpochSeconds * 1e9
	n := &node{ino: t.lastIno, kind: kind, mount: -1, links: 1, times: [2]uint64{epoch, epoch}}
	if kind == perigee.KindDir {
		n.children = map[string]*node{}
	}
	return n
}

// attach puts what make returns at an absolute clean path, making the
// directories on the way. It reports false when something there is no directory.
func (t *tree) attach(path string, fill func(n *node)) bool {
	at := t.root
	for _, name := range strings.Split(strings.Trim(path, "/"), "/") {
		if name == "" {
			break
		}
		next := at.children[name]
		if next == nil {
			next = t.newNode(perigee.KindDir)
			next.listed, next.fixed, next.parent, next.scratch = true, true, at, at.scratch
			// A way to a mount inside an input tree keeps showing that tree.
			if at.mount >= 0 {
				inner := join(at.inner, name)
				if e, _ := t.ask.stat(at.mount, inner); e != nil && perigee.FileKind(e.Kind) == perigee.KindDir {
					next.mount, next.inner, next.listed = at.mount, inner, false
				}
			}
			at.children[name] = next
		}
		if !next.isDir() {
			return false
		}
		at = next
	}
	fill(at)
	return true
}

// join joins names of an input tree.
func join(dir, name string) string {
	if dir == "." {
		return name
	}
	return dir + "/" + name
}

// child looks a name up in a directory. It returns nil when there is none, and
// false when the guest was stopped.
func (t *tree) child(dir *node, name string) (*node, bool) {
	if n := dir.children[name]; n != nil || dir.listed {
		return n, true
	}
	e, going := t.ask.stat(dir.mount, join(dir.inner, name))
	if e == nil {
		return nil, going
	}
	return t.adopt(dir, name, e), true
}

// adopt makes a node of what an input tree said.
func (t *tree) adopt(dir *node, name string, e *nodeMessage) *node {
	n := t.newNode(perigee.FileKind(e.Kind))
	n.mount, n.inner, n.size, n.target = dir.mount, join(dir.inner, name), e.Size, e.Target
	if n.isDir() {
		n.parent = dir
	}
	dir.children[name] = n
	return n
}

// fill completes a directory's children. It reports false when the guest was
// stopped.
func (t *tree) fill(dir *node) bool {
	if dir.listed {
		return true
	}
	list, going := t.ask.list(dir.mount, dir.inner)
	if !going {
		return false
	}
	for i := range list {
		if dir.children[list[i].Name] == nil {
			t.adopt(dir, list[i].Name, &list[i])
		}
	}
	dir.listed = true
	return true
}

// names returns the sorted names in a directory whose children are complete.
func (n *node) names() []string {
	names := make([]string, 0, len(n.children))
	for name := range n.children {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// place is where a path leads: a node, or the directory and name where one
// could be made. name is "" when the path ends in "/", "." or "..", or is the
// root, so that nothing can be made or removed there.
type place struct {
	dir     *node
	name    string
	node    *node // nil when there is none
	mustDir bool  // the path ends in a slash
}

// find follows a path from dir; a symlink at its end only if follow is set.
// Absolute paths and targets begin at the guest's root and ".." ends there, so
// that no path leads out.
func (t *tree) find(dir *node, path string, follow bool) (place, errno) {
	switch {
	case path == "":
		return place{}, eNOENT
	case len(path) > MaxPath:
		return place{}, eNAMETOOLONG
	case strings.ContainsRune(path, 0):
		return place{}, eINVAL
	}
	at := dir
	if path[0] == '/' {
		at = t.root
	}
	todo := path
	mustDir := strings.HasSuffix(path, "/")
	for links := 0; ; {
		var name string
		name, todo = nextName(todo)
		switch name {
		case "":
			return place{dir: at.parent, node: at}, ok
		case ".":
			continue
		case "..":
			at = at.parent
			continue
		}
		next, going := t.child(at, name)
		if !going {
			return place{}, eIO
		}
		last := strings.Trim(todo, "/") == ""
		if next == nil {
			if !last {
				return place{}, eNOENT
			}
			return place{dir: at, name: name, mustDir: mustDir}, ok
		}
		if next.kind == perigee.KindSymlink && (!last || follow || mustDir) {
			if links++; links > maxSymlinks {
				return place{}, eLOOP
			}
			if strings.HasPrefix(next.target, "/") {
				at = t.root
			}
			if len(next.target)+len(todo) > 4*MaxPath {
				return place{}, eNAMETOOLONG
			}
			if next.target == "" {
				return place{}, eNOENT
			}
			mustDir = mustDir || last && strings.HasSuffix(next.target, "/")
			todo = next.target + "/" + todo
			continue
		}
		if last {
			if mustDir && !next.isDir() {
				return place{}, eNOTDIR
			}
			return place{dir: at, name: name, node: next, mustDir: mustDir}, ok
		}
		if !next.isDir() {
			return place{}, eNOTDIR
		}
		at = next
	}
}

// nextName cuts the first name off a path.
func nextName(path string) (name, rest string) {
	path = strings.TrimLeft(path, "/")
	name, rest, _ = strings.Cut(path, "/")
	return name, rest
}

// within reports whether n is dir or below it.
func within(n, dir *node) bool {
	for {
		if n == dir {
			return true
		}
		if n.parent == nil || n.parent == n {
			return false
		}
		n = n.parent
	}
}
