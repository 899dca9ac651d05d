package data

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/db"
)

// packLimit is the length at which a pack is closed for appending, and
// openPacks how many packs are kept open for reading.
const (
	packLimit = 512 << 20
	openPacks = 128
)

// packs are the append-only files that hold received and copied blocks. A pack
// has no structure of its own: the index says what lies where. Each is appended
// to by one session at a time. Bytes count once the index names them, which
// happens only after they are on disk; what lies past the committed length is
// debris of an interrupted session and cut off on Open.
type packs struct {
	dir string
	db  db.DB

	mu     sync.Mutex
	nextID uint64
	idle   []*pack             // may be appended to
	read   map[uint64]*os.File // open for reading
	order  []uint64            // of read, oldest first
	busy   map[uint64]bool     // appended to by a session
	dirty  map[uint64]struct{} // committed without waiting for the disk

	// writeAt writes to a pack; tests make it fail.
	writeAt func(f *os.File, b []byte, off int64) (int, error)
}

// pack is a pack that a session appends to.
type pack struct {
	id        uint64
	path      string
	f         *os.File
	direct    *os.File // the same without the page cache, or nil
	end       int64    // where the next byte goes
	committed int64
	fresh     bool // its name is not yet known to be on disk
}

func (p *packs) path(id uint64) string {
	return filepath.Join(p.dir, fmt.Sprintf("%08d.pack", id))
}

// openAll checks the packs against the index, removes debris and opens the last
// few short ones for appending.
func openPackDir(dir string, store db.DB) (*packs, error) {
	p := &packs{dir: dir, db: store, read: map[uint64]*os.File{}, dirty: map[uint64]struct{}{}, busy: map[uint64]bool{}, writeAt: (*os.File).WriteAt}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, perigee.E("data.Open", perigee.Internal, err, "cannot make the pack directory")
	}
	committed := map[uint64]int64{}
	err := store.Scan([]byte(keyPack), nil, func(k, v []byte) error {
		n, l := binary.Uvarint(v)
		if len(k) != len(keyPack)+8 || l <= 0 {
			return errIndex
		}
		id := binary.BigEndian.Uint64(k[len(keyPack):])
		committed[id] = int64(n)
		p.nextID = max(p.nextID, id+1)
		return nil
	})
	if err != nil {
		return nil, err
	}
	names, err := os.ReadDir(dir)
	if err != nil {
		return nil, perigee.E("data.Open", perigee.Internal, err, "cannot read the pack directory")
	}
	for _, e := range names {
		id, err := strconv.ParseUint(strings.TrimSuffix(e.Name(), ".pack"), 10, 64)
		if err != nil || p.path(id) != filepath.Join(dir, e.Name()) {
			continue
		}
		if err := p.recover(id, committed); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func (p *packs) recover(id uint64, committed map[uint64]int64) error {
	want, ok := committed[id]
	if !ok {
		if err := os.Remove(p.path(id)); err != nil {
			return perigee.E("data.Open", perigee.Internal, err, "cannot remove an unfinished pack")
		}
		return nil
	}
	fi, err := os.Stat(p.path(id))
	if err != nil {
		return perigee.E("data.Open", perigee.Internal, err)
	}
	if fi.Size() > want {
		if err := os.Truncate(p.path(id), want); err != nil {
			return perigee.E("data.Open", perigee.Internal, err, "cannot cut an unfinished pack")
		}
	}
	if fi.Size() >= want && want < packLimit/2 && len(p.idle) < 4 {
		p.idle = append(p.idle, &pack{id: id, path: p.path(id), end: want, committed: want})
	}
	return nil
}

// take hands out a pack to append to, a new one if none is free.
func (p *packs) take() (*pack, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.idle) > 0 {
		k := p.idle[len(p.idle)-1]
		p.idle = p.idle[:len(p.idle)-1]
		if k.f != nil {
			p.busy[k.id] = true
			return k, nil
		}
		f, err := os.OpenFile(k.path, os.O_RDWR, 0)
		if err == nil {
			k.f, k.direct = f, openDirect(k.path)
			p.busy[k.id] = true
			return k, nil
		}
	}
	k := &pack{id: p.nextID, path: p.path(p.nextID), fresh: true}
	f, err := os.OpenFile(k.path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, diskError(err, k.path)
	}
	p.nextID++
	p.busy[k.id] = true
	k.f, k.direct = f, openDirect(k.path)
	return k, nil
}

// give takes a pack back from a session, without what it did not commit.
func (p *packs) give(k *pack) {
	defer func() {
		p.mu.Lock()
		delete(p.busy, k.id)
		p.mu.Unlock()
	}()
	if k.end > k.committed {
		if err := k.f.Truncate(k.committed); err != nil {
			k.close()
			return // never appended to again; Open cuts it
		}
		k.end = k.committed
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case k.committed == 0 && k.fresh:
		k.close()
		os.Remove(k.path)
	case k.committed >= packLimit || len(p.idle) >= 4:
		k.close()
	default:
		p.idle = append(p.idle, k)
	}
}

// drop closes a pack and removes its file, after the index forgot it.
func (p *packs) drop(id uint64) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if f := p.read[id]; f != nil {
		f.Close()
		delete(p.read, id)
	}
	return os.Remove(p.path(id))
}

func (k *pack) close() {
	for _, f := range []*os.File{k.f, k.direct} {
		if f != nil {
			f.Close()
		}
	}
	k.f, k.direct = nil, nil
}

// sync makes a pack and its name durable.
func (p *packs) sync(k *pack) error {
	if err := dataSync(k.f.Fd()); err != nil {
		return diskError(err, k.path)
	}
	if k.fresh {
		if err := syncDir(p.dir); err != nil {
			return diskError(err, p.dir)
		}
		k.fresh = false
	}
	return nil
}

func (p *packs) markDirty(id uint64) {
	p.mu.Lock()
	p.dirty[id] = struct{}{}
	p.mu.Unlock()
}

// syncDirty makes all packs durable that were committed without waiting.
func (p *packs) syncDirty() error {
	p.mu.Lock()
	dirty := p.dirty
	p.dirty = map[uint64]struct{}{}
	p.mu.Unlock()
	for id := range dirty {
		f, err := p.reader(id)
		if err == nil {
			err = dataSync(f.Fd())
		}
		if err != nil && !errors.Is(err, perigee.NotFound) {
			p.markDirty(id)
			return diskError(err, p.path(id))
		}
	}
	if len(dirty) == 0 {
		return nil
	}
	if err := syncDir(p.dir); err != nil {
		return diskError(err, p.dir)
	}
	return nil
}

// retire takes a pack out of use for appending, so that it can be removed. It
// reports false when a session appends to it or did since its committed length
// was seen.
func (p *packs) retire(id uint64, committed int64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.busy[id] {
		return false
	}
	i := slices.IndexFunc(p.idle, func(k *pack) bool { return k.id == id })
	if i < 0 {
		return true
	}
	if p.idle[i].committed != committed {
		return false
	}
	p.idle[i].close()
	p.idle = slices.Delete(p.idle, i, i+1)
	return true
}

// readAt reads a run of a pack.
func (p *packs) readAt(id uint64, b []byte, off int64) error {
	for try := 0; ; try++ {
		f, err := p.reader(id)
		if err != nil {
			return err
		}
		n, err := f.ReadAt(b, off)
		if n == len(b) {
			return nil
		}
		if errors.Is(err, os.ErrClosed) && try < 8 {
			continue // closed under us to make room
		}
		return perigee.E("data.Get", perigee.Corrupt, err, "%s is shorter than its index says", p.path(id))
	}
}

func (p *packs) reader(id uint64) (*os.File, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if f := p.read[id]; f != nil {
		return f, nil
	}
	f, err := os.Open(p.path(id))
	if err != nil {
		kind := perigee.Internal
		if errors.Is(err, fs.ErrNotExist) {
			kind = perigee.NotFound
		}
		return nil, perigee.E("data.Get", kind, err)
	}
	p.read[id] = f
	p.order = append(p.order, id)
	for len(p.order) > openPacks {
		old := p.order[0]
		p.order = p.order[1:]
		if g := p.read[old]; g != nil && old != id {
			g.Close()
			delete(p.read, old)
		}
	}
	return f, nil
}

func (p *packs) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, k := range p.idle {
		k.close()
	}
	p.idle = nil
	for id, f := range p.read {
		f.Close()
		delete(p.read, id)
	}
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// diskError gives an I/O error its kind: a full disk is Exhausted.
func diskError(err error, path string) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG) {
		return perigee.E("data.write", perigee.Exhausted, err, "the disk is full at %s: free space or run garbage collection, then try again", path)
	}
	return perigee.E("data.write", perigee.Internal, err, "cannot write %s", path)
}
