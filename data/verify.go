package data

import (
	"context"
	"errors"
	"runtime"
	"sync"

	"github.com/ipfs/go-cid"
	"golang.org/x/sync/errgroup"

	"github.com/perigee-network/perigee"
)

// maxListed bounds the lists of a VerifyReport.
const maxListed = 1000

// BadBlock is a block whose bytes are not what its CID says.
type BadBlock struct {
	CID    perigee.CID `json:"cid"`
	Path   string      `json:"path"` // the user's file or pack it should lie in
	Reason string      `json:"reason"`
}

// VerifyReport says what Verify found. Lists end after 1,000 entries; the counts
// go on.
type VerifyReport struct {
	Blocks       int64         `json:"blocks"` // read and found right
	Bytes        int64         `json:"bytes"`
	BadCount     int64         `json:"bad_count"`
	Bad          []BadBlock    `json:"bad"`
	MissingCount int64         `json:"missing_count"`
	Missing      []perigee.CID `json:"missing"` // linked to, but not on this node
}

// OK reports whether everything is here and right.
func (r VerifyReport) OK() bool { return r.BadCount == 0 && r.MissingCount == 0 }

// Verify reads every block below c in each place where it lies and checks its
// hash. Places that fail are forgotten, so that the block can be fetched again.
func (s *Store) Verify(ctx context.Context, c perigee.CID) (VerifyReport, error) {
	if err := defined("data.Verify", c); err != nil {
		return VerifyReport{}, err
	}
	v := &verifier{s: s}
	g, gctx := errgroup.WithContext(ctx)
	work := make(chan cid.Cid, 64)
	for range runtime.GOMAXPROCS(0) {
		g.Go(func() error {
			for c := range work {
				if _, err := v.check(c); err != nil && !errors.Is(err, perigee.NotFound) {
					return err // a bad leaf is in the report
				}
			}
			return nil
		})
	}
	g.Go(func() error {
		defer close(work)
		w := walker{have: s.haveLocal, get: v.check}
		w.visit = func(c cid.Cid, n *ufsNode, _ int64) error {
			if n != nil {
				return nil
			}
			select {
			case work <- c:
				return nil
			case <-gctx.Done():
				return gctx.Err()
			}
		}
		w.missing = func(c cid.Cid, _ *ufsNode, _ uint64) error {
			v.mu.Lock()
			defer v.mu.Unlock()
			v.r.MissingCount++
			if len(v.r.Missing) < maxListed {
				v.r.Missing = append(v.r.Missing, perigee.NewCID(c))
			}
			return nil
		}
		_, err := w.walk(gctx, c.Cid())
		return err
	})
	err := g.Wait()
	if err != nil && ctx.Err() != nil {
		err = ctxError("data.Verify", ctx)
	}
	return v.r, err
}

type verifier struct {
	s  *Store
	mu sync.Mutex
	r  VerifyReport
}

// check reads a block from all its places and returns it from a good one, or an
// error of kind NotFound.
func (v *verifier) check(c cid.Cid) ([]byte, error) {
	if d, ok := known(c); ok {
		return d, nil
	}
	hash := string(c.Hash())
	ps, err := v.s.places(hash)
	if err != nil {
		return nil, err
	}
	var good []byte
	for _, p := range ps {
		b, err := v.s.readPlace(c, p)
		if err == nil {
			good = b
			continue
		}
		if errors.Is(err, perigee.Corrupt) || errors.Is(err, perigee.NotFound) {
			if lost, lerr := v.s.lose(hash, p); lerr != nil {
				return nil, lerr
			} else if !lost {
				continue // it moved meanwhile
			}
		}
		v.bad(c, p, err)
	}
	if good == nil {
		if len(ps) > 0 {
			return nil, perigee.E("data.Verify", perigee.NotFound, "no good copy of %s", c)
		}
		return nil, perigee.E("data.Verify", perigee.NotFound, "%s is not on this node", c)
	}
	v.mu.Lock()
	v.r.Blocks++
	v.r.Bytes += int64(len(good))
	v.mu.Unlock()
	return good, nil
}

func (v *verifier) bad(c cid.Cid, p place, cause error) {
	b := BadBlock{CID: perigee.NewCID(c), Reason: cause.Error()}
	switch p.kind {
	case atPack:
		b.Path = v.s.packs.path(p.id)
	case atFile, atWrapped:
		if row, err := v.s.fileByID(p.id); err == nil {
			b.Path = row.Path
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.r.BadCount++
	if len(v.r.Bad) < maxListed {
		v.r.Bad = append(v.r.Bad, b)
	}
}
