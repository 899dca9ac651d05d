package data

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"

	"github.com/fxamacker/cbor/v2"
	"github.com/ipfs/go-cid"

	"github.com/perigee-network/perigee"
)

// This file reads and writes CARs (https://ipld.io/specs/transport/car/):
// version 1 is written, 1 and 2 are read.

// Bounds of a CAR's header.
const (
	maxCARHeader = 1 << 20
	maxCARRoots  = 4096
)

// carHeader is the header of a version 1 CAR.
type carHeader struct {
	Roots   []perigee.CID `cbor:"roots"`
	Version uint64        `cbor:"version"`
}

// carV2Pragma begins a version 2 CAR: the header of a version 1 CAR that says
// version 2 and no more.
var carV2Pragma = []byte{0xa1, 0x67, 'v', 'e', 'r', 's', 'i', 'o', 'n', 0x02}

// ExportCAR writes c and everything below it as a CAR, parents first, each block
// once. What is not on this node is fetched first. Errors: those of Fetch and of
// w.
func (s *Store) ExportCAR(ctx context.Context, c perigee.CID, w io.Writer) error {
	if err := defined("data.ExportCAR", c); err != nil {
		return err
	}
	defer s.Hold(c)()
	info, err := s.root(ctx, c.Cid())
	if err != nil {
		return err
	}
	if !info.Complete {
		if _, err := s.Fetch(ctx, perigee.PartInput{CID: c}, nil, nil); err != nil {
			return err
		}
	}
	bw := bufio.NewWriterSize(w, 64<<10)
	if err := writeMessage(bw, carHeader{[]perigee.CID{c}, 1}); err != nil {
		return err
	}
	put := func(c cid.Cid, b []byte) error {
		if _, ok := identity(c); ok {
			return nil
		}
		return writeFrame(bw, c, b)
	}
	k := walker{have: s.haveLocal, get: s.local}
	k.visit = func(c cid.Cid, _ *ufsNode, _ int64) error {
		b, err := s.local(c)
		if err != nil {
			return err
		}
		return put(c, b)
	}
	k.missing = func(c cid.Cid, _ *ufsNode, _ uint64) error {
		return perigee.E("data.ExportCAR", perigee.Unavailable, "%s is not on this node any more", c)
	}
	if _, err := k.walk(ctx, c.Cid()); err != nil {
		return err
	}
	return bw.Flush()
}

// ImportCAR stores the blocks of a CAR, each checked against its CID, and pins
// the roots for owner, which it returns. A root that is not complete, counting
// what was here before, is an error of kind Invalid that names it, and nothing
// is pinned. Other errors: Corrupt, Exhausted and those of r.
func (s *Store) ImportCAR(ctx context.Context, r io.Reader, owner string) ([]perigee.CID, error) {
	owner, err := checkOwner(owner)
	if err != nil {
		return nil, err
	}
	w := s.newSession()
	defer w.end()
	roots, err := readCAR(ctx, r, func(c cid.Cid, b []byte) error { return w.put(c, b) })
	if err != nil {
		return nil, err
	}
	infos := make([]rootInfo, len(roots))
	for i, c := range roots {
		if infos[i], err = s.measure(ctx, w, c.Cid()); err != nil {
			return nil, err
		}
		if !infos[i].Complete {
			return nil, perigee.E("data.ImportCAR", perigee.Invalid, "the CAR does not hold all of its root %s", c)
		}
	}
	if err := w.commit(); err != nil {
		return nil, err
	}
	for i, c := range roots {
		if err := s.writePin(c.Cid(), owner, "", infos[i]); err != nil {
			return nil, err
		}
	}
	return roots, nil
}

// readCAR reads a CAR and gives each verified block to put, which must not keep
// it. It returns the roots.
func readCAR(ctx context.Context, r io.Reader, put emit) ([]perigee.CID, error) {
	br := bufio.NewReaderSize(r, 64<<10)
	head, err := readCARHeader(br)
	if err != nil {
		return nil, err
	}
	if string(head) == string(carV2Pragma) {
		if br, err = enterV2(br); err != nil {
			return nil, err
		}
		if head, err = readCARHeader(br); err != nil {
			return nil, err
		}
	}
	roots, err := parseCARHeader(head)
	if err != nil {
		return nil, err
	}
	buf := frameBuffers.Get().(*[]byte)
	defer frameBuffers.Put(buf)
	for {
		if ctx.Err() != nil {
			return nil, ctxError("data.ImportCAR", ctx)
		}
		if _, err := br.Peek(1); errors.Is(err, io.EOF) {
			return roots, nil
		}
		c, data, err := readFrame(br, *buf, nil)
		if err != nil {
			return nil, carError(err)
		}
		if !c.Defined() {
			return roots, nil // zero padding ends the blocks
		}
		if err := verify(c, data); err != nil {
			return nil, err
		}
		if err := put(c, data); err != nil {
			return nil, err
		}
	}
}

func carError(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return perigee.E("data.ImportCAR", perigee.Corrupt, "the CAR ends in the middle of a block")
	}
	return err
}

func readCARHeader(br *bufio.Reader) ([]byte, error) {
	n, err := binary.ReadUvarint(br)
	if err != nil || n == 0 || n > maxCARHeader {
		return nil, perigee.E("data.ImportCAR", perigee.Corrupt, "this is no CAR: it does not begin with a header")
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(br, b); err != nil {
		return nil, perigee.E("data.ImportCAR", perigee.Corrupt, "this is no CAR: its header is cut off")
	}
	return b, nil
}

// parseCARHeader reads a version 1 header, which need not be canonical.
func parseCARHeader(b []byte) ([]perigee.CID, error) {
	var h struct {
		Roots   []perigee.CID `cbor:"roots"`
		Version uint64        `cbor:"version"`
	}
	if err := carDecMode.Unmarshal(b, &h); err != nil {
		return nil, perigee.E("data.ImportCAR", perigee.Corrupt, err, "this is no CAR: its header is malformed")
	}
	if h.Version != 1 {
		return nil, perigee.E("data.ImportCAR", perigee.Unsupported, "a CAR of version %d; 1 and 2 can be read", h.Version)
	}
	for _, c := range h.Roots {
		if !c.Defined() {
			return nil, perigee.E("data.ImportCAR", perigee.Corrupt, "a CAR with a null root")
		}
	}
	return h.Roots, nil
}

var carDecMode = func() cbor.DecMode {
	m, err := cbor.DecOptions{
		DupMapKey:        cbor.DupMapKeyEnforcedAPF,
		IndefLength:      cbor.IndefLengthForbidden,
		MaxNestedLevels:  8,
		MaxArrayElements: maxCARRoots,
		MaxMapPairs:      16,
	}.DecMode()
	if err != nil {
		panic(err) // the options are constant
	}
	return m
}()

// enterV2 skips to the version 1 CAR inside one of version 2.
func enterV2(br *bufio.Reader) (*bufio.Reader, error) {
	var h [40]byte
	if _, err := io.ReadFull(br, h[:]); err != nil {
		return nil, perigee.E("data.ImportCAR", perigee.Corrupt, "a CAR of version 2 without its header")
	}
	offset := binary.LittleEndian.Uint64(h[16:])
	size := binary.LittleEndian.Uint64(h[24:])
	const before = 1 + 10 + 40
	if offset < before || offset > 1<<40 || size > 1<<60 {
		return nil, perigee.E("data.ImportCAR", perigee.Corrupt, "a CAR of version 2 whose content begins at %d and has %d bytes", offset, size)
	}
	if _, err := io.CopyN(io.Discard, br, int64(offset-before)); err != nil {
		return nil, perigee.E("data.ImportCAR", perigee.Corrupt, "a CAR of version 2 that ends before its content")
	}
	return bufio.NewReaderSize(io.LimitReader(br, int64(size)), 64<<10), nil
}
