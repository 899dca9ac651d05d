package data

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"os"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"

	"github.com/perigee-network/perigee"
)

// lineReach is how far past a boundary a newline is looked for, in bytes.
const lineReach = 64 << 20

func sumOf(b []byte) [32]byte { return sha256.Sum256(b) }

// run is a leaf of a file: the block that holds it, where it begins in the file
// and how many bytes it has there. When the block is dag-pb, block is its
// content and payload lies at skip.
type run struct {
	cid            cid.Cid
	offset, length int64
	block          []byte
	skip           int
}

// payload returns the bytes of the run, which get finds and verifies.
func (r run) payload(get getter) ([]byte, error) {
	if r.block != nil {
		return r.block[r.skip : r.skip+int(r.length)], nil
	}
	b, err := get(r.cid)
	if err != nil {
		return nil, err
	}
	if int64(len(b)) != r.length {
		return nil, sizeLie(r.cid, r.length, int64(len(b)))
	}
	return b, nil
}

func sizeLie(c cid.Cid, claimed, got int64) error {
	return perigee.E("data.Open", perigee.Corrupt, "a file claims %d bytes for its part %s, which has %d", claimed, c, got)
}

// fileRuns calls fn for each leaf of the file c that holds bytes of [lo, hi), in
// order. size is what is claimed for c, or -1 for a root. It reads metadata with
// get and leaves are only read when they are dag-pb.
func fileRuns(ctx context.Context, c cid.Cid, size, lo, hi int64, get getter, fn func(run) error) error {
	return fileRunsAt(ctx, c, 0, size, lo, hi, 0, get, fn)
}

func fileRunsAt(ctx context.Context, c cid.Cid, base, size, lo, hi int64, depth int, get getter, fn func(run) error) error {
	if depth > 32 {
		return perigee.E("data.Open", perigee.Invalid, "a file nested deeper than 32 levels")
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if !isInner(c) {
		return fn(run{cid: c, offset: base, length: size})
	}
	b, err := get(c)
	if err == errSkip {
		return nil
	}
	if err != nil {
		return err
	}
	n, err := parseUnixFS(b)
	if err != nil {
		return perigee.E("data.Open", perigee.KindOf(err), err, "block %s", c)
	}
	if n.Type != ufsFile && n.Type != ufsRaw {
		return perigee.E("data.Open", perigee.Invalid, "%s is not a file", c)
	}
	if size >= 0 && int64(n.FileSize) != size {
		return sizeLie(c, size, int64(n.FileSize))
	}
	if own := int64(len(n.Data)); own > 0 && base < hi && base+own > lo {
		// Data is a slice of b that keeps b's end as its capacity.
		r := run{cid: c, offset: base, length: own, block: b, skip: cap(b) - cap(n.Data)}
		if err := fn(r); err != nil {
			return err
		}
	}
	at := base + int64(len(n.Data))
	for i, l := range n.Links {
		part := int64(n.BlockSizes[i])
		if at >= hi {
			break
		}
		if part > 0 && at+part > lo {
			if err := fileRunsAt(ctx, l.CID, at, part, lo, hi, depth+1, get, fn); err != nil {
				return err
			}
		}
		at += part
	}
	return nil
}

// fileSize returns the size of the file c.
func (s *Store) fileSize(c cid.Cid, get getter) (int64, error) {
	if !isInner(c) {
		if d, ok := known(c); ok {
			return int64(len(d)), nil
		}
		n, ok, err := s.haveLocal(string(c.Hash()))
		if ok || err != nil {
			return n, err
		}
		b, err := get(c)
		return int64(len(b)), err
	}
	n, err := nodeOf(c, get)
	if err != nil {
		return 0, err
	}
	if n.Type != ufsFile && n.Type != ufsRaw {
		return 0, perigee.E("data.Open", perigee.Invalid, "%s is a %s where a file is due", c, kindName(kindOf(&n)))
	}
	return int64(n.FileSize), nil
}

// boundary returns B(o) of perigee.AlignLine for the file c: where the first
// record that begins at or after o begins.
func (s *Store) boundary(ctx context.Context, c cid.Cid, size, o int64, get getter) (int64, error) {
	if o <= 0 {
		return 0, nil
	}
	if o >= size {
		return size, nil
	}
	found, end := int64(-1), min(size, o-1+lineReach)
	err := fileRuns(ctx, c, size, o-1, end, get, func(r run) error {
		if r.length < 0 {
			r.length = size
		}
		b, err := r.payload(get)
		if err != nil {
			return err
		}
		skip := max(o-1-r.offset, 0)
		if i := bytes.IndexByte(b[skip:], '\n'); i >= 0 {
			found = r.offset + skip + int64(i) + 1
			return errDone
		}
		return nil
	})
	switch {
	case found >= 0:
		return found, nil
	case err != nil:
		return 0, err
	case end < size:
		return 0, perigee.E("data.Tree", perigee.Invalid, "no newline within %d MiB after offset %d of %s: its records are too long to split there", lineReach>>20, o, c)
	}
	return size, nil
}

// errSkip, from a getter, leaves out what lies below a block.
var errSkip = errors.New("skip")

// errDone ends an iteration early.
var errDone = errors.New("done")

// bounds returns the range of the file that a part input stands for.
func (s *Store) bounds(ctx context.Context, in perigee.PartInput, get getter) (size, lo, hi int64, err error) {
	c := in.CID.Cid()
	if in.Offset < 0 || in.Length < 0 || in.Offset > maxSize || in.Length > maxSize {
		return 0, 0, 0, perigee.E("data.Tree", perigee.Invalid, "a range from %d of length %d", in.Offset, in.Length)
	}
	if size, err = s.fileSize(c, get); err != nil {
		return 0, 0, 0, err
	}
	lo, hi = min(in.Offset, size), min(in.Offset+in.Length, size)
	switch in.Align {
	case perigee.AlignNone:
	case perigee.AlignLine:
		if lo, err = s.boundary(ctx, c, size, lo, get); err != nil {
			return 0, 0, 0, err
		}
		if hi, err = s.boundary(ctx, c, size, hi, get); err != nil {
			return 0, 0, 0, err
		}
	default:
		return 0, 0, 0, perigee.E("data.Tree", perigee.Invalid, "no alignment %q; there are %q and %q", in.Align, perigee.AlignNone, perigee.AlignLine)
	}
	return size, lo, max(lo, hi), nil
}

// view returns the bytes [lo, hi) of the local file c as extents.
func (s *Store) view(ctx context.Context, c cid.Cid, size, lo, hi int64) (perigee.FileView, error) {
	v := perigee.FileView{Size: hi - lo}
	if hi <= lo {
		return v, nil
	}
	files := map[uint64]*fileCheck{}
	var changed error
	err := fileRuns(ctx, c, -1, lo, hi, s.local, func(r run) error {
		if r.length < 0 {
			r.length = size
		}
		if len(v.Extents) == 0 {
			v.Skip = lo - r.offset
		}
		x, err := s.extent(r, files)
		if errors.Is(err, perigee.Corrupt) && changed == nil {
			changed = err
		}
		if changed != nil && (err == nil || errors.Is(err, perigee.Corrupt) || errors.Is(err, perigee.Unavailable)) {
			return nil // look at the rest too, so that all that is lost is known at once
		}
		v.Extents = append(v.Extents, x)
		return err
	})
	if changed != nil {
		err = changed
	}
	if err != nil {
		return perigee.FileView{}, err
	}
	for id, f := range files {
		if f.changed && f.verified == f.row.Size {
			s.refresh(id, f.now) // touched but not changed
		}
	}
	return v, nil
}

// fileCheck is what a view knows of a user's file.
type fileCheck struct {
	row, now fileRow
	changed  bool
	verified int64 // bytes whose hash was checked because of the change
}

// extent describes where a run of a file lies. It looks for changes of users'
// files by their status; the reader of the extent checks the bytes.
func (s *Store) extent(r run, files map[uint64]*fileCheck) (perigee.Extent, error) {
	x := perigee.Extent{Length: r.length}
	if d, ok := known(r.cid); ok && r.block == nil {
		x.Data, x.Sum = d, sumOf(d)
		return x, nil
	}
	ps, err := s.places(string(r.cid.Hash()))
	if err != nil {
		return x, err
	}
	if len(ps) == 0 {
		return x, perigee.E("data.Tree", perigee.Unavailable, "%s is not on this node", r.cid)
	}
	p := ps[0]
	if p.kind == atFile || p.kind == atWrapped {
		if p, err = s.usable(r, ps, files); err != nil {
			return x, err
		}
	}
	if r.block == nil && p.length != r.length {
		return x, sizeLie(r.cid, r.length, p.length)
	}
	switch p.kind {
	case atInline:
		x.Data = p.data
		if r.block != nil {
			x.Data = p.data[r.skip : r.skip+int(r.length)]
		}
		x.Sum = sumOf(x.Data)
		return x, nil
	case atPack:
		x.Path, x.Offset = s.packs.path(p.id), p.offset+int64(r.skip)
	default:
		x.Path, x.Offset = files[p.id].row.Path, p.offset
	}
	return x, s.extentSum(&x, r, p)
}

// extentSum fills in the hash of an extent: the CID has it for raw leaves,
// for others it is computed from the verified block.
func (s *Store) extentSum(x *perigee.Extent, r run, p place) error {
	switch h := r.cid.Hash(); {
	case r.block != nil && p.kind == atWrapped:
		x.Sum = p.sum
	case r.block != nil:
		x.Sum = sumOf(r.block[r.skip : r.skip+int(r.length)])
	case len(h) == 34 && h[0] == mh.SHA2_256 && h[1] == 32:
		copy(x.Sum[:], h[2:])
	default:
		b, err := s.local(r.cid)
		if err != nil {
			return err
		}
		x.Sum = sumOf(b)
	}
	return nil
}

// usable returns the first place in a user's file whose file looks unchanged,
// or whose bytes are still right although it does not.
func (s *Store) usable(r run, ps []place, files map[uint64]*fileCheck) (place, error) {
	var last error
	for _, p := range ps {
		f := files[p.id]
		if f == nil {
			f = &fileCheck{}
			var err error
			if f.row, err = s.fileByID(p.id); err != nil {
				return p, err
			}
			fi, err := os.Lstat(f.row.Path)
			if err == nil {
				f.now = statRow(f.row.Path, fi)
			}
			f.changed = err != nil || !fi.Mode().IsRegular() || !f.now.same(f.row)
			files[p.id] = f
		}
		if !f.changed {
			return p, nil
		}
		if _, err := s.readPlace(r.cid, p); err != nil {
			last = err
			if errors.Is(err, perigee.Corrupt) {
				if _, err := s.lose(string(r.cid.Hash()), p); err != nil {
					return p, err
				}
			}
			continue
		}
		f.verified += p.length
		return p, nil
	}
	return place{}, last
}

// refresh records the status of a file whose content was found unchanged.
func (s *Store) refresh(id uint64, now fileRow) {
	b, err := perigee.Encode(now)
	if err != nil {
		return
	}
	if err := s.putRow(idKey(keyFile, id), b); err != nil {
		s.log.Warn("cannot record a file's status", "path", now.Path, "cause", err)
	}
}
