package data

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipfs/go-cid"
	"golang.org/x/sync/errgroup"

	"github.com/perigee-network/perigee"
)

// AddOptions say how data is added. The zero value copies it with the default
// profile and pins it for the user.
type AddOptions struct {
	InPlace  bool                    // index the files where they lie instead of copying them (AddPath only)
	Profile  string                  // "unixfs-v1-2025" (the default), "unixfs-v0-2015" ("legacy-256k") or "legacy-cid-v1"
	Chunker  string                  // "size-N", else the profile's
	Pin      string                  // the pin's owner; "" is OwnerUser
	Name     string                  // of the pin, for people
	Progress func(done, total int64) // bytes; called often and never concurrently; total is 0 when unknown
}

// Added is what an add made.
type Added struct {
	CID     perigee.CID `json:"cid"`
	Size    int64       `json:"size"` // bytes of file content
	Files   int64       `json:"files"`
	Seconds float64     `json:"seconds"`
}

// Entry is a file, directory or symlink to add or to receive. Path is
// slash-separated and relative. Open is for files.
type Entry struct {
	Path   string
	Kind   perigee.FileKind
	Size   int64
	Target string
	Open   func() (io.ReadCloser, error)
}

// adder is one add in progress.
type adder struct {
	s       *Store
	p       profile
	inPlace bool
	w       *session
	done    atomic.Int64
	total   int64
	files   atomic.Int64
	progMu  sync.Mutex
	claimMu sync.Mutex // of w.claims
	prog    func(done, total int64)
}

var chunkPool = sync.Pool{New: func() any { b := make([]byte, 1<<20); return &b }}

// chunkBuffer returns a buffer of n bytes from the pool and its return.
func chunkBuffer(n int64) ([]byte, func()) {
	if n > 1<<20 {
		return make([]byte, n), func() {}
	}
	p := chunkPool.Get().(*[]byte)
	return (*p)[:n], func() { chunkPool.Put(p) }
}

func (s *Store) newAdder(o AddOptions) (*adder, error) {
	p, err := parseProfile(o.Profile, o.Chunker)
	if err != nil {
		return nil, err
	}
	if _, err := checkOwner(o.Pin); err != nil {
		return nil, err
	}
	return &adder{s: s, p: p, inPlace: o.InPlace, w: s.newSession(), prog: o.Progress}, nil
}

func (a *adder) progress(n int64) {
	done := a.done.Add(n)
	if a.prog == nil {
		return
	}
	a.progMu.Lock()
	defer a.progMu.Unlock()
	a.prog(done, a.total)
}

// finish commits what was added and pins its root.
func (a *adder) finish(ctx context.Context, r ref, kind perigee.FileKind, o AddOptions, began time.Time) (Added, error) {
	if err := ctx.Err(); err != nil {
		return Added{}, err
	}
	epoch := a.s.epoch.Load()
	if err := a.w.commit(); err != nil {
		return Added{}, err
	}
	owner, _ := checkOwner(o.Pin)
	blocks := int64(len(a.w.touched))
	info := rootInfo{uint8(kind), int64(r.Size), a.files.Load(), blocks, true, epoch}
	if err := a.s.writePin(r.CID, owner, o.Name, info); err != nil {
		return Added{}, err
	}
	return Added{perigee.NewCID(r.CID), int64(r.Size), a.files.Load(), time.Since(began).Seconds()}, nil
}

// put is the emit of an adder.
func (a *adder) put(c cid.Cid, b []byte) error { return a.w.put(c, b) }

// AddPath adds a file or directory: hidden files too, symlinks as symlinks.
// Sockets, pipes and devices are refused by name, and so is a file that changes
// while it is read. Errors: Invalid, NotFound, Exhausted, Cancelled.
func (s *Store) AddPath(ctx context.Context, path string, o AddOptions) (Added, error) {
	began := time.Now()
	a, err := s.newAdder(o)
	if err != nil {
		return Added{}, err
	}
	defer a.w.end()
	abs, err := filepath.Abs(path)
	if err == nil {
		abs, err = filepath.EvalSymlinks(abs) // the path given is followed, those below are not
	}
	if err != nil {
		return Added{}, pathError(err)
	}
	root, err := a.scan(ctx, abs)
	if err != nil {
		return Added{}, err
	}
	if err := a.readFiles(ctx, root); err != nil {
		return Added{}, err
	}
	r, err := a.build(root)
	if err != nil {
		return Added{}, err
	}
	return a.finish(ctx, r, root.kind, o, began)
}

func pathError(err error) error {
	kind := perigee.Invalid
	if errors.Is(err, fs.ErrNotExist) {
		kind = perigee.NotFound
	} else if errors.Is(err, fs.ErrPermission) {
		kind = perigee.Refused
	}
	return perigee.E("data.Add", kind, err)
}

// item is a file, directory or symlink found on disk.
type item struct {
	name     string
	path     string
	kind     perigee.FileKind
	row      fileRow
	children []*item
	leaves   []ref
	ref      ref
	left     atomic.Int64 // ranges of leaves still to be read
}

// scan lists a path and everything below it, in sorted order.
func (a *adder) scan(ctx context.Context, path string) (*item, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	fi, err := os.Lstat(path)
	if err != nil {
		return nil, pathError(err)
	}
	it := &item{name: filepath.Base(path), path: path}
	switch mode := fi.Mode(); {
	case mode.IsRegular():
		it.kind, it.row = perigee.KindFile, statRow(path, fi)
		a.total += it.row.Size
		a.files.Add(1)
	case mode.IsDir():
		it.kind = perigee.KindDir
		names, err := os.ReadDir(path)
		if err != nil {
			return nil, pathError(err)
		}
		it.children = make([]*item, 0, len(names))
		for _, e := range names {
			child, err := a.scan(ctx, filepath.Join(path, e.Name()))
			if err != nil {
				return nil, err
			}
			it.children = append(it.children, child)
		}
	case mode&fs.ModeSymlink != 0:
		target, err := os.Readlink(path)
		if err != nil {
			return nil, pathError(err)
		}
		it.kind = perigee.KindSymlink
		a.files.Add(1)
		if it.ref, err = a.p.symlink(target, a.put); err != nil {
			return nil, err
		}
	default:
		return nil, perigee.E("data.Add", perigee.Invalid, "%s is a %s; only files, directories and symlinks can be added", path, special(mode))
	}
	return it, nil
}

func special(m fs.FileMode) string {
	switch {
	case m&fs.ModeSocket != 0:
		return "socket"
	case m&fs.ModeNamedPipe != 0:
		return "named pipe"
	case m&fs.ModeDevice != 0:
		return "device"
	}
	return "special file"
}

// taskLeaves is how many leaves one task reads, so that a large file is read by
// all workers and a small one by one.
const taskLeaves = 16

// leafTask is a run of a file's leaves.
type leafTask struct {
	it    *item
	first int
	count int
}

// readFiles reads and hashes every file below root with one worker per core.
func (a *adder) readFiles(ctx context.Context, root *item) error {
	g, ctx := errgroup.WithContext(ctx)
	tasks := make(chan leafTask, 64)
	g.Go(func() error {
		defer close(tasks)
		return a.feed(ctx, root, tasks)
	})
	for range max(runtime.GOMAXPROCS(0), 2) {
		g.Go(func() error {
			for t := range tasks {
				if err := a.readTask(ctx, t); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

func (a *adder) feed(ctx context.Context, it *item, tasks chan<- leafTask) error {
	for _, c := range it.children {
		if err := a.feed(ctx, c, tasks); err != nil {
			return err
		}
	}
	if it.kind != perigee.KindFile {
		return nil
	}
	n := max(int((it.row.Size+a.p.chunk-1)/a.p.chunk), 1)
	it.leaves = make([]ref, n)
	it.left.Store(int64((n + taskLeaves - 1) / taskLeaves))
	for first := 0; first < n; first += taskLeaves {
		select {
		case tasks <- leafTask{it, first, min(taskLeaves, n-first)}:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// readTask reads, hashes and records a run of leaves.
func (a *adder) readTask(ctx context.Context, t leafTask) error {
	it := t.it
	f, err := openRegular(it.path)
	if err != nil {
		return busyFile(it.path, err)
	}
	defer f.Close()
	var id uint64
	if a.inPlace && it.row.Size > 0 {
		if id, err = a.claim(it); err != nil {
			return err
		}
	}
	for i := t.first; i < t.first+t.count; i++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		off := int64(i) * a.p.chunk
		if err := a.readLeaf(it, f, id, i, off, min(a.p.chunk, it.row.Size-off)); err != nil {
			return err
		}
	}
	if it.left.Add(-1) > 0 {
		return nil
	}
	fi, err := os.Lstat(it.path)
	if err != nil || !statRow(it.path, fi).same(it.row) {
		return busyFile(it.path, err)
	}
	return nil
}

func busyFile(path string, err error) error {
	if err != nil && !errors.Is(err, perigee.Corrupt) {
		return pathError(err)
	}
	return perigee.E("data.Add", perigee.Invalid, "%s changed while it was being read; try again when nothing writes to it", path)
}

func (a *adder) readLeaf(it *item, f *os.File, id uint64, i int, off, n int64) error {
	buf, free := chunkBuffer(n)
	defer free()
	if m, err := f.ReadAt(buf, off); int64(m) < n {
		if err == nil || errors.Is(err, io.EOF) {
			return busyFile(it.path, nil)
		}
		return pathError(err)
	}
	digest := a.p.leafDigest(buf)
	r := a.p.leafRef(digest, len(buf))
	it.leaves[i] = r
	a.progress(n)
	if !a.inPlace || n == 0 {
		return a.putLeaf(r.CID, buf)
	}
	p := place{kind: atFile, id: id, offset: off, length: n}
	if !a.p.rawLeaves {
		p.kind, p.sum = atWrapped, sumOf(buf)
	}
	return a.w.putPlace(r.CID, p)
}

// putLeaf copies a leaf's payload into the session.
func (a *adder) putLeaf(c cid.Cid, payload []byte) error {
	if a.p.rawLeaves {
		return a.w.put(c, payload)
	}
	head, tail := wrapLeaf(len(payload))
	b := make([]byte, 0, len(head)+len(payload)+len(tail))
	return a.w.put(c, append(append(append(b, head...), payload...), tail...))
}

// claim finds the id under which a file is indexed. A file that changed since
// it was indexed before makes what was known of its old content doubtful.
func (a *adder) claim(it *item) (uint64, error) {
	a.claimMu.Lock()
	defer a.claimMu.Unlock()
	a.s.gcMu.RLock() // garbage collection forgets no file that is claimed
	defer a.s.gcMu.RUnlock()
	if id, ok := a.w.claims[it.path]; ok {
		return id, nil
	}
	id, known, err := a.s.fileID(it.path)
	if err != nil {
		return 0, err
	}
	if known {
		if old, err := a.s.fileByID(id); err == nil && !old.same(it.row) {
			a.s.epoch.Add(1)
		}
	}
	a.w.putFile(id, it.row) // before the leaves, which name it
	a.w.claims[it.path] = id
	return id, nil
}

// build makes the DAG of what was read, from the leaves up.
func (a *adder) build(it *item) (ref, error) {
	switch it.kind {
	case perigee.KindSymlink:
		return it.ref, nil
	case perigee.KindFile:
		return a.p.file(it.leaves, a.put)
	}
	entries := make([]dirEntry, len(it.children))
	for i, c := range it.children {
		r, err := a.build(c)
		if err != nil {
			return ref{}, err
		}
		entries[i] = dirEntry{c.name, r}
	}
	r, err := a.p.dir(entries, a.put)
	if err != nil {
		return ref{}, perigee.E("data.Add", perigee.KindOf(err), err, "%s", it.path)
	}
	return r, nil
}

// AddReader adds a stream as a file.
func (s *Store) AddReader(ctx context.Context, r io.Reader, o AddOptions) (Added, error) {
	began := time.Now()
	a, err := s.newAdder(o)
	if err != nil {
		return Added{}, err
	}
	defer a.w.end()
	file, err := a.stream(ctx, r)
	if err != nil {
		return Added{}, err
	}
	a.files.Store(1)
	return a.finish(ctx, file, perigee.KindFile, o, began)
}

// stream adds one file from a reader: one goroutine reads, others hash and
// write.
func (a *adder) stream(ctx context.Context, r io.Reader) (ref, error) {
	a.inPlace = false
	var leaves []*ref
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(max(runtime.GOMAXPROCS(0), 2))
	for {
		if gctx.Err() != nil {
			break
		}
		buf, free := chunkBuffer(a.p.chunk)
		n, err := io.ReadFull(r, buf)
		end := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !end {
			free()
			_ = g.Wait()
			return ref{}, err
		}
		if n == 0 && len(leaves) > 0 {
			free()
			break
		}
		leaf := new(ref)
		leaves = append(leaves, leaf)
		task := func() error {
			defer free()
			*leaf = a.p.leafRef(a.p.leafDigest(buf[:n]), n)
			a.progress(int64(n))
			return a.putLeaf(leaf.CID, buf[:n])
		}
		if end && len(leaves) == 1 {
			if err := task(); err != nil {
				return ref{}, err
			}
			return *leaf, nil
		}
		g.Go(task)
		if end {
			break
		}
	}
	if err := g.Wait(); err != nil {
		return ref{}, err
	}
	if err := ctx.Err(); err != nil {
		return ref{}, err
	}
	flat := make([]ref, len(leaves))
	for i, l := range leaves {
		flat[i] = *l
	}
	return a.p.file(flat, a.put)
}

// tree is a directory under construction from entries.
type tree struct {
	kind     perigee.FileKind
	ref      ref
	children map[string]*tree
}

// AddEntries adds a directory made of entries, in any order. Parents need no
// entry of their own. Two entries for one path are refused.
func (s *Store) AddEntries(ctx context.Context, entries iter.Seq2[Entry, error], o AddOptions) (Added, error) {
	began := time.Now()
	a, err := s.newAdder(o)
	if err != nil {
		return Added{}, err
	}
	defer a.w.end()
	root := &tree{kind: perigee.KindDir, children: map[string]*tree{}}
	for e, err := range entries {
		if err == nil {
			err = ctx.Err()
		}
		if err == nil {
			err = a.entry(ctx, root, e)
		}
		if err != nil {
			return Added{}, err
		}
	}
	r, err := a.join(root)
	if err != nil {
		return Added{}, err
	}
	return a.finish(ctx, r, perigee.KindDir, o, began)
}

func (a *adder) entry(ctx context.Context, root *tree, e Entry) error {
	if e.Path == "." && e.Kind == perigee.KindDir {
		return nil
	}
	names := strings.Split(e.Path, "/")
	if len(names) > maxDepth/2 {
		return perigee.E("data.Add", perigee.Invalid, "%.64q… is nested deeper than %d directories", e.Path, maxDepth/2)
	}
	at := root
	for i, name := range names {
		if err := checkName(name); err != nil {
			return err
		}
		next := at.children[name]
		last := i == len(names)-1
		if next == nil {
			next = &tree{kind: perigee.KindDir, children: map[string]*tree{}}
			at.children[name] = next
		} else if next.kind != perigee.KindDir || (last && e.Kind != perigee.KindDir) {
			return perigee.E("data.Add", perigee.Invalid, "two entries for %q", e.Path)
		}
		at = next
	}
	switch e.Kind {
	case perigee.KindDir:
		return nil
	case perigee.KindSymlink:
		r, err := a.p.symlink(e.Target, a.put)
		at.kind, at.ref = e.Kind, r
		a.files.Add(1)
		return err
	case perigee.KindFile:
		r, err := e.Open()
		if err != nil {
			return err
		}
		defer r.Close()
		at.kind = e.Kind
		a.files.Add(1)
		at.ref, err = a.stream(ctx, r)
		return err
	}
	return perigee.E("data.Add", perigee.Invalid, "entry %q is of no known kind", e.Path)
}

func (a *adder) join(t *tree) (ref, error) {
	if t.kind != perigee.KindDir {
		return t.ref, nil
	}
	entries := make([]dirEntry, 0, len(t.children))
	for name, c := range t.children {
		r, err := a.join(c)
		if err != nil {
			return ref{}, err
		}
		entries = append(entries, dirEntry{name, r})
	}
	return a.p.dir(entries, a.put)
}
