package data

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/perigee-network/perigee"
)

const (
	askTimeout     = 5 * time.Second  // for one small answer
	chunkTimeout   = 30 * time.Second // for one chunk
	askPeers       = 32               // peers asked for one thing
	listPage       = 256              // heads of a page
	listBytes      = 1 << 20          // and their bytes, after which it ends
	listPages      = 256              // pages taken from one peer at a time
	metPause       = 10 * time.Second // between two comparisons with one peer
	comparePause   = 5 * time.Minute  // between comparisons with some peer
	providePause   = 12 * time.Hour   // between announcements to the router
	joinBurst      = 32               // joins one peer may ask for at once,
	joinEvery      = time.Second      // and how often after that
	maxClockAhead  = time.Hour        // of a join's Created
	datasetKeyName = "perigee/dataset/"
)

// The operations of a datasetRequest.
const (
	opHead  = "head"  // Owner, Name → Heads: none or one
	opList  = "list"  // After, Digest → Heads, More or Same
	opChunk = "chunk" // Owner, Name, Chunk → Chunk
	opJoin  = "join"  // Join → Heads: the new one
)

type datasetRequest struct {
	Op     string               `cbor:"op"`
	Owner  perigee.AccountID    `cbor:"owner"`
	Name   string               `cbor:"name"`
	After  string               `cbor:"after"`  // OWNER/NAME after which the page begins
	Digest []byte               `cbor:"digest"` // of the asking node's list
	Chunk  perigee.CID          `cbor:"chunk"`
	Join   *perigee.DatasetJoin `cbor:"join"`
}

type datasetAnswer struct {
	Fault *perigee.Fault        `cbor:"fault"`
	Heads []perigee.DatasetHead `cbor:"heads"`
	Same  bool                  `cbor:"same"` // the lists are equal
	More  bool                  `cbor:"more"` // there is another page
	Chunk []byte                `cbor:"chunk"`
}

// DatasetStream is a stream of messages, as *p2p.Stream is.
type DatasetStream interface {
	Send(v any) error
	Receive(v any) error
}

// datasetKey is what holders of a dataset announce to the router.
func datasetKey(owner perigee.AccountID, name string) perigee.CID {
	return perigee.SumCID(perigee.CodecRaw, []byte(datasetKeyName+datasetID(owner, name)))
}

// Validate judges a message on TopicDatasets: an error of kind Corrupt for a
// bad head, of another kind for one that is not wanted.
func (d *Datasets) Validate(_ perigee.PeerID, data []byte) error {
	h, err := decodeHead(data)
	if err != nil || h.Owner == d.cfg.Account && d.wanted(h) != nil {
		return err // own heads pass although they are known already
	}
	return d.wanted(h)
}

// decodeHead reads and checks a head from outside. Errors are of kind Corrupt.
func decodeHead(data []byte) (*perigee.DatasetHead, error) {
	if len(data) > maxHead {
		return nil, perigee.E("data.Datasets", perigee.Corrupt, "a head of %d bytes; the limit is %d", len(data), maxHead)
	}
	h := new(perigee.DatasetHead)
	if err := perigee.Decode(data, h); err != nil {
		return nil, err
	}
	return h, h.Check()
}

// Deliver takes a message of TopicDatasets that Validate accepted.
func (d *Datasets) Deliver(from perigee.PeerID, data []byte) {
	h, err := decodeHead(data)
	if err != nil {
		return
	}
	d.take(h, from)
}

// take keeps a checked head from a peer and, if it is small, fetches its parts.
func (d *Datasets) take(h *perigee.DatasetHead, from perigee.PeerID) {
	fresh, err := d.accept(h, false)
	if err != nil {
		d.log.Debug("a dataset is not kept", "owner", h.Owner, "name", h.Name, "cause", err)
	}
	if !fresh || len(h.Chunks) > 1 {
		return
	}
	d.mu.Lock()
	full := d.eager > eagerChunkBytes
	d.mu.Unlock()
	if full || d.cfg.Call == nil {
		return
	}
	d.task(func(ctx context.Context) {
		wait(ctx, rand.N(time.Second)) // not all nodes at the owner's door at once
		if _, err := d.parts(ctx, h, from); err != nil {
			d.log.Debug("a dataset's parts are not here yet", "owner", h.Owner, "name", h.Name, "cause", err)
		}
	})
}

func wait(ctx context.Context, t time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(t):
	}
}

// spread tells the network of a new head of this account.
func (d *Datasets) spread(ctx context.Context, h *perigee.DatasetHead) {
	b, err := perigee.Encode(h)
	if err != nil {
		return
	}
	if d.cfg.Announce != nil {
		if err := d.cfg.Announce(context.WithoutCancel(ctx), b); err != nil {
			d.log.Warn("a dataset was not announced; peers will learn of it when they compare lists", "name", h.Name, "cause", err)
		}
	}
	if d.cfg.Router != nil {
		d.task(func(ctx context.Context) { d.provide(ctx, h.Owner, h.Name) })
	}
}

func (d *Datasets) provide(ctx context.Context, owner perigee.AccountID, name string) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := d.cfg.Router.Provide(ctx, datasetKey(owner, name)); err != nil {
		d.log.Debug("a dataset was not announced to the DHT", "name", name, "cause", err)
	}
}

// upkeep compares lists with some peer from time to time, which repairs what
// gossip missed, and announces own datasets to the router.
func (d *Datasets) upkeep(ctx context.Context) {
	var provided time.Time
	tick := time.NewTicker(comparePause)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if peers := d.peers(); len(peers) > 0 {
			d.Met(peers[0])
		}
		if d.cfg.Router == nil || time.Since(provided) < providePause {
			continue
		}
		provided = time.Now()
		heads, _ := d.ListDatasets(ctx)
		for _, h := range heads {
			if h.Owner == d.cfg.Account {
				d.provide(ctx, h.Owner, h.Name)
			}
		}
	}
}

// peers returns some connected nodes, in random order.
func (d *Datasets) peers() []perigee.PeerID {
	if d.cfg.Peers == nil || d.cfg.Call == nil {
		return nil
	}
	peers := slices.Clone(d.cfg.Peers())
	rand.Shuffle(len(peers), func(i, j int) { peers[i], peers[j] = peers[j], peers[i] })
	return peers[:min(len(peers), askPeers)]
}

// Met compares lists with a peer and takes what is newer there, trying a few
// times when the peer does not answer. It returns at once; comparisons with one peer are some seconds apart.
func (d *Datasets) Met(peer perigee.PeerID) {
	if d.cfg.Call == nil || peer == d.cfg.Node {
		return
	}
	d.mu.Lock()
	if time.Since(d.met[peer]) < metPause {
		d.mu.Unlock()
		return
	}
	if len(d.met) > 4096 {
		clear(d.met)
	}
	d.met[peer] = time.Now()
	d.mu.Unlock()
	d.task(func(ctx context.Context) {
		// A peer that only just starts may not serve datasets yet.
		for _, pause := range []time.Duration{0, time.Second, 5 * time.Second, 30 * time.Second} {
			wait(ctx, pause)
			err := d.compare(ctx, peer)
			if err == nil || ctx.Err() != nil || errors.Is(err, perigee.Corrupt) {
				return
			}
			d.log.Debug("cannot compare datasets", "peer", peer, "cause", err)
		}
	})
}

func (d *Datasets) compare(ctx context.Context, peer perigee.PeerID) error {
	d.mu.Lock()
	req := datasetRequest{Op: opList, Digest: slices.Clone(d.digest[:])}
	d.mu.Unlock()
	for range listPages {
		a, err := d.ask(ctx, peer, askTimeout*3, &req)
		if err != nil || a.Same {
			return err
		}
		for i := range a.Heads {
			h := &a.Heads[i]
			id := datasetID(h.Owner, h.Name)
			if id <= req.After {
				return perigee.E("data.Datasets", perigee.Corrupt, "peer %s lists datasets out of order", peer)
			}
			req.After = id
			if d.wanted(h) != nil {
				continue
			}
			if err := h.Check(); err != nil {
				return err
			}
			d.take(h, peer)
		}
		if !a.More || len(a.Heads) == 0 {
			return nil
		}
		req.Digest = nil
	}
	return nil
}

// ask sends one request to one peer; a fault in the answer is an error.
func (d *Datasets) ask(ctx context.Context, peer perigee.PeerID, limit time.Duration, req *datasetRequest) (*datasetAnswer, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var a datasetAnswer
	if err := d.cfg.Call(ctx, peer, ProtocolDatasets, req, &a); err != nil {
		return nil, err
	}
	return &a, a.Fault.Err("data.Datasets")
}

// find asks peers, and those that the router names, for a dataset that is not
// known here, and keeps the newest version. It returns who was asked.
func (d *Datasets) find(ctx context.Context, owner perigee.AccountID, name string) ([]perigee.PeerID, error) {
	if d.cfg.Call == nil {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, 2*askTimeout)
	defer cancel()
	var mu sync.Mutex
	var asked []perigee.PeerID
	var wg sync.WaitGroup
	query := func(peers []perigee.PeerID) {
		for _, p := range peers {
			mu.Lock()
			again := p == d.cfg.Node || slices.Contains(asked, p)
			if !again {
				asked = append(asked, p)
			}
			mu.Unlock()
			if again {
				continue
			}
			wg.Go(func() {
				a, err := d.ask(ctx, p, askTimeout, &datasetRequest{Op: opHead, Owner: owner, Name: name})
				if err != nil || len(a.Heads) != 1 {
					return
				}
				h := &a.Heads[0]
				if h.Owner != owner || h.Name != name || h.Check() != nil {
					return
				}
				if _, err := d.accept(h, true); err == nil {
					// The others may know a newer version: a moment for them.
					time.AfterFunc(300*time.Millisecond, cancel)
				}
			})
		}
	}
	query(d.peers())
	if d.cfg.Router != nil {
		wg.Go(func() {
			found, err := d.cfg.Router.FindHolders(ctx, datasetKey(owner, name), askPeers)
			if err == nil {
				query(found)
			}
		})
	}
	wg.Wait()
	return asked, nil
}

// parts returns all parts of a head, fetching the chunks that are not here from
// first, the owner's node, other peers and whom the router names.
func (d *Datasets) parts(ctx context.Context, h *perigee.DatasetHead, first perigee.PeerID) ([]perigee.DatasetPart, error) {
	chunks := make([][]perigee.DatasetPart, len(h.Chunks))
	sources := sync.OnceValue(func() []perigee.PeerID { return d.sources(ctx, h, first) })
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(4)
	for i, c := range h.Chunks {
		g.Go(func() (err error) {
			chunks[i], err = d.chunk(gctx, h, c, sources)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return slices.Concat(chunks...), nil
}

func (d *Datasets) sources(ctx context.Context, h *perigee.DatasetHead, first perigee.PeerID) []perigee.PeerID {
	if d.cfg.Call == nil {
		return nil
	}
	var out []perigee.PeerID
	add := func(peers ...perigee.PeerID) {
		for _, p := range peers {
			if p != "" && p != d.cfg.Node && !slices.Contains(out, p) {
				out = append(out, p)
			}
		}
	}
	add(first, h.Node)
	add(d.peers()...)
	if d.cfg.Router != nil && len(out) < askPeers {
		ctx, cancel := context.WithTimeout(ctx, askTimeout)
		defer cancel()
		if found, err := d.cfg.Router.FindHolders(ctx, datasetKey(h.Owner, h.Name), askPeers); err == nil {
			add(found...)
		}
	}
	return out
}

// chunk returns one chunk's parts, from here or from one of sources.
func (d *Datasets) chunk(ctx context.Context, h *perigee.DatasetHead, c perigee.CID, sources func() []perigee.PeerID) ([]perigee.DatasetPart, error) {
	const op = "data.Lookup"
	b, err := d.cfg.DB.Get(chunkKey(h.Owner, h.Name, c))
	if err == nil {
		return perigee.DecodeDatasetChunk(c, b)
	}
	if !errors.Is(err, perigee.NotFound) {
		return nil, err
	}
	var last error
	peers := sources()
	for _, p := range peers {
		a, err := d.ask(ctx, p, chunkTimeout, &datasetRequest{Op: opChunk, Owner: h.Owner, Name: h.Name, Chunk: c})
		if err == nil {
			var parts []perigee.DatasetPart
			if parts, err = perigee.DecodeDatasetChunk(c, a.Chunk); err == nil {
				return parts, d.putChunk(h.Owner, h.Name, c, a.Chunk)
			}
		}
		if last = err; ctx.Err() != nil {
			return nil, perigee.E(op, perigee.KindOf(ctx.Err()), err, "fetching the parts of dataset %s/%s", h.Owner, h.Name)
		}
	}
	if last == nil {
		return nil, perigee.E(op, perigee.Unavailable, "the parts of dataset %s/%s are not here, and there is no peer to ask", h.Owner, h.Name)
	}
	return nil, perigee.E(op, perigee.Unavailable, last, "nobody asked gives the parts of dataset %s/%s (asked %s)", h.Owner, h.Name, peerNames(peers))
}
