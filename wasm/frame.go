package wasm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/fxamacker/cbor/v2"
)

// A frame is a five-byte header, the payload's length in four bytes and the
// frame's type in one, and the payload: canonical CBOR or, for live output, the
// bytes themselves. Descriptors travel beside a frame as SCM_RIGHTS; the
// payload says how many belong to it.

// frameType tells frames apart.
type frameType uint8

const (
	frameRun     frameType = 'R' // parent → worker: runRequest
	frameCompile frameType = 'C' // parent → worker: compileRequest and two descriptors
	frameReply   frameType = 'A' // parent → worker: answer to a query
	frameReady   frameType = 'W' // worker → parent: readyMessage, once, after the sandbox closed
	frameQuery   frameType = 'Q' // worker → parent: query
	frameStdout  frameType = 'O' // worker → parent: bytes the guest printed
	frameStderr  frameType = 'E' // worker → parent
	frameEntries frameType = 'P' // worker → parent: some of the outputs
	frameDone    frameType = 'D' // worker → parent: runResult or compileResult
)

const (
	frameHeader = 5
	// maxFrame bounds a payload in both directions: one page of extents with
	// one inline run, or one page of outputs.
	maxFrame = 8 << 20
)

// errFrame is the error of bytes that are no frame.
var errFrame = errors.New("malformed frame")

// appendFrame appends a frame with payload to dst.
func appendFrame(dst []byte, t frameType, payload []byte) ([]byte, error) {
	if len(payload) > maxFrame {
		return dst, fmt.Errorf("%w: %d bytes, more than %d", errFrame, len(payload), maxFrame)
	}
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(payload)))
	dst = append(dst, byte(t))
	return append(dst, payload...), nil
}

// frameReader cuts a stream of bytes into frames.
type frameReader struct {
	r    io.Reader
	buf  []byte
	head [frameHeader]byte
}

// next returns the next frame. The payload is valid until the following call.
// The error is io.EOF at a clean end, io.ErrUnexpectedEOF inside a frame.
func (f *frameReader) next() (frameType, []byte, error) {
	if _, err := io.ReadFull(f.r, f.head[:]); err != nil {
		return 0, nil, err
	}
	n := int(binary.LittleEndian.Uint32(f.head[:4]))
	if n > maxFrame {
		return 0, nil, fmt.Errorf("%w: a payload of %d bytes is announced, the most is %d", errFrame, n, maxFrame)
	}
	const step = 256 << 10 // memory follows the bytes that really came
	f.buf = f.buf[:0]
	for len(f.buf) < n {
		have := len(f.buf)
		want := min(n-have, max(step, have))
		if cap(f.buf) < have+want {
			grown := make([]byte, have, have+want)
			copy(grown, f.buf)
			f.buf = grown
		}
		f.buf = f.buf[:have+want]
		if _, err := io.ReadFull(f.r, f.buf[have:]); err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return 0, nil, err
		}
	}
	return frameType(f.head[4]), f.buf, nil
}

// The codec of payloads. File names of inputs are whatever bytes their file
// system allowed, so that text need not be UTF-8.
var (
	encMode = must(cbor.EncOptions{Sort: cbor.SortNone, IndefLength: cbor.IndefLengthForbidden}.EncMode())
	decMode = must(cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden,
		MaxNestedLevels: 8, MaxArrayElements: 1 << 17, MaxMapPairs: 1 << 16,
		UTF8: cbor.UTF8DecodeInvalid, TagsMd: cbor.TagsForbidden,
	}.DecMode())
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err) // constant options: cannot fail
	}
	return v
}

// decodePayload reads a payload into v; the error is errFrame.
func decodePayload(b []byte, v any) error {
	if err := decMode.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%w: %w", errFrame, err)
	}
	return nil
}
