package db

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/perigee-network/perigee"
)

// lazyDelay is how long a lazy write waits for a durable one to carry it to
// disk before it is synced by itself.
const lazyDelay = time.Second

// stallCheck is how often a waiting write looks whether the disk is full.
const stallCheck = 5 * time.Second

// store is the pebble-backed DB.
//
// Pebble ends the process, or panics with its locks in disorder, when its log
// or manifest cannot be written. The store outlives that: failing operations
// park their goroutine for ever (see stopFS and pebbleLog.Fatalf), as if the
// process had ended for it, while callers wait for their answer or for the
// failed channel, whichever comes first. So only two goroutines of the store
// are ever inside pebble's write path: commitLoop, which puts batches into the
// log's buffer one by one, and syncLoop, which waits for the fsync that pebble
// shares among all batches in the buffer.
type store struct {
	dir string
	p   *pebble.DB

	commits chan *request
	syncs   chan *request
	drained chan struct{} // closed when both loops have ended
	opened  atomic.Bool   // from here on a failure parks its goroutine
	full    atomic.Bool   // the disk refused a background write and may recover
	lazy    atomic.Bool   // a sync for lazy writes is due
	once    sync.Once     // for why and failed
	why     error         // why nothing can be written any more; read after failed
	failed  chan struct{} // closed when writing has failed for good

	use    sync.Mutex // guards what follows
	users  int        // calls in flight
	closed bool
	idle   chan struct{} // closed when closed && users == 0
}

// request is a batch on its way to disk.
type request struct {
	batch *pebble.Batch
	sync  bool
	done  chan error // buffered
}

var _ DB = (*store)(nil)

// Open opens the store in directory dir, which it makes if need be, and locks
// it against other processes. Errors: Busy when another process has it open,
// Corrupt when its files are damaged, Exhausted or Internal otherwise.
func Open(dir string) (DB, error) { return open(dir, vfs.Default) }

func open(dir string, fs vfs.FS) (*store, error) {
	const op = "db.Open"
	if fs == vfs.Default {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, perigee.E(op, kindOf(err), err, "cannot make the database directory %s", dir)
		}
	}
	s := &store{dir: dir, idle: make(chan struct{}), failed: make(chan struct{}),
		commits: make(chan *request, 64), syncs: make(chan *request, 1024), drained: make(chan struct{})}
	p, err := pebble.Open(dir, s.options(fs))
	switch {
	case err == nil:
	case isLocked(err):
		return nil, perigee.E(op, perigee.Busy, "the database %s is in use: another perigee runs on this home; stop it, or choose another home with --home", dir)
	case pebble.IsCorruptionError(err) || errors.Is(err, pebble.ErrDBDoesNotExist):
		return nil, perigee.E(op, perigee.Corrupt, err, "the database %s is damaged; restore it from a backup, or move it away to start with an empty one", dir)
	default:
		return nil, perigee.E(op, kindOf(err), err, "cannot open the database %s", dir)
	}
	select {
	case <-s.failed:
		return nil, s.why
	default:
	}
	s.p = p
	s.opened.Store(true)
	go s.commitLoop()
	go s.syncLoop()
	return s, nil
}

// options keeps memory small: records are few and short, bulk data lies elsewhere.
func (s *store) options(fs vfs.FS) *pebble.Options {
	o := &pebble.Options{
		FS: stopFS{s: s, FS: vfs.OnDiskFull(fs, func() {
			s.full.Store(true)
			time.Sleep(100 * time.Millisecond) // pebble retries at once, and for ever
		})},
		FormatMajorVersion:    pebble.FormatNewest,
		CacheSize:             4 << 20,
		MemTableSize:          4 << 20,
		MaxOpenFiles:          256,
		L0CompactionThreshold: 4,
		LBaseMaxBytes:         16 << 20,
		WALBytesPerSync:       0,
		Logger:                pebbleLog{s},
	}
	o.EventListener = &pebble.EventListener{
		BackgroundError: func(err error) {
			if errors.Is(err, syscall.ENOSPC) {
				s.full.Store(true)
			}
			slog.Warn("the database could not finish background work", "dir", s.dir, "error", err)
		},
		FlushEnd: func(i pebble.FlushInfo) {
			if i.Err == nil {
				s.full.Store(false)
			}
		},
		DataCorruption: func(i pebble.DataCorruptionInfo) {
			s.fail(perigee.E("db", perigee.Corrupt, i.Details, "the database file %s is damaged; stop the node and check the disk", i.Path))
		},
	}
	return o
}

// pebbleLog receives pebble's messages. Routine ones are dropped.
type pebbleLog struct{ s *store }

func (l pebbleLog) Infof(string, ...any) {}

func (l pebbleLog) Errorf(format string, args ...any) {
	slog.Debug("database", "dir", l.s.dir, "message", fmt.Sprintf(format, args...))
}

// Fatalf is where pebble expects the process to end.
func (l pebbleLog) Fatalf(format string, args ...any) {
	l.s.stop(fmt.Errorf(format, args...))
}

// stop records that writing has failed and does not return, except while the
// store is being opened: then pebble hands the error on.
func (s *store) stop(err error) {
	s.fail(s.failure(err))
	if s.opened.Load() {
		select {}
	}
}

// failure explains an error of pebble's write path.
func (s *store) failure(err error) error {
	kind := kindOf(err)
	if s.full.Load() {
		kind = perigee.Exhausted
	}
	if kind == perigee.Exhausted {
		return perigee.E("db.Write", kind, err, "the disk that holds the database %s is full; free space and restart the node", s.dir)
	}
	return perigee.E("db.Write", kind, err, "the database %s cannot be written any more; check the disk and restart the node", s.dir)
}

func (s *store) fail(err error) {
	s.once.Do(func() {
		s.why = err
		close(s.failed)
		if s.opened.Load() {
			slog.Error("the database stopped accepting writes", "dir", s.dir, "error", err)
		}
	})
}

// enter admits a call until leave; it reports false after Close.
func (s *store) enter() bool {
	s.use.Lock()
	defer s.use.Unlock()
	if s.closed {
		return false
	}
	s.users++
	return true
}

func (s *store) leave() {
	s.use.Lock()
	defer s.use.Unlock()
	if s.users--; s.closed && s.users == 0 {
		close(s.idle)
	}
}

func (s *store) Get(key []byte) ([]byte, error) {
	if !s.enter() {
		return nil, errClosed("db.Get")
	}
	defer s.leave()
	v, closer, err := s.p.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, notFound()
	}
	if err != nil {
		return nil, s.readError("db.Get", err)
	}
	out := append(make([]byte, 0, len(v)), v...)
	closer.Close()
	return out, nil
}

func (s *store) readError(op string, err error) error {
	kind := perigee.Internal
	if pebble.IsCorruptionError(err) {
		kind = perigee.Corrupt
	}
	return perigee.E(op, kind, err, "cannot read the database %s", s.dir)
}

func (s *store) Write(b *Batch) error { return s.write(b, true) }

func (s *store) WriteLazy(b *Batch) error {
	err := s.write(b, false)
	if err == nil && b.Len() > 0 && s.lazy.CompareAndSwap(false, true) {
		time.AfterFunc(lazyDelay, s.syncLazy)
	}
	return err
}

// syncLazy carries earlier lazy writes to disk: the log is one sequence, so
// syncing an empty record syncs all before it.
func (s *store) syncLazy() {
	s.lazy.Store(false)
	if !s.enter() {
		return // Close syncs
	}
	defer s.leave()
	pb := s.p.NewBatch()
	if err := pb.LogData(nil, nil); err == nil {
		_ = s.submit(pb, true) // a failure is kept
	}
}

func (s *store) write(b *Batch, sync bool) error {
	if err := b.check(); err != nil {
		return err
	}
	if !s.enter() {
		return errClosed("db.Write")
	}
	defer s.leave()
	if len(b.ops) == 0 && !sync {
		return nil
	}
	if s.full.Load() {
		return perigee.E("db.Write", perigee.Exhausted, "the disk that holds the database %s is full; free space", s.dir)
	}
	pb := s.p.NewBatch()
	for _, o := range b.ops {
		var err error
		switch o.kind {
		case opPut:
			err = pb.Set(o.key, o.value, nil)
		case opDelete:
			err = pb.Delete(o.key, nil)
		case opDeletePrefix:
			err = pb.DeleteRange(o.key, prefixEnd(o.key), nil)
		}
		if err != nil {
			return perigee.E("db.Write", perigee.Internal, err)
		}
	}
	if len(b.ops) == 0 { // still promises that earlier lazy writes are durable
		if err := pb.LogData(nil, nil); err != nil {
			return perigee.E("db.Write", perigee.Internal, err)
		}
	}
	return s.submit(pb, sync)
}

// submit has pb committed and waits for it.
func (s *store) submit(pb *pebble.Batch, sync bool) error {
	r := &request{pb, sync, make(chan error, 1)}
	select {
	case <-s.failed:
		return s.why
	case s.commits <- r:
	}
	stall := time.NewTicker(stallCheck)
	defer stall.Stop()
	for {
		select {
		case err := <-r.done:
			if err == nil {
				pb.Close()
			}
			return err
		case <-s.failed:
			return s.why
		case <-stall.C:
			if s.full.Load() {
				return s.failure(syscall.ENOSPC)
			}
		}
	}
}

// commitLoop puts batches into the log's buffer and makes them visible.
func (s *store) commitLoop() {
	defer close(s.syncs)
	for r := range s.commits {
		var err error
		if r.sync {
			err = s.p.ApplyNoSyncWait(r.batch, pebble.Sync)
		} else {
			err = s.p.Apply(r.batch, pebble.NoSync)
		}
		switch {
		case err != nil:
			r.done <- perigee.E("db.Write", kindOf(err), err, "cannot write to the database %s", s.dir)
		case r.sync:
			s.syncs <- r
		default:
			r.done <- nil
		}
	}
}

// syncLoop answers for batches once they are on disk, in order.
func (s *store) syncLoop() {
	defer close(s.drained)
	for r := range s.syncs {
		if err := r.batch.SyncWait(); err != nil {
			s.stop(err)
		}
		r.done <- nil
	}
}

func (s *store) Scan(prefix, after []byte, fn func(key, value []byte) error) error {
	if !s.enter() {
		return errClosed("db.Scan")
	}
	defer s.leave()
	it, err := s.p.NewIter(&pebble.IterOptions{LowerBound: scanStart(prefix, after), UpperBound: prefixEnd(prefix)})
	if err != nil {
		return s.readError("db.Scan", err)
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		v, err := it.ValueAndErr()
		if err != nil {
			return s.readError("db.Scan", err)
		}
		if err := fn(it.Key(), v); err != nil {
			if errors.Is(err, Stop) {
				return nil
			}
			return err
		}
	}
	if err := it.Error(); err != nil {
		return s.readError("db.Scan", err)
	}
	return nil
}

func (s *store) Close() error {
	s.use.Lock()
	if s.closed {
		s.use.Unlock()
		return nil
	}
	s.closed = true
	if s.users == 0 {
		close(s.idle)
	}
	s.use.Unlock()
	<-s.idle

	close(s.commits)
	// Pebble must not be closed under a commit. After a failure the loops may
	// stand still for ever, with commits that nobody waits for any more; then
	// pebble's files stay open until the process ends.
	done := make(chan error, 1)
	go func() {
		<-s.drained
		done <- s.p.Close()
	}()
	stall := time.NewTicker(stallCheck)
	defer stall.Stop()
	for {
		select {
		case err := <-done:
			if err != nil {
				return perigee.E("db.Close", kindOf(err), err, "cannot close the database %s", s.dir)
			}
			return nil
		case <-s.failed:
			return s.why // pebble's files stay open until the process ends
		case <-stall.C:
			if s.full.Load() {
				return s.failure(syscall.ENOSPC)
			}
		}
	}
}

func kindOf(err error) perigee.Kind {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return perigee.Exhausted
	case pebble.IsCorruptionError(err):
		return perigee.Corrupt
	case errors.Is(err, os.ErrPermission):
		return perigee.Refused
	}
	return perigee.Internal
}

// isLocked tells the two ways in which a locked store shows: another process
// has it, or this one.
func isLocked(err error) bool {
	return errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EACCES) && filepath.Base(pathOf(err)) == "LOCK" ||
		err.Error() == "lock held by current process"
}

func pathOf(err error) string {
	var pe *os.PathError
	if errors.As(err, &pe) {
		return pe.Path
	}
	return ""
}
