package p2p

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"github.com/perigee-network/perigee"
)

// sendTimeout is how long one Send may wait for a peer that takes nothing, when
// no deadline was set.
const sendTimeout = time.Minute

// eagerBytes is how much memory a message's length alone may claim; more is
// taken only as the bytes arrive.
const eagerBytes = 64 << 10

// raw is what a Stream needs of a libp2p stream; see also loopback.go.
type raw interface {
	io.ReadWriteCloser
	CloseWrite() error
	ResetWithError(network.StreamErrorCode) error
	SetDeadline(time.Time) error
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
}

// Stream is a two-way conversation with one peer under one protocol. Messages
// are canonical DAG-CBOR, each prefixed by its length as an unsigned varint. One
// goroutine may send while another receives.
//
// Errors are of kind Unavailable when the peer or the connection is gone (one
// that wraps io.EOF when the peer ended its side properly), Timeout, Cancelled,
// Busy when the peer has too many streams from this node, Unsupported when it
// does not speak the protocol, and Corrupt for malformed messages.
type Stream struct {
	raw   raw
	ctx   context.Context
	peer  perigee.PeerID
	proto string
	r     *bufio.Reader

	sending sync.Mutex
	fixed   atomic.Bool // SetDeadline was called: no default for Send
	first   atomic.Bool // a handler's stream that has received nothing yet
	unbind  func() bool // stops watching ctx
}

// newStream wraps s. The stream is reset when ctx ends.
func newStream(ctx context.Context, s raw, who perigee.PeerID, proto string) *Stream {
	st := &Stream{raw: s, ctx: ctx, peer: who, proto: proto, r: bufio.NewReaderSize(s, 4096)}
	if deadline, ok := ctx.Deadline(); ok {
		_ = s.SetDeadline(deadline)
		st.fixed.Store(true)
	}
	st.unbind = context.AfterFunc(ctx, func() { _ = s.ResetWithError(network.StreamShutdown) })
	return st
}

// Peer returns the peer at the other end, whose identity is proved.
func (s *Stream) Peer() perigee.PeerID { return s.peer }

// Protocol returns the protocol spoken.
func (s *Stream) Protocol() string { return s.proto }

func (s *Stream) wrap(op string, err error) error {
	return streamError(s.ctx, op, s.peer, s.proto, err)
}

// Send writes one message. Without a deadline it waits at most a minute for a
// peer that does not read.
func (s *Stream) Send(v any) error {
	const op = "p2p.Send"
	body, err := perigee.Encode(v)
	if err != nil {
		return err
	}
	if len(body) > perigee.MaxMessage {
		return perigee.E(op, perigee.Invalid, "a message of %d bytes; the limit is %d", len(body), perigee.MaxMessage)
	}
	frame := make([]byte, 0, binary.MaxVarintLen32+len(body))
	frame = append(binary.AppendUvarint(frame, uint64(len(body))), body...)
	s.sending.Lock()
	defer s.sending.Unlock()
	if !s.fixed.Load() {
		_ = s.raw.SetWriteDeadline(time.Now().Add(sendTimeout))
	}
	_, err = s.raw.Write(frame)
	return s.wrap(op, err)
}

// Receive reads one message into v. When the peer ended its side before
// another message began, the error wraps io.EOF.
func (s *Stream) Receive(v any) error {
	body, err := readFrame(s.r)
	if s.first.Swap(false) && !s.fixed.Load() {
		_ = s.raw.SetReadDeadline(time.Time{})
	}
	if err != nil {
		return s.wrap("p2p.Receive", err)
	}
	return perigee.Decode(body, v)
}

// readFrame reads one length-prefixed message. The errors are io.EOF at its
// start, of kind Corrupt for a bad length or a cut message, or the reader's.
func readFrame(r *bufio.Reader) ([]byte, error) {
	const op = "p2p.Receive"
	var length uint64
	for i := 0; ; i++ {
		b, err := r.ReadByte()
		if err != nil {
			if i > 0 && errors.Is(err, io.EOF) {
				return nil, perigee.E(op, perigee.Corrupt, "a message cut within its length")
			}
			return nil, err
		}
		length |= uint64(b&0x7f) << (7 * i)
		if b < 0x80 {
			if b == 0 && i > 0 {
				return nil, perigee.E(op, perigee.Corrupt, "a message length with needless bytes")
			}
			break
		}
		if i == 4 {
			return nil, perigee.E(op, perigee.Corrupt, "a message longer than %d bytes", perigee.MaxMessage)
		}
	}
	if length == 0 || length > perigee.MaxMessage {
		return nil, perigee.E(op, perigee.Corrupt, "a message of %d bytes; the limit is %d", length, perigee.MaxMessage)
	}
	var body []byte
	var err error
	if length <= eagerBytes {
		body = make([]byte, length)
		_, err = io.ReadFull(r, body)
	} else {
		var buf bytes.Buffer
		buf.Grow(eagerBytes)
		_, err = io.CopyN(&buf, r, int64(length))
		body = buf.Bytes()
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, perigee.E(op, perigee.Corrupt, "a message cut before its %d bytes", length)
	}
	return body, err
}

// Read reads bytes that follow the last message received, as they come.
func (s *Stream) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && err != io.EOF { // io.Reader's contract is about io.EOF itself
		err = s.wrap("p2p.Read", err)
	}
	return n, err
}

// Write writes bytes outside any message.
func (s *Stream) Write(p []byte) (int, error) {
	s.sending.Lock()
	defer s.sending.Unlock()
	if !s.fixed.Load() {
		_ = s.raw.SetWriteDeadline(time.Now().Add(sendTimeout))
	}
	n, err := s.raw.Write(p)
	return n, s.wrap("p2p.Write", err)
}

// SetDeadline bounds all later reading and writing; the zero time lifts it, and
// Send's default with it.
func (s *Stream) SetDeadline(t time.Time) error {
	s.fixed.Store(true)
	s.first.Store(false)
	return s.wrap("p2p.SetDeadline", s.raw.SetDeadline(t))
}

// CloseWrite ends this side: the peer receives what was sent and then io.EOF.
func (s *Stream) CloseWrite() error { return s.wrap("p2p.CloseWrite", s.raw.CloseWrite()) }

// Close ends the stream; what was sent still arrives.
func (s *Stream) Close() error {
	s.unbind()
	return s.wrap("p2p.Close", s.raw.Close())
}

// Reset ends the stream at once; the peer gets an error.
func (s *Stream) Reset() { s.reset(network.StreamNoError) }

func (s *Stream) reset(code network.StreamErrorCode) {
	s.unbind()
	_ = s.raw.ResetWithError(code)
}
