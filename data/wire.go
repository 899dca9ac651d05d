package data

import (
	"bufio"
	"encoding/binary"
	"io"

	"github.com/ipfs/go-cid"

	"github.com/perigee-network/perigee"
)

// Protocol moves blocks between Perigee nodes. On one stream the asking side
// sends requests, one after the other, and the holder answers each with block
// frames and a trailer. A request and a trailer are canonical DAG-CBOR behind a
// uvarint length; a frame is a uvarint length, a CID and that block, as in a
// CAR; a length of 0 ends the frames. Every block is checked on arrival.
const Protocol = "/perigee/data/1"

// The operations of a request.
const (
	opBlocks = "blocks" // the blocks wanted, in their order
	opTree   = "tree"   // directories below those wanted and the root nodes of their files, parents first
	opHave   = "have"   // no blocks: which of those wanted are held completely
)

// Bounds of the protocol.
const (
	maxWant    = 4096      // CIDs in a request
	maxRequest = 512 << 10 // bytes of a request or trailer
	maxCID     = 128       // bytes of a CID in a frame
	maxFrame   = MaxBlock + maxCID
	treeBlocks = 32 << 10 // blocks of an answer to opTree
	treeBytes  = 32 << 20 // and their bytes
	serveEach  = 16       // streams served to one peer at once
	serveAll   = 256      // and in all
)

// request asks for blocks.
type request struct {
	Op   string        `cbor:"op"`
	Want []perigee.CID `cbor:"want"`
}

// trailer ends an answer. Missing are indexes into Want.
type trailer struct {
	Missing []uint32       `cbor:"missing"`
	Fault   *perigee.Fault `cbor:"fault"`
}

func writeMessage(w *bufio.Writer, v any) error {
	b, err := perigee.Encode(v)
	if err != nil {
		return err
	}
	if err := writeUvarint(w, uint64(len(b))); err != nil {
		return err
	}
	_, err = w.Write(b)
	return err
}

func writeUvarint(w *bufio.Writer, v uint64) error {
	var b [binary.MaxVarintLen64]byte
	_, err := w.Write(b[:binary.PutUvarint(b[:], v)])
	return err
}

func readMessage(r *bufio.Reader, v any) error {
	n, err := binary.ReadUvarint(r)
	if err != nil {
		return err
	}
	if n > maxRequest {
		return perigee.E("data.receive", perigee.Corrupt, "a message of %d bytes; the limit is %d", n, maxRequest)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return err
	}
	return perigee.Decode(b, v)
}

func readRequest(r *bufio.Reader) (request, error) {
	var q request
	if err := readMessage(r, &q); err != nil {
		return q, err
	}
	if len(q.Want) == 0 || len(q.Want) > maxWant {
		return q, perigee.E("data.receive", perigee.Corrupt, "a request for %d blocks; 1 to %d are allowed", len(q.Want), maxWant)
	}
	for _, c := range q.Want {
		if !c.Defined() {
			return q, perigee.E("data.receive", perigee.Corrupt, "a request for no CID")
		}
	}
	switch q.Op {
	case opBlocks, opTree, opHave:
		return q, nil
	}
	return q, perigee.E("data.receive", perigee.Unsupported, "no operation %.20q", q.Op)
}

func writeFrame(w *bufio.Writer, c cid.Cid, data []byte) error {
	if err := writeUvarint(w, uint64(c.ByteLen()+len(data))); err != nil {
		return err
	}
	if _, err := w.Write(c.Bytes()); err != nil {
		return err
	}
	_, err := w.Write(data)
	return err
}

// readFrame reads a frame into buf, which must have room for maxFrame bytes. It
// returns no CID at the end of the frames. before is called with the frame's
// length once that is known.
func readFrame(r *bufio.Reader, buf []byte, before func(n int)) (cid.Cid, []byte, error) {
	n, err := binary.ReadUvarint(r)
	if err != nil || n == 0 {
		return cid.Undef, nil, err
	}
	if n > maxFrame {
		return cid.Undef, nil, perigee.E("data.receive", perigee.Corrupt, "a frame of %d bytes; the limit is %d", n, maxFrame)
	}
	if before != nil {
		before(int(n))
	}
	head, err := r.Peek(int(min(n, maxCID)))
	if err != nil {
		return cid.Undef, nil, noEOF(err)
	}
	l, c, err := cid.CidFromBytes(head)
	if err != nil {
		return cid.Undef, nil, perigee.E("data.receive", perigee.Corrupt, err, "a frame without a CID")
	}
	if _, err := r.Discard(l); err != nil {
		return cid.Undef, nil, noEOF(err)
	}
	data := buf[:int(n)-l]
	if _, err := io.ReadFull(r, data); err != nil {
		return cid.Undef, nil, noEOF(err)
	}
	return c, data, nil
}

// noEOF makes an end inside something an unexpected one.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
