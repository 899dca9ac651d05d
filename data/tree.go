package data

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/ipfs/go-cid"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/db"
)

// maxEntries bounds the entries of one directory.
const maxEntries = 10_000_000

func (s *Store) putRow(k, v []byte) error {
	b := &db.Batch{}
	b.Put(k, v)
	return s.db.WriteLazy(b)
}

// dirLinks returns the entries of a directory node, shards opened, sorted by
// name. Names that could lead a reader astray make the directory Corrupt.
func dirLinks(ctx context.Context, n ufsNode, get getter) ([]link, error) {
	links := n.Links
	if n.Type == ufsHAMT {
		var err error
		if links, err = shardLinks(ctx, n, get, nil, 0); err != nil {
			return nil, err
		}
	}
	links = slices.Clone(links)
	slices.SortStableFunc(links, func(a, b link) int { return strings.Compare(a.Name, b.Name) })
	for i, l := range links {
		if l.Name == "" || l.Name == "." || l.Name == ".." || len(l.Name) > 1024 || strings.ContainsAny(l.Name, "/\x00") {
			return nil, perigee.E("data.ReadDir", perigee.Corrupt, "a directory with an entry named %.40q", l.Name)
		}
		if i > 0 && links[i-1].Name == l.Name {
			return nil, perigee.E("data.ReadDir", perigee.Corrupt, "a directory with two entries named %q", l.Name)
		}
	}
	return links, nil
}

func shardLinks(ctx context.Context, n ufsNode, get getter, out []link, depth int) ([]link, error) {
	if depth > 24 {
		return nil, perigee.E("data.ReadDir", perigee.Corrupt, "a sharded directory deeper than its hash")
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	prefix := shardPrefix(n.Fanout)
	for _, l := range n.Links {
		if len(l.Name) < prefix {
			return nil, perigee.E("data.ReadDir", perigee.Corrupt, "a shard with a link named %q", l.Name)
		}
		if len(l.Name) > prefix {
			if len(out) >= maxEntries {
				return nil, perigee.E("data.ReadDir", perigee.Invalid, "a directory of more than %d entries", maxEntries)
			}
			l.Name = l.Name[prefix:]
			out = append(out, l)
			continue
		}
		child, err := nodeOf(l.CID, get)
		if err == nil && (child.Type != ufsHAMT || child.Fanout != n.Fanout) {
			err = perigee.E("data.ReadDir", perigee.Corrupt, "a shard that leads to something else")
		}
		if err != nil {
			return nil, err
		}
		if out, err = shardLinks(ctx, child, get, out, depth+1); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// entry describes what a link leads to. The size of a leaf that is not here is
// the one that the link claims.
func (s *Store) entry(l link, get getter) (perigee.TreeEntry, error) {
	e := perigee.TreeEntry{Name: l.Name, Kind: perigee.KindFile, CID: perigee.NewCID(l.CID)}
	if !isInner(l.CID) {
		if d, ok := known(l.CID); ok {
			e.Size = int64(len(d))
			return e, nil
		}
		n, ok, err := s.haveLocal(string(l.CID.Hash()))
		if !ok {
			n = int64(min(l.Size, maxSize))
		}
		e.Size = n
		return e, err
	}
	n, err := nodeOf(l.CID, get)
	if err != nil {
		return e, err
	}
	switch e.Kind = kindOf(&n); e.Kind {
	case perigee.KindFile:
		e.Size = int64(n.FileSize)
	case perigee.KindSymlink:
		e.Target = string(n.Data)
	}
	return e, nil
}

// localTree is a tree on this node. It reads metadata as asked and keeps the
// directories it has read.
type localTree struct {
	s     *Store
	ctx   context.Context // of the store: a tree lives until its store closes
	root  perigee.TreeEntry
	slice bool // root is the bytes [lo, hi) of a file of size bytes
	size  int64
	lo    int64
	hi    int64

	mu      sync.Mutex
	dirs    map[cid.Cid][]link
	entries int
}

var _ perigee.Tree = (*localTree)(nil)

// Tree returns the tree of in on this node; a slice of a file is a tree whose
// root is a file. Hold in.CID while using it. Everything the tree's methods
// need is read from disk when asked; their errors are NotFound, Invalid,
// Corrupt (a file indexed in place changed, or the tree is malformed) and
// Unavailable (some of it is not on this node: Fetch it first).
func (s *Store) Tree(ctx context.Context, in perigee.PartInput) (perigee.Tree, error) {
	if err := defined("data.Tree", in.CID); err != nil {
		return nil, err
	}
	t := &localTree{s: s, ctx: s.ctx, dirs: map[cid.Cid][]link{}}
	e, err := s.entry(link{CID: in.CID.Cid()}, s.local)
	if err != nil {
		return nil, absent(err, in.CID)
	}
	if !isInner(in.CID.Cid()) {
		if e.Size, err = s.fileSize(in.CID.Cid(), s.local); err != nil {
			return nil, absent(err, in.CID)
		}
	}
	if in.Length > 0 {
		if t.size, t.lo, t.hi, err = s.bounds(ctx, in, s.local); err != nil {
			return nil, absent(err, in.CID)
		}
		t.slice, e.Size = true, t.hi-t.lo
	}
	t.root = e
	return t, nil
}

// absent turns a missing block into an error of kind Unavailable.
func absent(err error, c perigee.CID) error {
	if errors.Is(err, perigee.NotFound) {
		return perigee.E("data.Tree", perigee.Unavailable, err, "not all of %s is on this node", c)
	}
	return err
}

// find returns the entry at a name.
func (t *localTree) find(op, name string) (perigee.TreeEntry, error) {
	if !fs.ValidPath(name) {
		return perigee.TreeEntry{}, perigee.E(op, perigee.Invalid, "%q is not a clean relative path", name)
	}
	at := t.root
	if name == "." {
		return at, nil
	}
	for elem := range strings.SplitSeq(name, "/") {
		l, err := t.lookup(at, elem)
		if err != nil {
			return perigee.TreeEntry{}, err
		}
		if l == nil {
			return perigee.TreeEntry{}, perigee.E(op, perigee.NotFound, "%s: no such file", name)
		}
		if at, err = t.s.entry(*l, t.s.local); err != nil {
			return perigee.TreeEntry{}, absent(err, t.root.CID)
		}
	}
	return at, nil
}

func (t *localTree) lookup(dir perigee.TreeEntry, name string) (*link, error) {
	if dir.Kind != perigee.KindDir {
		return nil, nil
	}
	links, err := t.links(dir)
	if err != nil {
		return nil, err
	}
	i, ok := slices.BinarySearchFunc(links, name, func(l link, n string) int { return strings.Compare(l.Name, n) })
	if !ok {
		return nil, nil
	}
	return &links[i], nil
}

func (t *localTree) links(dir perigee.TreeEntry) ([]link, error) {
	c := dir.CID.Cid()
	t.mu.Lock()
	links, ok := t.dirs[c]
	t.mu.Unlock()
	if ok {
		return links, nil
	}
	n, err := nodeOf(c, t.s.local)
	if err == nil {
		links, err = dirLinks(t.ctx, n, t.s.local)
	}
	if err != nil {
		return nil, absent(err, t.root.CID)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.entries += len(links); t.entries > 1_000_000 {
		clear(t.dirs)
		t.entries = len(links)
	}
	t.dirs[c] = links
	return links, nil
}

func (t *localTree) Stat(name string) (perigee.TreeEntry, error) { return t.find("data.Stat", name) }

func (t *localTree) ReadDir(name string) ([]perigee.TreeEntry, error) {
	dir, err := t.find("data.ReadDir", name)
	if err != nil {
		return nil, err
	}
	if dir.Kind != perigee.KindDir {
		return nil, perigee.E("data.ReadDir", perigee.Invalid, "%s is not a directory", name)
	}
	links, err := t.links(dir)
	if err != nil {
		return nil, err
	}
	out := make([]perigee.TreeEntry, len(links))
	for i, l := range links {
		if out[i], err = t.s.entry(l, t.s.local); err != nil {
			return nil, absent(err, t.root.CID)
		}
	}
	return out, nil
}

func (t *localTree) Open(name string) (perigee.FileView, error) {
	e, err := t.find("data.Open", name)
	if err != nil {
		return perigee.FileView{}, err
	}
	if e.Kind != perigee.KindFile {
		return perigee.FileView{}, perigee.E("data.Open", perigee.Invalid, "%s is not a file", name)
	}
	size, lo, hi := e.Size, int64(0), e.Size
	if t.slice {
		size, lo, hi = t.size, t.lo, t.hi
	}
	v, err := t.s.view(t.ctx, e.CID.Cid(), size, lo, hi)
	return v, absent(err, t.root.CID)
}

// Ls returns the entries of the directory c, sorted by name; of a file or
// symlink, itself with an empty name. Metadata that is not here is fetched.
func (s *Store) Ls(ctx context.Context, c perigee.CID) ([]perigee.TreeEntry, error) {
	if err := defined("data.Ls", c); err != nil {
		return nil, err
	}
	get := s.getMeta(ctx, c.Cid(), nil)
	root, err := s.entry(link{CID: c.Cid()}, get)
	if err != nil {
		return nil, err
	}
	if root.Kind != perigee.KindDir {
		if root.Size, err = s.sizeOf(c.Cid(), root, get); err != nil {
			return nil, err
		}
		return []perigee.TreeEntry{root}, nil
	}
	n, err := nodeOf(c.Cid(), get)
	if err != nil {
		return nil, err
	}
	links, err := dirLinks(ctx, n, get)
	if err != nil {
		return nil, err
	}
	out := make([]perigee.TreeEntry, len(links))
	for i, l := range links {
		if out[i], err = s.entry(l, get); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// sizeOf returns the size of a root entry, which no link tells.
func (s *Store) sizeOf(c cid.Cid, e perigee.TreeEntry, get getter) (int64, error) {
	if e.Kind != perigee.KindFile || isInner(c) {
		return e.Size, nil
	}
	return s.fileSize(c, get)
}

// Walk calls fn for c and everything below it, directories before their
// entries, entries by name; path is "." for c itself. Metadata that is not here
// is fetched, file content is not. An error from fn ends the walk.
func (s *Store) Walk(ctx context.Context, c perigee.CID, fn func(path string, e perigee.TreeEntry) error) error {
	if err := defined("data.Walk", c); err != nil {
		return err
	}
	get := s.getMeta(ctx, c.Cid(), nil)
	root, err := s.entry(link{CID: c.Cid()}, get)
	if err != nil {
		return err
	}
	if root.Size, err = s.sizeOf(c.Cid(), root, get); err != nil {
		return err
	}
	return s.walkEntry(ctx, ".", root, get, 0, fn)
}

func (s *Store) walkEntry(ctx context.Context, at string, e perigee.TreeEntry, get getter, depth int, fn func(string, perigee.TreeEntry) error) error {
	if depth > maxDepth {
		return perigee.E("data.Walk", perigee.Invalid, "a tree nested deeper than %d directories", maxDepth)
	}
	if err := fn(at, e); err != nil || e.Kind != perigee.KindDir {
		return err
	}
	n, err := nodeOf(e.CID.Cid(), get)
	if err != nil {
		return err
	}
	links, err := dirLinks(ctx, n, get)
	if err != nil {
		return err
	}
	for _, l := range links {
		child, err := s.entry(l, get)
		if err != nil {
			return err
		}
		if err := s.walkEntry(ctx, path.Join(at, l.Name), child, get, depth+1, fn); err != nil {
			return err
		}
	}
	return nil
}

// List calls fn for each file below c with its path; for a file alone, "." once.
// It is Walk without the directories and symlinks.
func (s *Store) List(ctx context.Context, c perigee.CID, fn func(path string, e perigee.TreeEntry) error) error {
	return s.Walk(ctx, c, func(p string, e perigee.TreeEntry) error {
		if e.Kind != perigee.KindFile {
			return nil
		}
		return fn(p, e)
	})
}

// Resolve returns the CID that "CID[/path]" names, with or without a leading
// "/ipfs/". Symlinks are not followed. Errors: Invalid, NotFound and those of
// fetching directories.
func (s *Store) Resolve(ctx context.Context, name string) (perigee.CID, error) {
	root, rest, _ := strings.Cut(strings.TrimPrefix(name, "/ipfs/"), "/")
	c, err := perigee.ParseCID(root)
	if err != nil {
		return perigee.CID{}, err
	}
	rest = strings.Trim(rest, "/")
	if rest == "" {
		return c, nil
	}
	if !fs.ValidPath(rest) {
		return perigee.CID{}, perigee.E("data.Resolve", perigee.Invalid, "%q is not a clean path", rest)
	}
	get := func(c cid.Cid) ([]byte, error) { return s.block(ctx, c, nil) }
	at := c.Cid()
	for elem := range strings.SplitSeq(rest, "/") {
		if !isInner(at) {
			return perigee.CID{}, perigee.E("data.Resolve", perigee.NotFound, "%s: %q is no directory's entry", name, elem)
		}
		n, err := nodeOf(at, get)
		if err != nil {
			return perigee.CID{}, err
		}
		var links []link
		if kindOf(&n) == perigee.KindDir {
			if links, err = dirLinks(ctx, n, get); err != nil {
				return perigee.CID{}, err
			}
		}
		i := slices.IndexFunc(links, func(l link) bool { return l.Name == elem })
		if i < 0 {
			return perigee.CID{}, perigee.E("data.Resolve", perigee.NotFound, "%s: no entry %q", name, elem)
		}
		at = links[i].CID
	}
	return perigee.NewCID(at), nil
}

// Info describes a root.
type Info struct {
	CID    perigee.CID `json:"cid"`
	Kind   string      `json:"kind"`   // file, dir or symlink
	Size   int64       `json:"size"`   // bytes of file content, as far as it is known
	Files  int64       `json:"files"`  // files and symlinks
	Blocks int64       `json:"blocks"` // on this node
	Local  int64       `json:"local"`  // bytes of file content on this node
}

// Stat describes c. Metadata that is not here is fetched.
func (s *Store) Stat(ctx context.Context, c perigee.CID) (Info, error) {
	if err := defined("data.Stat", c); err != nil {
		return Info{}, err
	}
	r, err := s.root(ctx, c.Cid())
	if err != nil {
		return Info{}, err
	}
	out := Info{CID: c, Size: r.Size, Files: r.Files, Blocks: r.Blocks, Local: r.Size}
	if !r.Complete {
		get := s.getMeta(ctx, c.Cid(), nil)
		e, err := s.entry(link{CID: c.Cid()}, get)
		if err != nil {
			return Info{}, err
		}
		if r, err = s.measure(ctx, nil, c.Cid()); err != nil {
			return Info{}, err
		}
		r.Kind = uint8(e.Kind)
		out.Size, out.Files, out.Blocks = r.Size, r.Files, r.Blocks
		if !isInner(c.Cid()) {
			if out.Size, err = s.fileSize(c.Cid(), get); err != nil {
				return Info{}, err
			}
		}
		if out.Local, err = s.LocalBytes(ctx, perigee.PartInput{CID: c, Size: out.Size}); err != nil {
			return Info{}, err
		}
	}
	out.Kind = kindName(perigee.FileKind(r.Kind))
	return out, nil
}

// LocalBytes returns how many of in's bytes of file content are on this node:
// at once for a pinned root that is complete, else by walking what is here. It
// fetches nothing; a tree of which nothing is here has 0.
func (s *Store) LocalBytes(ctx context.Context, in perigee.PartInput) (int64, error) {
	if err := defined("data.LocalBytes", in.CID); err != nil {
		return 0, err
	}
	c := in.CID.Cid()
	if r, ok, err := s.knownRoot(c); err != nil {
		return 0, err
	} else if ok {
		in.Size = r.Size
		return in.Bytes(), nil
	}
	lo, hi := int64(0), int64(maxSize)
	if in.Length > 0 {
		lo, hi = in.Offset, min(in.Offset+in.Length, maxSize)
	}
	return s.localIn(ctx, c, lo, hi)
}

// localIn sums the local leaf bytes below c; [lo, hi) applies to a file.
func (s *Store) localIn(ctx context.Context, c cid.Cid, lo, hi int64) (int64, error) {
	var sum int64
	if lo == 0 && hi == maxSize {
		w := walker{get: s.localOrMissing, have: s.haveLocal}
		w.visit = func(_ cid.Cid, n *ufsNode, size int64) error {
			if n == nil {
				sum += size
			} else if n.Type == ufsFile || n.Type == ufsRaw {
				sum += int64(len(n.Data))
			}
			return nil
		}
		_, err := w.walk(ctx, c)
		return sum, err
	}
	get := func(c cid.Cid) ([]byte, error) {
		b, err := s.localOrMissing(c)
		if errors.Is(err, perigee.NotFound) {
			return nil, errSkip // counts as no bytes
		}
		return b, err
	}
	err := fileRuns(ctx, c, -1, lo, hi, get, func(r run) error {
		n, ok, err := s.haveLocal(string(r.cid.Hash()))
		if ok && r.block == nil {
			r.length = n
		}
		if ok {
			sum += max(min(r.offset+r.length, hi)-max(r.offset, lo), 0)
		}
		return err
	})
	if errors.Is(err, perigee.Corrupt) || errors.Is(err, perigee.Invalid) {
		err = nil
	}
	return sum, err
}

// Named is a DAG under a name.
type Named = struct {
	Name string
	CID  perigee.CID
}

// Combine makes and pins a directory whose entries are DAGs that exist, here or
// elsewhere; no content is copied or fetched.
func (s *Store) Combine(ctx context.Context, entries []Named, owner string) (perigee.CID, error) {
	a, err := s.newAdder(AddOptions{Pin: owner})
	if err != nil {
		return perigee.CID{}, err
	}
	defer a.w.end()
	list := make([]dirEntry, len(entries))
	for i, e := range entries {
		if err := defined("data.Combine", e.CID); err != nil {
			return perigee.CID{}, err
		}
		r := ref{CID: e.CID.Cid()}
		if r.Cum, err = s.claim(e.CID.Cid()); err != nil {
			return perigee.CID{}, err
		}
		list[i] = dirEntry{e.Name, r}
	}
	r, err := a.p.dir(list, a.put)
	if err != nil {
		return perigee.CID{}, err
	}
	if err := a.w.commit(); err != nil {
		return perigee.CID{}, err
	}
	_, err = s.pinIn(ctx, a.w, r.CID, owner, "")
	return perigee.NewCID(r.CID), err
}

// claim returns what a link to c claims as its size: that of a leaf that is
// here, and nothing for all else, so that the directory does not depend on what
// this node happens to hold.
func (s *Store) claim(c cid.Cid) (uint64, error) {
	if isInner(c) {
		return 0, nil
	}
	n, _, err := s.haveLocal(string(c.Hash()))
	return uint64(n), err
}
