package data

import (
	"encoding/binary"
	"errors"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/ipfs/go-cid"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/db"
)

// The sizes of a session's batches.
const (
	sessionBuffer = 1 << 20   // small blocks are written together
	directWrite   = 256 << 10 // blocks from this size are written alone
	inlineBatch   = 64 << 10  // a session that holds no more keeps its blocks in the index
	inlineBlock   = 16 << 10  // largest block kept there
	commitBytes   = 256 << 20 // a long session commits after as many bytes
	commitRows    = 64 << 10  // or rows
)

// session is one add, fetch or import: it receives blocks, writes them in
// batches and protects them, and those it found already here, from garbage
// collection until it ends. Its methods are safe for concurrent use.
type session struct {
	s    *Store
	lazy bool // what is put need not survive a crash of the machine: it can be had again

	commitMu sync.Mutex // one commit at a time

	mu         sync.Mutex
	touched    map[string]struct{}
	rows       map[string]place   // not yet in the index
	committing map[string]place   // on their way there
	more       []extraPlace       // further places of blocks in rows
	files      map[uint64]fileRow // likewise
	claims     map[string]uint64  // ids of paths, for adds in place
	pack       *pack
	buf        []byte                // to be written at pack.end-len(buf), or inline
	bytes      int64                 // since the last commit
	writes     sync.WaitGroup        // of large blocks, outside mu
	writeErr   atomic.Pointer[error] // the first of those
	bg         sync.WaitGroup
	err        error // the first failure; the session is then useless
	ended      bool
}

// extraPlace is one more place of a block.
type extraPlace struct {
	hash string
	place
}

func (s *Store) newSession() *session {
	w := &session{s: s, touched: map[string]struct{}{}, rows: map[string]place{}, files: map[uint64]fileRow{}, claims: map[string]uint64{}}
	s.gcMu.Lock()
	s.sessions[w] = struct{}{}
	s.gcMu.Unlock()
	return w
}

// touch protects a block. What is looked up after a touch stays.
func (w *session) touch(hash string) {
	w.s.gcMu.RLock()
	w.mu.Lock()
	w.touched[hash] = struct{}{}
	w.mu.Unlock()
	w.s.gcMu.RUnlock()
}

func (w *session) fail(err error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
	}
	return w.err
}

// pending returns the place of a block that this session has not committed.
func (w *session) pending(hash string) (place, bool) {
	if p, ok := w.rows[hash]; ok {
		return p, true
	}
	p, ok := w.committing[hash]
	return p, ok
}

// block returns a block of the session or the store, verified.
func (w *session) block(c cid.Cid) ([]byte, error) {
	b, ok, err := w.uncommitted(string(c.Hash()))
	if err == nil && ok {
		err = verify(c, b)
	}
	if ok || err != nil {
		return b, err
	}
	return w.s.local(c)
}

func (w *session) uncommitted(hash string) ([]byte, bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p, ok := w.pending(hash)
	switch {
	case !ok || p.kind == atFile || p.kind == atWrapped:
		return nil, false, nil
	case p.kind == atInline:
		return append([]byte(nil), p.data...), true, nil
	}
	base := int64(0)
	if w.pack != nil {
		base = w.pack.end
	}
	if at := p.offset - base; len(w.buf) > 0 && at >= 0 && at+p.length <= int64(len(w.buf)) && (w.pack == nil || p.id == w.pack.id) {
		return append([]byte(nil), w.buf[at:at+p.length]...), true, nil
	}
	b := make([]byte, p.length)
	return b, true, w.s.packs.readAt(p.id, b, p.offset)
}

// put stores a verified block unless a copy is here. It does not keep data.
func (w *session) put(c cid.Cid, data []byte) error {
	if len(data) > MaxBlock {
		return perigee.E("data.Put", perigee.Invalid, "block %s has %d bytes; the limit is %d", c, len(data), MaxBlock)
	}
	hash := string(c.Hash())
	w.touch(hash)
	ps, err := w.s.places(hash)
	if err != nil {
		return err
	}
	if hasCopy(ps) {
		return nil
	}
	return w.store(hash, data)
}

// store writes a verified block, whether a copy is here or not.
func (w *session) store(hash string, data []byte) error {
	w.mu.Lock()
	if w.err != nil {
		defer w.mu.Unlock()
		return w.err
	}
	var err error
	if p, ok := w.pending(hash); ok && (p.kind == atPack || p.kind == atInline) {
		w.mu.Unlock()
		return nil
	}
	if len(data) < directWrite {
		err = w.putSmall(hash, data)
		w.mu.Unlock()
	} else {
		err = w.putLarge(hash, data) // unlocks
	}
	if err != nil {
		return w.fail(err)
	}
	return w.commitLater()
}

// putSmall adds a block to the buffer. The caller holds mu.
func (w *session) putSmall(hash string, data []byte) error {
	if len(w.buf)+len(data) > sessionBuffer {
		if err := w.flush(); err != nil {
			return err
		}
	}
	if w.buf == nil {
		w.buf = make([]byte, 0, min(sessionBuffer, max(4096, len(data))))
	}
	base := int64(0)
	if w.pack != nil {
		base = w.pack.end
	}
	w.rows[hash] = place{kind: atPack, offset: base + int64(len(w.buf)), length: int64(len(data))}
	if w.pack != nil {
		w.setPack(hash)
	}
	w.buf = append(w.buf, data...)
	w.bytes += int64(len(data))
	return nil
}

func (w *session) setPack(hash string) {
	p := w.rows[hash]
	p.id = w.pack.id
	w.rows[hash] = p
}

// needPack takes a pack; rows made before get its id. The caller holds mu.
func (w *session) needPack() error {
	if w.pack != nil {
		return nil
	}
	k, err := w.s.packs.take()
	if err != nil {
		return err
	}
	w.pack = k
	for h, p := range w.rows {
		if p.kind == atPack {
			p.id = k.id
			p.offset += k.end
			w.rows[h] = p
		}
	}
	return nil
}

// flush writes the buffer to the pack. The caller holds mu.
func (w *session) flush() error {
	if len(w.buf) == 0 {
		return nil
	}
	if err := w.needPack(); err != nil {
		return err
	}
	if _, err := w.s.packs.writeAt(w.pack.f, w.buf, w.pack.end); err != nil {
		return diskError(err, w.pack.path)
	}
	w.pack.end += int64(len(w.buf))
	w.buf = w.buf[:0]
	if cap(w.buf) < sessionBuffer {
		w.buf = make([]byte, 0, sessionBuffer)
	}
	return nil
}

// putLarge reserves room in the pack and writes a block there, outside the
// lock. The caller holds mu, which it releases.
func (w *session) putLarge(hash string, data []byte) error {
	if err := w.flush(); err != nil {
		w.mu.Unlock()
		return err
	}
	if err := w.needPack(); err != nil {
		w.mu.Unlock()
		return err
	}
	k := w.pack
	direct := !w.lazy && k.direct != nil && canWriteDirect(data)
	if direct {
		k.end = (k.end + directAlign - 1) &^ (directAlign - 1)
	}
	off := k.end
	k.end += int64(len(data))
	w.rows[hash] = place{kind: atPack, id: k.id, offset: off, length: int64(len(data))}
	w.bytes += int64(len(data))
	w.writes.Add(1)
	w.mu.Unlock()
	defer w.writes.Done()
	f := k.f
	if direct {
		f = k.direct
	}
	_, err := w.s.packs.writeAt(f, data, off)
	if direct && errors.Is(err, syscall.EINVAL) { // this file system wants another alignment
		_, err = w.s.packs.writeAt(k.f, data, off)
	}
	if err != nil {
		err = diskError(err, k.path)
		w.writeErr.CompareAndSwap(nil, &err)
		return err
	}
	return nil
}

// putPlace records that a block lies in a user's file.
func (w *session) putPlace(c cid.Cid, p place) error {
	hash := string(c.Hash())
	w.touch(hash)
	w.mu.Lock()
	if w.err != nil {
		defer w.mu.Unlock()
		return w.err
	}
	if _, ok := w.pending(hash); !ok {
		w.rows[hash] = p
	} else if len(w.more) < 16*commitRows {
		w.more = append(w.more, extraPlace{hash, p})
	}
	w.mu.Unlock()
	return w.commitLater()
}

// putFile records a user's file.
func (w *session) putFile(id uint64, f fileRow) {
	w.mu.Lock()
	w.files[id] = f
	w.mu.Unlock()
}

// commitLater starts a commit in the background when enough has gathered.
func (w *session) commitLater() error {
	w.mu.Lock()
	due := w.committing == nil && (w.bytes > commitBytes || len(w.rows) > commitRows)
	err := w.err
	if due && err == nil {
		w.bg.Add(1)
		w.committing = map[string]place{} // claims the commit
	}
	w.mu.Unlock()
	if due && err == nil {
		go func() {
			defer w.bg.Done()
			if err := w.commit(); err != nil {
				w.fail(err)
			}
		}()
	}
	return err
}

// commit makes everything put so far part of the index: first the packs' bytes
// reach the disk, then the rows that name them are written.
func (w *session) commit() error {
	w.commitMu.Lock()
	defer w.commitMu.Unlock()
	w.mu.Lock()
	if w.err != nil {
		defer w.mu.Unlock()
		return w.err
	}
	batch := &db.Batch{}
	if err := w.seal(); err != nil {
		w.mu.Unlock()
		return w.fail(err)
	}
	w.writes.Wait() // writers hold no lock while they write, and new ones wait for mu
	if p := w.writeErr.Load(); p != nil && w.err == nil {
		w.err = *p
	}
	if w.err != nil {
		defer w.mu.Unlock()
		return w.err
	}
	rows, more, files, k := w.rows, w.more, w.files, w.pack
	w.more = nil
	w.rows, w.files, w.committing, w.bytes = map[string]place{}, map[uint64]fileRow{}, rows, 0
	end := int64(0)
	if k != nil {
		end = k.end
	}
	w.mu.Unlock()

	if err := w.writeBatch(batch, rows, more, files, k, end); err != nil {
		return w.fail(err)
	}
	w.mu.Lock()
	w.committing = nil
	if k != nil && w.pack == k && k.committed >= packLimit && len(w.buf) == 0 && k.end == k.committed {
		w.pack = nil
		w.mu.Unlock()
		w.s.packs.give(k)
		return nil
	}
	w.mu.Unlock()
	return nil
}

// seal decides where the buffered blocks go: into the index when they are few
// and small, else to the pack. The caller holds mu.
func (w *session) seal() error {
	if w.pack != nil || len(w.buf) > inlineBatch {
		return w.flush()
	}
	for _, p := range w.rows {
		if p.kind == atPack && p.length > inlineBlock {
			return w.flush()
		}
	}
	for h, p := range w.rows {
		if p.kind == atPack {
			w.rows[h] = place{kind: atInline, length: p.length, data: w.buf[p.offset : p.offset+p.length]}
		}
	}
	w.buf = nil
	return nil
}

func (w *session) writeBatch(batch *db.Batch, rows map[string]place, more []extraPlace, files map[uint64]fileRow, k *pack, end int64) error {
	if k != nil && end > k.committed {
		if w.lazy {
			w.s.packs.markDirty(k.id)
		} else if err := w.s.packs.sync(k); err != nil {
			return err
		}
		batch.Put(idKey(keyPack, k.id), binary.AppendUvarint(nil, uint64(end)))
	}
	for id, f := range files {
		b, err := perigee.Encode(f)
		if err != nil {
			return err
		}
		batch.Put(idKey(keyFile, id), b)
		batch.Put(append([]byte(keyPath), f.Path...), binary.BigEndian.AppendUint64(nil, id))
	}
	if len(files) > 0 {
		batch.Put([]byte(keyNext), binary.BigEndian.AppendUint64(nil, w.s.nextFile.Load()))
	}
	if batch.Len() == 0 && len(rows) == 0 {
		return nil
	}
	extra := map[string][]place{}
	for _, e := range more {
		extra[e.hash] = append(extra[e.hash], e.place)
		if _, ok := rows[e.hash]; !ok {
			rows[e.hash] = e.place
		}
	}
	hashes := make([]string, 0, len(rows))
	for h := range rows {
		hashes = append(hashes, h)
	}
	err := w.s.update(hashes, func(i int, ps []place) []place {
		ps = mergePlace(ps, rows[hashes[i]])
		for _, p := range extra[hashes[i]] {
			ps = mergePlace(ps, p)
		}
		return ps
	}, batch)
	if err != nil {
		return err
	}
	if k != nil {
		w.mu.Lock()
		k.committed = max(k.committed, end)
		w.mu.Unlock()
	}
	return nil
}

// end finishes a session: it commits unless failed is set, and gives up the
// protection of its blocks. Whatever should stay must be pinned before.
func (w *session) end() {
	w.bg.Wait()
	w.mu.Lock()
	if w.ended {
		w.mu.Unlock()
		return
	}
	w.ended = true
	if w.err == nil {
		w.err = perigee.E("data.session", perigee.Cancelled, "the session has ended")
	}
	w.mu.Unlock()
	w.writes.Wait()
	w.mu.Lock()
	k := w.pack
	w.pack = nil
	w.mu.Unlock()
	if k != nil {
		w.s.packs.give(k)
	}
	w.s.gcMu.Lock()
	delete(w.s.sessions, w)
	if w.s.gcActive {
		for h := range w.touched {
			w.s.gcKeep[h] = struct{}{}
		}
		for _, id := range w.claims {
			w.s.gcClaims[id] = struct{}{}
		}
	}
	w.s.gcMu.Unlock()
}
