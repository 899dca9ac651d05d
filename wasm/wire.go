package wasm

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// wire is the worker's end of the socket to its parent. Reads and writes are
// plain blocking system calls, the fastest way to a short answer.
type wire struct {
	fd  int
	in  frameReader
	raw rawReader

	ask   sync.Mutex // one query and its reply at a time
	write sync.Mutex // one frame at a time
	out   []byte
}

func newWire(fd int) *wire {
	w := &wire{fd: fd, raw: rawReader{fd: fd, buf: make([]byte, 64<<10), oob: make([]byte, unix.CmsgSpace(4*8))}}
	w.in.r = &w.raw
	return w
}

// rawReader reads the socket and collects the descriptors that come along.
type rawReader struct {
	fd   int
	buf  []byte
	have []byte // read but not yet asked for
	oob  []byte
	fds  []int
}

// Read implements io.Reader.
func (r *rawReader) Read(p []byte) (int, error) {
	if len(r.have) > 0 {
		n := copy(p, r.have)
		r.have = r.have[n:]
		return n, nil
	}
	if len(p) >= len(r.buf) {
		return r.receive(p)
	}
	n, err := r.receive(r.buf)
	if err != nil {
		return 0, err
	}
	m := copy(p, r.buf[:n])
	r.have = r.buf[m:n]
	return m, nil
}

func (r *rawReader) receive(p []byte) (int, error) {
	for {
		n, oobn, _, _, err := unix.Recvmsg(r.fd, p, r.oob, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return 0, err
		}
		if oobn > 0 {
			messages, err := unix.ParseSocketControlMessage(r.oob[:oobn])
			if err != nil {
				return 0, err
			}
			for i := range messages {
				fds, err := unix.ParseUnixRights(&messages[i])
				if err != nil {
					return 0, err
				}
				r.fds = append(r.fds, fds...)
			}
		}
		if n == 0 {
			return 0, io.EOF
		}
		return n, nil
	}
}

// file returns the next descriptor that came along, as a file.
func (w *wire) file(name string) (*os.File, error) {
	if len(w.raw.fds) == 0 {
		return nil, fmt.Errorf("%w: a descriptor is missing", errFrame)
	}
	fd := w.raw.fds[0]
	w.raw.fds = w.raw.fds[1:]
	return os.NewFile(uintptr(fd), name), nil
}

// sendRaw writes one frame.
func (w *wire) sendRaw(t frameType, payload []byte) error {
	w.write.Lock()
	defer w.write.Unlock()
	var err error
	if w.out, err = appendFrame(w.out[:0], t, payload); err != nil {
		return err
	}
	for rest := w.out; len(rest) > 0; {
		n, err := unix.Write(w.fd, rest)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		rest = rest[n:]
	}
	return nil
}

// send writes one frame of a message.
func (w *wire) send(t frameType, v any) error {
	payload, err := encMode.Marshal(v)
	if err != nil {
		return err
	}
	return w.sendRaw(t, payload)
}

// query asks the parent and waits for its answer, and for the descriptor beside
// it if there is one. The worker ends when its parent cannot be asked.
func (w *wire) query(q query) (*reply, *os.File) {
	w.ask.Lock()
	defer w.ask.Unlock()
	r, f, err := w.roundTrip(q)
	if err != nil {
		fmt.Fprintln(os.Stderr, "cannot ask the node:", err)
		os.Exit(1)
	}
	return r, f
}

func (w *wire) roundTrip(q query) (*reply, *os.File, error) {
	if err := w.send(frameQuery, q); err != nil {
		return nil, nil, err
	}
	t, payload, err := w.in.next()
	if err != nil {
		return nil, nil, err
	}
	if t != frameReply {
		return nil, nil, errFrame
	}
	var r reply
	if err := decodePayload(payload, &r); err != nil {
		return nil, nil, err
	}
	if r.Files == 0 {
		return &r, nil, nil
	}
	f, err := w.file("input")
	return &r, f, err
}
