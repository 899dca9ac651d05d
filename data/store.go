package data

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/host"
	mh "github.com/multiformats/go-multihash"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/db"
)

// Router announces and finds holders of roots beyond the connected peers.
type Router interface {
	Provide(ctx context.Context, c perigee.CID) error
	FindHolders(ctx context.Context, c perigee.CID, max int) ([]perigee.PeerID, error)
}

// Config is what a Store is made of. Dir and DB are required.
type Config struct {
	Dir    string    // packs go below it
	DB     db.DB     // the index; the Store uses keys that begin with "data/"
	Host   host.Host // nil: offline
	Router Router    // nil: only connected and named peers are asked
	Log    *slog.Logger

	// Serve says whom blocks are given to; nil means everybody connected.
	Serve func(peer perigee.PeerID) bool
	// Idle is how long a holder may send nothing before it is given up;
	// default 10 s.
	Idle time.Duration
	// Timeout bounds a fetch, or a search for holders, that gets nothing new,
	// when no earlier deadline is set; default 30 s.
	Timeout time.Duration
	// Tamper, when set, changes every block before it is sent. It exists for
	// builds that play a corrupt holder in tests.
	Tamper func(block []byte) []byte
	// NoBitswap leaves bitswap off, so that only Perigee nodes are served and asked.
	NoBitswap bool
}

// Store keeps and moves data. Its methods are safe for concurrent use. CIDs
// must be defined; an undefined one is an error of kind Invalid.
type Store struct {
	cfg   Config
	db    db.DB
	log   *slog.Logger
	packs *packs

	nextFile atomic.Uint64 // last file id given out
	epoch    atomic.Uint64 // changes whenever a block is lost
	rowMu    sync.Mutex    // read-change-write of block rows

	// gcMu orders garbage collection and everything that protects blocks; see gc.go.
	gcMu     sync.RWMutex
	gcActive bool
	gcKeep   map[string]struct{} // protected since the collection began
	gcClaims map[uint64]struct{} // files indexed since then
	sessions map[*session]struct{}
	holds    map[cid.Cid]int
	gcRun    sync.Mutex // one collection at a time

	net *exchange // nil when offline

	fetchMu  sync.Mutex
	fetching map[fetchKey]chan struct{}

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

const keyEpoch = "data/epoch"

// Open opens the store in cfg.Dir, removes the debris of interrupted adds and,
// when cfg.Host is set, begins to serve. ctx bounds the opening only.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	if cfg.Dir == "" || cfg.DB == nil {
		return nil, perigee.E("data.Open", perigee.Invalid, "a data store needs a directory and a database")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Idle <= 0 {
		cfg.Idle = 10 * time.Second
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = 30 * time.Second
	}
	p, err := openPackDir(filepath.Join(cfg.Dir, "packs"), cfg.DB)
	if err != nil {
		return nil, err
	}
	s := &Store{cfg: cfg, db: cfg.DB, log: cfg.Log, packs: p,
		sessions: map[*session]struct{}{}, holds: map[cid.Cid]int{}, fetching: map[fetchKey]chan struct{}{}}
	for key, v := range map[string]*atomic.Uint64{keyNext: &s.nextFile, keyEpoch: &s.epoch} {
		b, err := cfg.DB.Get([]byte(key))
		switch {
		case err == nil && len(b) == 8:
			v.Store(binary.BigEndian.Uint64(b))
		case err == nil:
			return nil, errIndex
		case !errors.Is(err, perigee.NotFound):
			return nil, err
		}
	}
	s.ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	if cfg.Host != nil {
		if s.net, err = startExchange(s); err != nil {
			s.cancel()
			p.close()
			return nil, err
		}
	}
	return s, nil
}

// Close stops serving, waits for what runs in the background and closes the
// packs. The database stays open.
func (s *Store) Close() error {
	s.cancel()
	if s.net != nil {
		s.net.close()
	}
	s.wg.Wait()
	s.packs.close()
	return nil
}

// hashes are the multihash functions that blocks may be named by, with the
// shortest digest allowed.
var hashes = map[uint64]int{
	mh.SHA2_256: 32, mh.SHA2_512: 64, mh.SHA3_256: 32, mh.SHA3_512: 64,
	mh.BLAKE2B_MIN + 31: 32, mh.BLAKE3: 32,
}

// maxIdentity bounds data inside a CID, in bytes.
const maxIdentity = 128

// verify checks a block against its CID. Errors are of kind Corrupt, or
// Unsupported for hash functions that are not in use here.
func verify(c cid.Cid, data []byte) error {
	d, err := mh.Decode(c.Hash())
	if err != nil {
		return perigee.E("data.verify", perigee.Corrupt, err, "%s", c)
	}
	if len(data) > MaxBlock {
		return perigee.E("data.verify", perigee.Corrupt, "block %s has %d bytes; the limit is %d", c, len(data), MaxBlock)
	}
	if d.Code == mh.SHA2_256 && d.Length == 32 {
		if sum := sha256.Sum256(data); !bytes.Equal(sum[:], d.Digest) {
			return perigee.E("data.verify", perigee.Corrupt, "block %s does not match its hash", c)
		}
		return nil
	}
	if d.Code == mh.IDENTITY && d.Length <= maxIdentity {
		if !bytes.Equal(data, d.Digest) {
			return perigee.E("data.verify", perigee.Corrupt, "block %s does not match its CID", c)
		}
		return nil
	}
	if least, ok := hashes[d.Code]; !ok || d.Length < least {
		return perigee.E("data.verify", perigee.Unsupported, "block %s is named by hash function 0x%x of %d bytes", c, d.Code, d.Length)
	}
	sum, err := mh.Sum(data, d.Code, d.Length)
	if err != nil {
		return perigee.E("data.verify", perigee.Unsupported, err, "block %s", c)
	}
	if !bytes.Equal(sum, c.Hash()) {
		return perigee.E("data.verify", perigee.Corrupt, "block %s does not match its hash", c)
	}
	return nil
}

// identity returns the data inside an identity CID.
func identity(c cid.Cid) ([]byte, bool) {
	h := c.Hash()
	if len(h) < 2 || h[0] != mh.IDENTITY {
		return nil, false
	}
	d, err := mh.Decode(h)
	if err != nil || d.Length > maxIdentity {
		return nil, false
	}
	return d.Digest, true
}

// emptyBlock is the CID of the raw block of no bytes, the leaf of an empty file.
// Bitswap never delivers it (Kubo 0.43 does not even get it from another Kubo),
// and nobody has to be asked for it.
var emptyBlock = perigee.SumCID(perigee.CodecRaw, nil).Cid()

// known returns a block that needs no place on any disk: one inside its own CID,
// or the empty one.
func known(c cid.Cid) ([]byte, bool) {
	if c == emptyBlock {
		return []byte{}, true
	}
	return identity(c)
}

// local returns a block from this node's disk, verified. Errors are NotFound,
// or Corrupt when the only place that had it does no more.
func (s *Store) local(c cid.Cid) ([]byte, error) {
	if b, ok := known(c); ok {
		return b, nil
	}
	hash := string(c.Hash())
	var bad error
	for range 3 { // places may move under us
		ps, err := s.places(hash)
		if err != nil {
			return nil, err
		}
		for _, p := range ps {
			b, err := s.readPlace(c, p)
			if err == nil {
				return b, nil
			}
			if !errors.Is(err, perigee.Corrupt) && !errors.Is(err, perigee.NotFound) {
				return nil, err
			}
			if lost, lerr := s.lose(hash, p); lerr != nil {
				return nil, lerr
			} else if lost {
				bad = err
				s.log.Warn("a block was lost", "cid", c.String(), "cause", err)
			}
		}
		if len(ps) == 0 {
			break
		}
	}
	if bad != nil {
		return nil, perigee.E("data.Get", perigee.Corrupt, bad)
	}
	return nil, perigee.E("data.Get", perigee.NotFound, "%s is not on this node", c)
}

// readPlace reads a block from one place and verifies it.
func (s *Store) readPlace(c cid.Cid, p place) ([]byte, error) {
	switch p.kind {
	case atInline:
		return p.data, verify(c, p.data)
	case atPack:
		b := make([]byte, p.length)
		if err := s.packs.readAt(p.id, b, p.offset); err != nil {
			return nil, err
		}
		return b, verify(c, b)
	}
	row, err := s.fileByID(p.id)
	if err != nil {
		return nil, err
	}
	head, tail := []byte(nil), []byte(nil)
	if p.kind == atWrapped {
		head, tail = wrapLeaf(int(p.length))
	}
	b := make([]byte, len(head)+int(p.length)+len(tail))
	copy(b, head)
	copy(b[len(b)-len(tail):], tail)
	if err := readFileRun(row, b[len(head):len(head)+int(p.length)], p.offset); err != nil {
		return nil, err
	}
	if err := verify(c, b); err != nil {
		return nil, changedError(row.Path)
	}
	return b, nil
}

func changedError(path string) error {
	return perigee.E("data.Get", perigee.Corrupt, "the file %s changed since it was indexed in place; add it again", path)
}

// readFileRun reads a run of a user's file, which may have become anything.
func readFileRun(row fileRow, b []byte, off int64) error {
	f, err := openRegular(row.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	if n, err := f.ReadAt(b, off); n < len(b) {
		if err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return changedError(row.Path)
		}
		return perigee.E("data.Get", perigee.Unavailable, err, "cannot read %s", row.Path)
	}
	return nil
}

// openRegular opens a regular file without following a final symlink and
// without waiting for the writer of a pipe.
func openRegular(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP) {
			return nil, perigee.E("data.Get", perigee.Corrupt, err, "a file indexed in place is gone; add it again")
		}
		return nil, perigee.E("data.Get", perigee.Unavailable, err)
	}
	fi, err := f.Stat()
	if err != nil || !fi.Mode().IsRegular() {
		f.Close()
		return nil, perigee.E("data.Get", perigee.Corrupt, err, "%s is no regular file any more", path)
	}
	return f, nil
}

// lose forgets a place that does not hold its block any more. It reports false
// when the place was not in the index any more anyway.
func (s *Store) lose(hash string, p place) (bool, error) {
	lost := false
	err := s.update([]string{hash}, func(_ int, ps []place) []place {
		var out []place
		for _, q := range ps {
			if q.kind == p.kind && q.id == p.id && q.offset == p.offset {
				lost = true
				continue
			}
			out = append(out, q)
		}
		return out
	}, &db.Batch{})
	if err != nil || !lost {
		return lost, err
	}
	return true, s.putRow([]byte(keyEpoch), binary.BigEndian.AppendUint64(nil, s.epoch.Add(1)))
}

// PutBlock stores data as a block under the given multicodec. Nothing pins it:
// hold its CID before calling, or pin it soon. Errors: Invalid, Exhausted.
func (s *Store) PutBlock(ctx context.Context, codec uint64, data []byte) (perigee.CID, error) {
	if len(data) > MaxBlock {
		return perigee.CID{}, perigee.E("data.PutBlock", perigee.Invalid, "a block of %d bytes; the limit is %d", len(data), MaxBlock)
	}
	if err := ctx.Err(); err != nil {
		return perigee.CID{}, err
	}
	c := perigee.SumCID(codec, data)
	w := s.newSession()
	defer w.end()
	if err := w.put(c.Cid(), data); err != nil {
		return perigee.CID{}, err
	}
	if err := w.commit(); err != nil {
		return perigee.CID{}, err
	}
	return c, s.sync()
}

// sync makes every lazy write durable.
func (s *Store) sync() error {
	b := &db.Batch{}
	b.Put([]byte(keySync), nil)
	return s.db.Write(b)
}

// GetBlock returns a block, verified: from this node or else from the network,
// in which case it is stored, unpinned. Errors: NotFound, Corrupt, Unavailable,
// Timeout.
func (s *Store) GetBlock(ctx context.Context, c perigee.CID) ([]byte, error) {
	if err := defined("data.GetBlock", c); err != nil {
		return nil, err
	}
	return s.block(ctx, c.Cid(), nil)
}

// LocalBlock returns a block that is on this node, verified, or an error of
// kind NotFound or Corrupt.
func (s *Store) LocalBlock(c perigee.CID) ([]byte, error) {
	if err := defined("data.LocalBlock", c); err != nil {
		return nil, err
	}
	return s.local(c.Cid())
}

// block returns a block from here or else from the network.
func (s *Store) block(ctx context.Context, c cid.Cid, from []perigee.PeerID) ([]byte, error) {
	b, err := s.local(c)
	if err == nil || s.net == nil || !(errors.Is(err, perigee.NotFound) || errors.Is(err, perigee.Corrupt)) {
		return b, err
	}
	w := s.newSession()
	defer w.end()
	f := s.newFetch(w, c, from, nil)
	if ferr := f.blocks(ctx, []want{{cid: c}}); ferr != nil {
		if errors.Is(err, perigee.Corrupt) {
			return nil, perigee.E("data.Get", perigee.Corrupt, err, "and no other holder could help (%v)", ferr)
		}
		return nil, ferr
	}
	if b, err = w.block(c); err != nil {
		return nil, err
	}
	return b, w.commit()
}

func defined(op string, c perigee.CID) error {
	if !c.Defined() {
		return perigee.E(op, perigee.Invalid, "no CID was given")
	}
	return nil
}
