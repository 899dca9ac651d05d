package wasm

import (
	"strings"

	"github.com/perigee-network/perigee"
)

// entryList gathers the output entries of an execution.
type entryList struct {
	x      *execution
	all    []entryMessage
	inline int
	seen   map[*node]bool
}

// finish returns the entries of the outcome. A stopped program has no result,
// only what it said.
func (x *execution) finish() ([]entryMessage, error) {
	l := &entryList{x: x, seen: map[*node]bool{}}
	if err := l.file("stderr", x.std[2]); err != nil {
		return nil, err
	}
	if err := l.file("stdout", x.std[1]); err != nil {
		return nil, err
	}
	if x.stop != nil {
		return l.all, nil
	}
	said := len(l.all)
	for i, dir := range x.outputs {
		if err := l.directory(strings.TrimPrefix(x.req.Outputs[i], "/"), dir); err != nil {
			return nil, err
		}
	}
	if x.stop != nil {
		return l.all[:said], nil
	}
	return l.all, nil
}

// file adds a file: its bytes if they are few, else where they lie.
func (l *entryList) file(path string, f *scratchFile) error {
	e := entryMessage{Path: path, Kind: uint8(perigee.KindFile), Size: f.size}
	var err error
	if f.size <= inlineEntry && l.inline+int(f.size) <= inlineTotal {
		e.Data = make([]byte, f.size)
		l.inline += int(f.size)
		_, err = l.x.scratch.readAt(f, e.Data, 0)
	} else {
		e.Runs, err = l.x.scratch.runs(f)
	}
	for runs := e.Runs; len(runs) > runsPerMessage; { // files written in turns lie in many pieces
		e.Runs, e.More = runs[:runsPerMessage], true
		l.all = append(l.all, e)
		runs = runs[runsPerMessage:]
		e.Runs, e.More = runs, false
	}
	l.all = append(l.all, e)
	return err
}

const runsPerMessage = 2048

// directory adds a directory and what is below it.
func (l *entryList) directory(path string, dir *node) error {
	if l.seen[dir] {
		return nil // an output inside another
	}
	l.seen[dir] = true
	if len(path) >= MaxPath {
		l.tooLong(path)
		return nil
	}
	l.all = append(l.all, entryMessage{Path: path, Kind: uint8(perigee.KindDir)})
	for _, name := range dir.names() {
		n, path := dir.children[name], path+"/"+name
		var err error
		switch {
		case !n.scratch: // an input mounted inside an output
		case l.x.stop != nil:
			return nil
		case n.isDir():
			err = l.directory(path, n)
		case len(path) >= MaxPath:
			l.tooLong(path)
		case n.kind == perigee.KindSymlink:
			l.all = append(l.all, entryMessage{Path: path, Kind: uint8(n.kind), Target: n.target})
		default:
			err = l.file(path, n.content)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// tooLong refuses an output that was reached through descriptors, directory by
// directory, and could not be named.
func (l *entryList) tooLong(path string) {
	l.x.halt(perigee.Invalid, "the program left an output whose path is longer than %d bytes: %.64s…", MaxPath, path)
}
