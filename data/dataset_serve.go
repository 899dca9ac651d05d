package data

import (
	"context"
	"errors"
	"slices"
	"sort"
	"time"

	"github.com/perigee-network/perigee"
)

// Serve answers one stream of ProtocolDatasets. peer is who opened it, proved
// by the transport.
func (d *Datasets) Serve(ctx context.Context, peer perigee.PeerID, s DatasetStream) {
	var req datasetRequest
	if err := s.Receive(&req); err != nil {
		if errors.Is(err, perigee.Corrupt) {
			_ = s.Send(&datasetAnswer{Fault: perigee.FaultOf(err)})
		}
		return
	}
	a, err := d.answer(ctx, peer, &req)
	if err != nil {
		a = &datasetAnswer{Fault: perigee.FaultOf(err)}
	}
	if err := s.Send(a); err != nil {
		d.log.Debug("an answer about datasets did not arrive", "peer", peer, "cause", err)
	}
}

func (d *Datasets) answer(ctx context.Context, peer perigee.PeerID, req *datasetRequest) (*datasetAnswer, error) {
	const op = "data.Datasets"
	if req.Op != opList && req.Op != opJoin && !perigee.ValidDatasetName(req.Name) {
		return nil, perigee.E(op, perigee.Invalid, "%.80q cannot name a dataset", req.Name)
	}
	switch req.Op {
	case opHead:
		h, err := d.head(req.Owner, req.Name)
		if errors.Is(err, perigee.NotFound) {
			return &datasetAnswer{}, nil
		}
		if err != nil {
			return nil, err
		}
		return &datasetAnswer{Heads: []perigee.DatasetHead{*h}}, nil
	case opList:
		return d.page(req)
	case opChunk:
		if !req.Chunk.Defined() {
			return nil, perigee.E(op, perigee.Invalid, "no chunk is named")
		}
		b, err := d.cfg.DB.Get(chunkKey(req.Owner, req.Name, req.Chunk))
		return &datasetAnswer{Chunk: b}, err
	case opJoin:
		if req.Join == nil {
			return nil, perigee.E(op, perigee.Invalid, "a join without content")
		}
		h, err := d.joined(ctx, peer, req.Join)
		if err != nil {
			return nil, err
		}
		return &datasetAnswer{Heads: []perigee.DatasetHead{*h}}, nil
	}
	return nil, perigee.E(op, perigee.Unsupported, "no operation %.20q", req.Op)
}

// page returns some of the list, in order of OWNER/NAME.
func (d *Datasets) page(req *datasetRequest) (*datasetAnswer, error) {
	d.mu.Lock()
	if len(req.Digest) > 0 && slices.Equal(req.Digest, d.digest[:]) {
		d.mu.Unlock()
		return &datasetAnswer{Same: true}, nil
	}
	var ids []string
	for id := range d.known {
		if id > req.After {
			ids = append(ids, id)
		}
	}
	d.mu.Unlock()
	sort.Strings(ids)
	a := &datasetAnswer{}
	size := 0
	for i, id := range ids {
		b, err := d.cfg.DB.Get(headKey(id))
		if errors.Is(err, perigee.NotFound) {
			continue // displaced meanwhile
		}
		if err != nil {
			return nil, err
		}
		var h perigee.DatasetHead
		if err := perigee.Decode(b, &h); err != nil {
			return nil, err
		}
		a.Heads = append(a.Heads, h)
		if size += len(b); len(a.Heads) == listPage || size > listBytes {
			a.More = i < len(ids)-1
			break
		}
	}
	return a, nil
}

// JoinDataset adds parts that this node holds to the dataset OWNER/NAME, and returns
// its new version. The paths, CIDs and sizes of parts count; the holder is this
// node. Errors: those of LookupDataset; Refused when the dataset takes no parts or has
// other content at a path; Unavailable when the owner's node cannot be reached.
func (d *Datasets) JoinDataset(ctx context.Context, ref string, parts []perigee.DatasetPart) (*perigee.Dataset, error) {
	const op = "data.JoinDataset"
	if len(parts) == 0 {
		return nil, perigee.E(op, perigee.Invalid, "there are no parts to join dataset %s with", ref)
	}
	parts = slices.Clone(parts)
	for i := range parts {
		parts[i].Holders, parts[i].By = []perigee.PeerID{d.cfg.Node}, d.cfg.Account
	}
	parts = d.tidy(parts)
	if err := perigee.CheckDatasetParts(parts); err != nil {
		return nil, perigee.E(op, perigee.Invalid, err, "joining dataset %s", ref)
	}
	set, err := d.LookupDataset(ctx, ref)
	if err != nil {
		return nil, err
	}
	if set.Owner != d.cfg.Account && set.Join != perigee.JoinAny {
		return nil, perigee.E(op, perigee.Refused, "dataset %s takes no parts of others; its owner may publish it with --join any", ref)
	}
	for len(parts) > 0 {
		n, size := 0, 0
		for n < len(parts) && n < joinParts && size < joinBytes {
			size += 240 + len(parts[n].Path)
			n++
		}
		if err := d.askJoin(ctx, set, parts[:n]); err != nil {
			return nil, err
		}
		parts = parts[n:]
	}
	return d.current(ctx, set.Owner, set.Name)
}

// askJoin has the owner's node, or this one if it is, add some parts.
func (d *Datasets) askJoin(ctx context.Context, set *perigee.Dataset, parts []perigee.DatasetPart) error {
	j := &perigee.DatasetJoin{Owner: set.Owner, Name: set.Name, Account: d.cfg.Account, Node: d.cfg.Node,
		Created: time.Now().UnixMilli(), Parts: parts}
	if err := perigee.Sign(j, d.cfg.Sign); err != nil {
		return err
	}
	if set.Node == d.cfg.Node {
		_, err := d.joined(ctx, d.cfg.Node, j)
		return err
	}
	const op = "data.JoinDataset"
	if d.cfg.Call == nil {
		return perigee.E(op, perigee.Unavailable, "this node is offline; a join is asked of the owner's node")
	}
	a, err := d.ask(ctx, set.Node, chunkTimeout, &datasetRequest{Op: opJoin, Join: j})
	if err != nil {
		return perigee.E(op, perigee.KindOf(err), err, "joining dataset %s/%s", set.Owner, set.Name)
	}
	if len(a.Heads) != 1 {
		return perigee.E(op, perigee.Corrupt, "peer %s answered the join without a dataset", set.Node)
	}
	h := &a.Heads[0]
	if h.Owner != set.Owner || h.Name != set.Name {
		return perigee.E(op, perigee.Corrupt, "peer %s answered the join with another dataset", set.Node)
	}
	if err := h.Check(); err != nil {
		return err
	}
	_, err = d.accept(h, true)
	return err
}

// joined decides on a join that a peer asks for and returns the new head, or
// the present one when nothing is new.
func (d *Datasets) joined(ctx context.Context, peer perigee.PeerID, j *perigee.DatasetJoin) (*perigee.DatasetHead, error) {
	const op = "data.JoinDataset"
	if err := d.checkJoin(peer, j); err != nil {
		return nil, err
	}
	d.own.Lock()
	defer d.own.Unlock()
	set, err := d.current(ctx, j.Owner, j.Name)
	if err != nil {
		return nil, err
	}
	if set.Join != perigee.JoinAny && j.Account != d.cfg.Account {
		return nil, perigee.E(op, perigee.Refused, "dataset %s/%s takes no parts of others", j.Owner, j.Name)
	}
	merged, changed, err := mergeParts(set.Parts, j.Parts)
	if err != nil {
		return nil, err
	}
	if err := perigee.CheckDatasetParts(merged); err != nil {
		return nil, perigee.E(op, perigee.Refused, err, "dataset %s/%s", j.Owner, j.Name)
	}
	if changed {
		set.Parts = merged
		if err := d.sign(ctx, set); err != nil {
			return nil, err
		}
	}
	return d.head(j.Owner, j.Name)
}

// checkJoin verifies a join's form, signature and sender, cheapest first.
func (d *Datasets) checkJoin(peer perigee.PeerID, j *perigee.DatasetJoin) error {
	const op = "data.JoinDataset"
	switch {
	case j.Owner != d.cfg.Account:
		return perigee.E(op, perigee.Refused, "dataset %.80s/%.80s is not owned here", j.Owner, j.Name)
	case !perigee.ValidDatasetName(j.Name):
		return perigee.E(op, perigee.Invalid, "%.80q cannot name a dataset", j.Name)
	case j.Node != peer:
		return perigee.E(op, perigee.Refused, "a node joins with what it holds itself, not for %.80s", j.Node)
	case len(j.Parts) < 1 || len(j.Parts) > joinParts:
		return perigee.E(op, perigee.Invalid, "a join with %d parts; 1 to %d are allowed", len(j.Parts), joinParts)
	case j.Created > time.Now().Add(maxClockAhead).UnixMilli():
		return perigee.E(op, perigee.Invalid, "the join was made in the future; check the clock")
	case peer != d.cfg.Node && !d.mayJoin(peer):
		return perigee.E(op, perigee.Busy, "too many joins from %s; try again in a few seconds", peer)
	}
	if err := perigee.CheckSignature(j); err != nil {
		return err
	}
	for i := range j.Parts {
		if p := &j.Parts[i]; p.By != j.Account || len(p.Holders) != 1 || p.Holders[0] != peer {
			return perigee.E(op, perigee.Invalid, "part %.80q is not said to be brought and held by who joins", p.Path)
		}
	}
	return perigee.CheckDatasetParts(j.Parts)
}

// allowance is how often a peer may still ask for a join.
type allowance struct {
	left  float64
	since time.Time
}

// mayJoin takes one join from a peer's allowance: each makes a new version that
// the whole network hears of.
func (d *Datasets) mayJoin(peer perigee.PeerID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	a := d.joins[peer]
	if a == nil {
		if len(d.joins) >= 4096 {
			clear(d.joins)
		}
		a = &allowance{joinBurst, now}
		d.joins[peer] = a
	}
	a.left = min(joinBurst, a.left+now.Sub(a.since).Seconds()/joinEvery.Seconds())
	a.since = now
	if a.left < 1 {
		return false
	}
	a.left--
	return true
}
