package p2p

import (
	"io"
	"os"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
)

// loopback returns the two ends of a stream within the process, with the
// behaviour of a libp2p stream: buffered, half-closable, with deadlines.
func loopback() (raw, raw) {
	a, b := newPipe(), newPipe()
	return &loopEnd{in: a, out: b}, &loopEnd{in: b, out: a}
}

// loopWindow is how much one side may write ahead of the other's reading.
const loopWindow = 256 << 10

// pipe is one direction of a loopback stream.
type pipe struct {
	mu      sync.Mutex
	changed chan struct{} // closed and replaced at every change
	buf     []byte
	eof     bool  // the writer is done
	gone    bool  // the reader is done: writes are dropped
	err     error // reset

	readBy, writeBy time.Time // deadlines; zero: none
}

func newPipe() *pipe { return &pipe{changed: make(chan struct{})} }

// notify wakes all waiters. The caller holds mu.
func (p *pipe) notify() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// wait releases mu until something changes or the deadline passes, which it
// reports as false.
func (p *pipe) wait(by time.Time) bool {
	changed := p.changed
	var timer <-chan time.Time
	if !by.IsZero() {
		d := time.Until(by)
		if d <= 0 {
			return false
		}
		t := time.NewTimer(d)
		defer t.Stop()
		timer = t.C
	}
	p.mu.Unlock()
	defer p.mu.Lock()
	select {
	case <-changed:
	case <-timer:
	}
	return true
}

func (p *pipe) read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		switch {
		case p.err != nil:
			return 0, p.err
		case p.gone:
			return 0, network.ErrReset
		case len(p.buf) > 0:
			n := copy(b, p.buf)
			if p.buf = p.buf[n:]; len(p.buf) == 0 {
				p.buf = nil
			}
			p.notify()
			return n, nil
		case p.eof:
			return 0, io.EOF
		case !p.wait(p.readBy):
			return 0, os.ErrDeadlineExceeded
		}
	}
}

func (p *pipe) write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	written := 0
	for {
		switch {
		case p.err != nil:
			return written, p.err
		case p.eof:
			return written, io.ErrClosedPipe
		case p.gone:
			return written + len(b), nil
		}
		if n := min(len(b), loopWindow-len(p.buf)); n > 0 {
			p.buf = append(p.buf, b[:n]...)
			b, written = b[n:], written+n
			p.notify()
		}
		if len(b) == 0 {
			return written, nil
		}
		if !p.wait(p.writeBy) {
			return written, os.ErrDeadlineExceeded
		}
	}
}

func (p *pipe) set(fn func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fn()
	p.notify()
}

// loopEnd is one end of a loopback stream.
type loopEnd struct{ in, out *pipe }

var _ raw = (*loopEnd)(nil)

func (e *loopEnd) Read(b []byte) (int, error)  { return e.in.read(b) }
func (e *loopEnd) Write(b []byte) (int, error) { return e.out.write(b) }

func (e *loopEnd) CloseWrite() error {
	e.out.set(func() { e.out.eof = true })
	return nil
}

func (e *loopEnd) Close() error {
	e.in.set(func() { e.in.gone, e.in.buf = true, nil })
	return e.CloseWrite()
}

func (e *loopEnd) ResetWithError(code network.StreamErrorCode) error {
	near := &network.StreamError{ErrorCode: code}
	far := &network.StreamError{ErrorCode: code, Remote: true}
	e.in.reset(near)
	e.out.reset(far)
	return nil
}

// reset makes both ends of the direction fail with err, unless all of it was
// written and nobody waits for more.
func (p *pipe) reset(err error) {
	p.set(func() {
		if p.err == nil && !p.eof {
			p.err, p.buf = err, nil
		}
	})
}

func (e *loopEnd) SetDeadline(t time.Time) error {
	_ = e.SetReadDeadline(t)
	return e.SetWriteDeadline(t)
}

func (e *loopEnd) SetReadDeadline(t time.Time) error {
	e.in.set(func() { e.in.readBy = t })
	return nil
}

func (e *loopEnd) SetWriteDeadline(t time.Time) error {
	e.out.set(func() { e.out.writeBy = t })
	return nil
}
