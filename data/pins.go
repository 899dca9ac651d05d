package data

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/db"
)

// Owner names of pins. A job's pins belong to "job/" and its ID.
const (
	OwnerUser    = "user"    // what people added or pinned
	OwnerPerigee = "perigee" // the node's own, such as dataset manifests
)

// rootInfo is what is known of a root. Complete holds only while Epoch is the
// store's: every loss of a block anywhere makes it a guess to be checked again.
type rootInfo struct {
	Kind     uint8  `cbor:"kind"`
	Size     int64  `cbor:"size"`
	Files    int64  `cbor:"files"`
	Blocks   int64  `cbor:"blocks"`
	Complete bool   `cbor:"complete"`
	Epoch    uint64 `cbor:"epoch"`
}

// pinRow is the value of a pin.
type pinRow struct {
	Name    string `cbor:"name"`
	Created int64  `cbor:"created"` // Unix milliseconds
}

// PinInfo is one pin.
type PinInfo struct {
	CID      perigee.CID `json:"cid"`
	Owner    string      `json:"owner"`
	Name     string      `json:"name"`
	Created  int64       `json:"created"` // Unix milliseconds
	Kind     string      `json:"kind"`    // file, dir or symlink
	Size     int64       `json:"size"`    // bytes of file content
	Files    int64       `json:"files"`
	Blocks   int64       `json:"blocks"`
	Complete bool        `json:"complete"` // all of it is on this node
}

func checkOwner(owner string) (string, error) {
	if owner == "" {
		owner = OwnerUser
	}
	if len(owner) > 255 {
		return "", perigee.E("data.Pin", perigee.Invalid, "a pin's owner has at most 255 bytes, this has %d", len(owner))
	}
	return owner, nil
}

// Pin keeps the tree below c for owner ("" is OwnerUser) until Unpin. It keeps
// what is here now and what arrives later; it fetches nothing. Pinning twice is
// pinning once.
func (s *Store) Pin(ctx context.Context, c perigee.CID, owner string) error {
	if err := defined("data.Pin", c); err != nil {
		return err
	}
	w := s.newSession()
	defer w.end()
	_, err := s.pinIn(ctx, w, c.Cid(), owner, "")
	return err
}

// pinIn measures and pins a root. The session protects the blocks until the pin
// is written.
func (s *Store) pinIn(ctx context.Context, w *session, c cid.Cid, owner, name string) (rootInfo, error) {
	owner, err := checkOwner(owner)
	if err != nil {
		return rootInfo{}, err
	}
	if len(name) > 1024 {
		return rootInfo{}, perigee.E("data.Pin", perigee.Invalid, "a name has at most 1024 bytes, this has %d", len(name))
	}
	if err := s.settleDisk(owner); err != nil {
		return rootInfo{}, err
	}
	if info, ok, err := s.pinKnown(c, owner, name); ok || err != nil {
		if ok && owner == OwnerUser {
			s.announce(c)
		}
		return info, err
	}
	info, err := s.measure(ctx, w, c)
	if err != nil {
		return rootInfo{}, err
	}
	return info, s.writePin(c, owner, name, info)
}

// pinKnown adds a pin to a root that is pinned already and known to be complete,
// without walking it. It leaves the work to pinIn while a collection runs: that
// has read the pins already.
func (s *Store) pinKnown(c cid.Cid, owner, name string) (info rootInfo, ok bool, err error) {
	s.gcMu.RLock()
	defer s.gcMu.RUnlock()
	if s.gcActive {
		return info, false, nil
	}
	s.rowMu.Lock()
	info, ok, err = s.knownRoot(c)
	if err == nil && ok {
		err = s.putPin(c, owner, name, info)
	}
	s.rowMu.Unlock()
	if err != nil || !ok {
		return info, false, err
	}
	return info, true, s.sync()
}

// knownRoot returns the row of a pinned root if that is complete as of now.
func (s *Store) knownRoot(c cid.Cid) (info rootInfo, ok bool, err error) {
	b, err := s.db.Get(rootKey(c))
	if errors.Is(err, perigee.NotFound) {
		return info, false, nil
	}
	if err == nil {
		err = perigee.Decode(b, &info)
	}
	return info, err == nil && info.Complete && info.Epoch == s.epoch.Load(), err
}

func (s *Store) writePin(c cid.Cid, owner, name string, info rootInfo) error {
	if err := s.settleDisk(owner); err != nil {
		return err
	}
	s.rowMu.Lock()
	err := s.putPin(c, owner, name, info)
	s.rowMu.Unlock()
	if err == nil {
		err = s.sync()
	}
	if err == nil && info.Complete && owner == OwnerUser {
		s.announce(c)
	}
	return err
}

// settleDisk makes what was fetched durable before the user or the node itself
// relies on it; what a job fetched can be had again.
func (s *Store) settleDisk(owner string) error {
	if owner == OwnerUser || owner == OwnerPerigee {
		return s.packs.syncDirty()
	}
	return nil
}

// putPin writes a pin and what is known of its root. The caller holds rowMu and
// makes it durable.
func (s *Store) putPin(c cid.Cid, owner, name string, info rootInfo) error {
	b := &db.Batch{}
	row, err := perigee.Encode(pinRow{name, time.Now().UnixMilli()})
	if err != nil {
		return err
	}
	b.Put(pinKey(c, owner), row)
	if row, err = perigee.Encode(info); err != nil {
		return err
	}
	b.Put(rootKey(c), row)
	b.Put([]byte(keyEpoch), binary.BigEndian.AppendUint64(nil, s.epoch.Load()))
	return s.db.WriteLazy(b)
}

// measure walks a root and protects what it finds when w is not nil.
func (s *Store) measure(ctx context.Context, w *session, c cid.Cid) (rootInfo, error) {
	info := rootInfo{Epoch: s.epoch.Load()}
	k := walker{get: s.localOrMissing, have: s.haveLocal}
	if w != nil {
		k = w.walker()
	}
	info.Kind = uint8(perigee.KindFile)
	k.visit = func(v cid.Cid, n *ufsNode, _ int64) error {
		if n != nil && v == c {
			info.Kind = uint8(kindOf(n))
		}
		return nil
	}
	sum, err := k.walk(ctx, c)
	if err != nil {
		return rootInfo{}, err
	}
	info.Size, info.Files, info.Blocks, info.Complete = sum.size, sum.files, k.blocks, k.lost == 0
	return info, nil
}

func kindOf(n *ufsNode) perigee.FileKind {
	switch n.Type {
	case ufsDirectory, ufsHAMT:
		return perigee.KindDir
	case ufsSymlink:
		return perigee.KindSymlink
	}
	return perigee.KindFile
}

// Unpin removes owner's pin of c. A pin that is not there is no error.
func (s *Store) Unpin(ctx context.Context, c perigee.CID, owner string) error {
	if err := defined("data.Unpin", c); err != nil {
		return err
	}
	owner, err := checkOwner(owner)
	if err != nil {
		return err
	}
	if err := s.deletePin(c.Cid(), owner); err != nil {
		return err
	}
	return s.sync()
}

// deletePin removes a pin, and with the last one what is known of the root.
func (s *Store) deletePin(c cid.Cid, owner string) error {
	s.rowMu.Lock()
	defer s.rowMu.Unlock()
	b := &db.Batch{}
	b.Delete(pinKey(c, owner))
	others, err := s.owners(c)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(others, func(o string) bool { return o != owner }) {
		b.Delete(rootKey(c))
	}
	return s.db.WriteLazy(b)
}

// owners returns who pins exactly c.
func (s *Store) owners(c cid.Cid) ([]string, error) {
	var out []string
	err := s.db.Scan(pinKey(c, ""), nil, func(k, _ []byte) error {
		_, owner, err := parsePinKey(k)
		out = append(out, owner)
		return err
	})
	return out, err
}

// Remove gives up the user's pin of c, so that garbage collection may take it.
// Errors: NotFound when nothing pins c, Refused when only others do.
func (s *Store) Remove(ctx context.Context, c perigee.CID) error {
	if err := defined("data.Remove", c); err != nil {
		return err
	}
	owners, err := s.owners(c.Cid())
	if err != nil {
		return err
	}
	if len(owners) == 0 {
		return perigee.E("data.Remove", perigee.NotFound, "%s is not pinned on this node", c)
	}
	if !slices.Contains(owners, OwnerUser) {
		return perigee.E("data.Remove", perigee.Refused, "%s is kept by %s and not by you", c, strings.Join(owners, ", "))
	}
	return s.Unpin(ctx, c, OwnerUser)
}

// Pins returns all pins, by CID and owner.
func (s *Store) Pins(ctx context.Context) ([]PinInfo, error) {
	var out []PinInfo
	err := s.db.Scan([]byte(keyPin), nil, func(k, v []byte) error {
		c, owner, err := parsePinKey(k)
		if err != nil {
			return err
		}
		var row pinRow
		if err := perigee.Decode(v, &row); err != nil {
			return err
		}
		out = append(out, PinInfo{CID: perigee.NewCID(c), Owner: owner, Name: row.Name, Created: row.Created})
		return ctx.Err()
	})
	if err != nil {
		return nil, err
	}
	for i := range out {
		info, err := s.root(ctx, out[i].CID.Cid())
		if err != nil {
			return nil, err
		}
		out[i].Kind = kindName(perigee.FileKind(info.Kind))
		out[i].Size, out[i].Files, out[i].Blocks, out[i].Complete = info.Size, info.Files, info.Blocks, info.Complete
	}
	return out, nil
}

func kindName(k perigee.FileKind) string {
	switch k {
	case perigee.KindDir:
		return "dir"
	case perigee.KindSymlink:
		return "symlink"
	}
	return "file"
}

// isComplete reports whether c is a pinned root known to be complete, at once.
func (s *Store) isComplete(c cid.Cid) (bool, error) {
	_, ok, err := s.knownRoot(c)
	return ok, err
}

// root returns what is known of c: at once for a root known to be complete,
// else by walking it. The result is kept for pinned roots.
func (s *Store) root(ctx context.Context, c cid.Cid) (rootInfo, error) {
	var info rootInfo
	b, err := s.db.Get(rootKey(c))
	known := err == nil
	if err != nil && !errors.Is(err, perigee.NotFound) {
		return info, err
	}
	if known {
		if err := perigee.Decode(b, &info); err != nil {
			return info, err
		}
		if info.Complete && info.Epoch == s.epoch.Load() {
			return info, nil
		}
	}
	fresh, err := s.measure(ctx, nil, c)
	if err != nil || !known {
		return fresh, err
	}
	if !fresh.Complete && info.Size > fresh.Size {
		fresh.Size, fresh.Files = info.Size, info.Files // what was once known in full
	}
	if b, err = perigee.Encode(fresh); err != nil {
		return fresh, err
	}
	s.rowMu.Lock()
	defer s.rowMu.Unlock()
	if _, err := s.db.Get(rootKey(c)); err != nil {
		return fresh, nil // unpinned meanwhile
	}
	return fresh, s.putRow(rootKey(c), b)
}

// Hold protects what lies below the CIDs from garbage collection until release
// is called, which may happen more than once. It holds what arrives later too.
func (s *Store) Hold(cids ...perigee.CID) (release func()) {
	var held []cid.Cid
	s.gcMu.Lock()
	for _, c := range cids {
		if c.Defined() {
			held = append(held, c.Cid())
			s.holds[c.Cid()]++
		}
	}
	active := s.gcActive
	s.gcMu.Unlock()
	if active {
		// The collection has counted what is in use already: walk these now.
		w := s.newSession()
		for _, c := range held {
			if _, err := s.measure(s.ctx, w, c); err != nil {
				s.log.Warn("cannot walk a held tree", "cid", c.String(), "cause", err)
			}
		}
		w.end()
	}
	done := false
	return func() {
		s.gcMu.Lock()
		defer s.gcMu.Unlock()
		if done {
			return
		}
		done = true
		for _, c := range held {
			if s.holds[c]--; s.holds[c] <= 0 {
				delete(s.holds, c)
			}
		}
	}
}
