package wasm

import (
	"bytes"
	"io"
	"os"
	"path"
	"slices"
	"sort"
	"time"

	"github.com/perigee-network/perigee"
)

// Outcome is what an execution left behind. Close it when its entries are no
// longer read.
type Outcome struct {
	ExitCode   int
	Fuel       int64      // operations, host calls included; the same everywhere
	Entries    []OutEntry // sorted by path: "stderr", "stdout" and the output directories
	BytesRead  int64      // input bytes the guest was given
	CPU        time.Duration
	Wall       time.Duration
	PeakMemory int64 // bytes of linear memory

	spill *os.File
}

// OutEntry is one file, directory or symlink of an outcome. Path is the guest's
// without the leading slash. Open works for files until the outcome is closed,
// any number of times and from any goroutine.
type OutEntry struct {
	Path   string
	Kind   perigee.FileKind
	Size   int64
	Target string
	Open   func() (io.ReadCloser, error)
}

// Close frees the disk space of the entries. It is safe to call it twice.
func (o *Outcome) Close() error {
	if o == nil || o.spill == nil {
		return nil
	}
	f := o.spill
	o.spill = nil
	return f.Close()
}

// Entry returns the entry at path, nil if there is none.
func (o *Outcome) Entry(path string) *OutEntry {
	i := sort.Search(len(o.Entries), func(i int) bool { return o.Entries[i].Path >= path })
	if i < len(o.Entries) && o.Entries[i].Path == path {
		return &o.Entries[i]
	}
	return nil
}

// outEntry checks what a worker said about an entry and makes it readable.
func outEntry(m entryMessage, spill *os.File) (OutEntry, error) {
	e := OutEntry{Path: m.Path, Kind: perigee.FileKind(m.Kind), Size: m.Size, Target: m.Target}
	if m.Path == "" || !validGuestPath("/"+m.Path) {
		return e, errFrame
	}
	switch e.Kind {
	case perigee.KindDir, perigee.KindSymlink:
		if m.Size != 0 || len(m.Data) > 0 || len(m.Runs) > 0 || (m.Target != "") != (e.Kind == perigee.KindSymlink) {
			return e, errFrame
		}
		e.Open = func() (io.ReadCloser, error) {
			return nil, perigee.E("wasm.OutEntry", perigee.Invalid, "%s is not a file", m.Path)
		}
		return e, nil
	case perigee.KindFile:
	default:
		return e, errFrame
	}
	left := m.Size - int64(len(m.Data))
	for _, r := range m.Runs {
		if r.Length <= 0 || r.Length > left || (r.Offset >= 0 && spill == nil) {
			return e, errFrame
		}
		left -= r.Length
	}
	if left != 0 || m.Target != "" {
		return e, errFrame
	}
	data, runs := bytes.Clone(m.Data), m.Runs
	e.Open = func() (io.ReadCloser, error) {
		if len(runs) == 0 {
			return io.NopCloser(bytes.NewReader(data)), nil
		}
		readers := []io.Reader{bytes.NewReader(data)}
		for _, r := range runs {
			if r.Offset < 0 {
				readers = append(readers, io.LimitReader(zeroes{}, r.Length))
			} else {
				readers = append(readers, &wholeSection{r: io.NewSectionReader(spill, r.Offset, r.Length), left: r.Length})
			}
		}
		return io.NopCloser(io.MultiReader(readers...)), nil
	}
	return e, nil
}

// coherent reports whether entries, sorted by path, are the standard streams and
// trees below outputs in which everything lies in a directory.
func coherent(entries []OutEntry, outputs []string) bool {
	kinds := make(map[string]perigee.FileKind, len(entries))
	for _, e := range entries {
		if kinds[e.Path] != 0 {
			return false // named twice
		}
		kinds[e.Path] = e.Kind
	}
	for _, e := range entries {
		switch {
		case e.Path == "stdout" || e.Path == "stderr":
			if e.Kind != perigee.KindFile {
				return false
			}
		case slices.Contains(outputs, "/"+e.Path):
			if e.Kind != perigee.KindDir {
				return false
			}
		case kinds[path.Dir(e.Path)] != perigee.KindDir:
			return false
		}
	}
	return kinds["stdout"] != 0 && kinds["stderr"] != 0
}

// zeroes is an endless reader of zeroes: a hole in a sparse file.
type zeroes struct{}

// Read implements io.Reader.
func (zeroes) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// wholeSection fails when its file ends early, which io.MultiReader would take
// for the end of the section.
type wholeSection struct {
	r    *io.SectionReader
	left int64
}

// Read implements io.Reader.
func (w *wholeSection) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	w.left -= int64(n)
	if err == io.EOF && w.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}
