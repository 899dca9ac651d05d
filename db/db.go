// Package db is Perigee's durable key-value store.
//
// Keys and values are bytes; keys are ordered bytewise. A [Batch] of changes
// is applied atomically by Write, which returns once the changes are on disk
// (concurrent Writes share one fsync), or by WriteLazy, which leaves that to
// the next Write. Two stores implement [DB] and pass one test suite: the one
// Open returns, over pebble with its log on, and the one Memory returns, for
// tests.
//
// A store that meets an I/O error while writing stops accepting writes and
// says why; it never ends the process and never forgets what it acknowledged.
package db

import (
	"bytes"
	"errors"

	"github.com/perigee-network/perigee"
)

// Stop, returned by a Scan's function, ends the Scan early and without error.
var Stop = errors.New("stop")

// Bounds of one record, in bytes. Larger things are blocks, not records.
const (
	MaxKey   = 64 << 10
	MaxValue = 64 << 20
)

// DB is a durable, ordered key-value store. All methods are safe for concurrent
// use. After Close every method fails with kind Unavailable. Write errors are
// of kind Exhausted when the disk is full and Internal otherwise; whether the
// batch survives a restart is then unknown, but never half of it.
type DB interface {
	// Get returns a copy of key's value, or an error of kind NotFound.
	Get(key []byte) ([]byte, error)
	// Write applies b atomically and returns when it is on disk.
	Write(b *Batch) error
	// WriteLazy applies b atomically. It is visible at once, and on disk no later
	// than any batch given to Write after it, or within a second or so. A crash
	// of the machine before that loses it; a crash of the process may as well.
	WriteLazy(b *Batch) error
	// Scan calls fn for each key that begins with prefix and sorts after the
	// key after (nil: from the start), in order, over one consistent snapshot.
	// The slices are valid, and must not be changed, only within fn, which may
	// read and write the store but not Close it. An error from fn ends the Scan
	// and is returned, except Stop.
	Scan(prefix, after []byte, fn func(key, value []byte) error) error
	// Close waits for calls in flight, makes everything durable and releases
	// the store. A second Close does nothing.
	Close() error
}

type opKind uint8

const (
	opPut opKind = iota
	opDelete
	opDeletePrefix
)

type op struct {
	kind       opKind
	key, value []byte
}

// Batch is a list of changes, applied in order by one Write. The zero value is
// empty and ready. It is not safe for concurrent use. It may be written again
// or added to after a Write.
type Batch struct{ ops []op }

// Put sets key to value. Both are copied.
func (b *Batch) Put(key, value []byte) {
	buf := make([]byte, len(key)+len(value))
	n := copy(buf, key)
	copy(buf[n:], value)
	b.ops = append(b.ops, op{opPut, buf[:n:n], buf[n:]})
}

// PutValue sets key to the canonical DAG-CBOR of v.
func (b *Batch) PutValue(key []byte, v any) error {
	enc, err := perigee.Encode(v)
	if err != nil {
		return err
	}
	b.Put(key, enc)
	return nil
}

// Delete removes key if it is there.
func (b *Batch) Delete(key []byte) {
	b.ops = append(b.ops, op{opDelete, bytes.Clone(key), nil})
}

// DeletePrefix removes every key that begins with prefix, including those put
// earlier in this batch.
func (b *Batch) DeletePrefix(prefix []byte) {
	b.ops = append(b.ops, op{opDeletePrefix, bytes.Clone(prefix), nil})
}

// Len returns how many changes the batch holds.
func (b *Batch) Len() int { return len(b.ops) }

func (b *Batch) check() error {
	for _, o := range b.ops {
		switch {
		case len(o.key) == 0:
			return perigee.E("db.Write", perigee.Invalid, "an empty key")
		case len(o.key) > MaxKey:
			return perigee.E("db.Write", perigee.Invalid, "a key of %d bytes; the limit is %d", len(o.key), MaxKey)
		case len(o.value) > MaxValue:
			return perigee.E("db.Write", perigee.Invalid, "a value of %d bytes; the limit is %d", len(o.value), MaxValue)
		case o.kind == opDeletePrefix && prefixEnd(o.key) == nil:
			return perigee.E("db.Write", perigee.Invalid, "a prefix of nothing but 0xff bytes")
		}
	}
	return nil
}

// prefixEnd returns the first key after all that begin with prefix, nil if
// there is none.
func prefixEnd(prefix []byte) []byte {
	for i := len(prefix) - 1; i >= 0; i-- {
		if prefix[i] != 0xff {
			end := bytes.Clone(prefix[:i+1])
			end[i]++
			return end
		}
	}
	return nil
}

// scanStart returns the first key a Scan may show, nil for the very first.
func scanStart(prefix, after []byte) []byte {
	if after == nil || bytes.Compare(after, prefix) < 0 {
		if len(prefix) == 0 {
			return nil // pebble takes an empty bound that is not nil badly
		}
		return bytes.Clone(prefix)
	}
	return append(bytes.Clone(after), 0)
}

func notFound() error { return perigee.E("db.Get", perigee.NotFound, "no such record") }

func errClosed(op string) error {
	return perigee.E(op, perigee.Unavailable, "the database is closed")
}

// Before returns the first keys with a prefix that do not come after limit, at
// most max of them: of keys that begin with a time, those that are due.
func Before(d DB, prefix, limit string, max int) ([]string, error) {
	var keys []string
	err := d.Scan([]byte(prefix), nil, func(k, _ []byte) error {
		if string(k) > limit || len(keys) >= max {
			return Stop
		}
		keys = append(keys, string(k))
		return nil
	})
	return keys, err
}
