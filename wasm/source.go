package wasm

import (
	"errors"
	"io/fs"
	"os"

	"github.com/perigee-network/perigee"
)

// source answers what a worker asks about the inputs of one execution. It
// trusts the trees, not the worker: names are checked, and a descriptor is given
// only for a file that an extent of an opened input lies in.
type source struct {
	mounts []Mount
	ids    map[string]int64 // path of a local file → its number
	paths  []string
	sent   map[int64]bool // descriptors the worker has been given at least once

	viewMount int // the file opened last, for paging
	viewName  string
	view      perigee.FileView
	listMount int // the directory read last
	listName  string
	list      []perigee.TreeEntry
}

const (
	extentsPerPage = 8192
	entriesPerPage = 4096
	inlinePerPage  = 1 << 20
)

func newSource(mounts []Mount) *source {
	return &source{mounts: mounts, ids: map[string]int64{}, sent: map[int64]bool{}, viewMount: -1, listMount: -1}
}

// path returns the path of file number id, "" if there is none.
func (s *source) path(id int64) string {
	if id < 0 || id >= int64(len(s.paths)) {
		return ""
	}
	return s.paths[id]
}

// answer returns the reply to q and the file to send beside it, which the
// caller closes. A failing tree is a fault inside the reply; the error is of a
// query that no honest worker sends.
func (s *source) answer(q query) (reply, *os.File, error) {
	if q.Op == queryFile {
		return s.file(q.From)
	}
	if q.Mount < 0 || q.Mount >= len(s.mounts) || !fs.ValidPath(q.Name) || q.From < 0 {
		return reply{}, nil, errFrame
	}
	switch q.Op {
	case queryStat:
		e, err := s.mounts[q.Mount].Tree.Stat(q.Name)
		if err != nil {
			return reply{Fault: perigee.FaultOf(err)}, nil, nil
		}
		return reply{Entries: []nodeMessage{nodeOf(e)}}, nil, nil
	case queryReadDir:
		return s.readDir(q)
	case queryOpen:
		return s.open(q)
	}
	return reply{}, nil, errFrame
}

func nodeOf(e perigee.TreeEntry) nodeMessage {
	return nodeMessage{Name: e.Name, Kind: uint8(e.Kind), Size: e.Size, Target: e.Target}
}

func (s *source) readDir(q query) (reply, *os.File, error) {
	if q.From == 0 || s.listMount != q.Mount || s.listName != q.Name {
		list, err := s.mounts[q.Mount].Tree.ReadDir(q.Name)
		if err != nil {
			return reply{Fault: perigee.FaultOf(err)}, nil, nil
		}
		s.listMount, s.listName, s.list = q.Mount, q.Name, list
	}
	var r reply
	size := 0
	for i := q.From; i < int64(len(s.list)); i++ {
		if len(r.Entries) == entriesPerPage || size > inlinePerPage {
			r.More = true
			return r, nil, nil
		}
		e := s.list[i]
		size += len(e.Name) + len(e.Target)
		r.Entries = append(r.Entries, nodeOf(e))
	}
	s.listMount, s.list = -1, nil
	return r, nil, nil
}

func (s *source) open(q query) (reply, *os.File, error) {
	if q.From == 0 || s.viewMount != q.Mount || s.viewName != q.Name {
		view, err := s.mounts[q.Mount].Tree.Open(q.Name)
		if err != nil {
			return reply{Fault: perigee.FaultOf(err)}, nil, nil
		}
		s.viewMount, s.viewName, s.view = q.Mount, q.Name, view
	}
	r := reply{Size: s.view.Size, Skip: s.view.Skip, Count: int64(len(s.view.Extents)), FileID: -1}
	inline := 0
	for i := q.From; i < int64(len(s.view.Extents)); i++ {
		x := &s.view.Extents[i]
		if len(r.Extents) == extentsPerPage || inline > inlinePerPage {
			r.More = true
			break
		}
		if x.Length < 0 || x.Length > maxExtent {
			return reply{Fault: &perigee.Fault{Kind: perigee.Unsupported,
				Message: sizeText("a block of %s in an input is larger than the %s that can be checked at once", x.Length, maxExtent)}}, nil, nil
		}
		m := extentMessage{Length: x.Length, Sum: x.Sum[:], File: -1, Offset: x.Offset}
		if x.Path == "" {
			m.Data = x.Data
			inline += len(x.Data)
		} else {
			m.File = s.id(x.Path)
		}
		r.Extents = append(r.Extents, m)
	}
	if len(r.Extents) > 0 && r.Extents[0].File >= 0 && !s.sent[r.Extents[0].File] {
		// The descriptor that will be wanted next travels with the answer. If it
		// cannot be opened, whoever asks for it explicitly hears why.
		if f, err := os.Open(s.paths[r.Extents[0].File]); err == nil {
			r.Files, r.FileID = 1, r.Extents[0].File
			s.sent[r.FileID] = true
			return r, f, nil
		}
	}
	return r, nil, nil
}

func (s *source) id(path string) int64 {
	id, ok := s.ids[path]
	if !ok {
		id = int64(len(s.paths))
		s.ids[path] = id
		s.paths = append(s.paths, path)
	}
	return id
}

func (s *source) file(id int64) (reply, *os.File, error) {
	path := s.path(id)
	if path == "" {
		return reply{}, nil, errFrame
	}
	f, err := os.Open(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return reply{Fault: &perigee.Fault{Kind: perigee.Corrupt, Message: "an input changed: " + path + " is no longer there"}}, nil, nil
	case err != nil:
		return reply{Fault: &perigee.Fault{Kind: perigee.Unavailable, Message: "an input cannot be read: " + err.Error()}}, nil, nil
	}
	s.sent[id] = true
	return reply{Files: 1, FileID: id}, f, nil
}
