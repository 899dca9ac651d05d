package wasm

import (
	"fmt"
	"os"
	"sync"
	"time"
)

const (
	liveDelay  = 10 * time.Millisecond
	liveBuffer = 256 << 10
)

// liveOutput sends what the guest prints while it runs, gathered for a moment
// so that a program that prints byte by byte does not drown the node. What it
// has not sent when the guest ends, the parent takes from the result.
type liveOutput struct {
	wire *wire
	on   bool

	mu    sync.Mutex
	armed bool
	ended bool
	buf   [3][]byte
}

// add takes bytes that the guest printed to stream 1 or 2.
func (l *liveOutput) add(stream int, p []byte) {
	if !l.on {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(p) > 0 {
		n := min(len(p), liveBuffer-len(l.buf[stream]))
		l.buf[stream] = append(l.buf[stream], p[:n]...)
		p = p[n:]
		if len(l.buf[stream]) >= liveBuffer {
			l.flush() // waits while the node is slow to take it
		}
	}
	if !l.armed {
		l.armed = true
		time.AfterFunc(liveDelay, func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.armed = false
			if !l.ended {
				l.flush()
			}
		})
	}
}

// flush sends all there is. The caller holds the lock.
func (l *liveOutput) flush() {
	for stream, t := range map[int]frameType{1: frameStdout, 2: frameStderr} {
		for p := l.buf[stream]; len(p) > 0; {
			n := min(len(p), maxLiveChunk)
			if err := l.wire.sendRaw(t, p[:n]); err != nil {
				fmt.Fprintln(os.Stderr, "cannot send output to the node:", err)
				os.Exit(1)
			}
			p = p[n:]
		}
		l.buf[stream] = l.buf[stream][:0]
	}
}

// end stops sending.
func (l *liveOutput) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
}
