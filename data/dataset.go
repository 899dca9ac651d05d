package data

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/db"
)

// Named datasets. An account publishes a signed head that links to chunks of
// parts; heads spread by gossip on TopicDatasets and by comparing lists with
// each new peer, chunks are fetched from whoever has them when they are needed
// (a small dataset's at once, so that it outlives its owner's node). Other nodes
// join a dataset by asking its owner's node to add what they hold.

const (
	// TopicDatasets carries new heads.
	TopicDatasets = "perigee/datasets/1"
	// ProtocolDatasets serves heads, lists, chunks and joins: one request, one
	// answer per stream.
	ProtocolDatasets = "/perigee/dataset/1"
)

// Bounds of what a node keeps for others.
const (
	foreignHeads     = 16 << 10  // datasets of other accounts
	foreignEach      = 1 << 10   // of one of them
	foreignHeadBytes = 128 << 20 // bytes of their heads
	eagerChunkBytes  = 256 << 20 // bytes of chunks taken before anybody asks
	maxHead          = 512 << 10 // bytes of an encoded head
	joinParts        = 4096      // parts of one DatasetJoin
	joinBytes        = 2 << 20   // and about its encoded length
)

// DatasetsConfig is what Datasets are made of. The network's functions may be
// nil on a node that is offline.
type DatasetsConfig struct {
	DB      db.DB // keys that begin with "dataset/"
	Node    perigee.PeerID
	Account perigee.AccountID
	Sign    func(msg []byte) []byte // with the account's key

	// Call sends a request to a peer's ProtocolDatasets and receives its answer.
	Call func(ctx context.Context, to perigee.PeerID, protocol string, req, resp any) error
	// Peers returns the connected nodes.
	Peers func() []perigee.PeerID
	// Announce publishes on TopicDatasets.
	Announce func(ctx context.Context, data []byte) error
	Router   Router // nil: datasets are found through connected peers only
	Log      *slog.Logger
}

// Datasets are the named datasets that a node knows, and the office of those
// that its account owns. Methods are safe for concurrent use.
//
// The network is connected by its owner: Validate and Deliver go to the topic,
// Serve to the protocol, and Met to whatever tells of new peers. With a
// p2p.Network net that is
//
//	var topic *p2p.Topic // Announce publishes on it
//	sets, err := data.OpenDatasets(ctx, data.DatasetsConfig{…, Call: net.Call, Peers: net.Nodes, Router: net,
//		Announce: func(ctx context.Context, b []byte) error { return topic.Publish(ctx, b) }})
//	topic, err = net.Join(data.TopicDatasets, sets.Validate, sets.Deliver)
//	net.Handle(data.ProtocolDatasets, func(ctx context.Context, s *p2p.Stream) { sets.Serve(ctx, s.Peer(), s) })
//	net.OnPeer(sets.Met)
type Datasets struct {
	cfg DatasetsConfig
	log *slog.Logger

	own sync.Mutex // one change of an own dataset at a time

	mu     sync.Mutex
	known  map[string]*knownHead // by OWNER/NAME
	owners map[perigee.AccountID]int
	bytes  int64    // of foreign heads
	eager  int64    // bytes of chunks of foreign datasets
	digest [32]byte // XOR of the hashes of all heads: equal lists have equal digests
	met    map[perigee.PeerID]time.Time
	joins  map[perigee.PeerID]*allowance

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	closed bool
}

// knownHead is a head in memory, without its chunks.
type knownHead struct {
	head  perigee.DatasetHead // Chunks is empty
	cid   perigee.CID
	bytes int64
}

// OpenDatasets reads what the database knows and begins to keep it current.
func OpenDatasets(ctx context.Context, cfg DatasetsConfig) (*Datasets, error) {
	const op = "data.OpenDatasets"
	if cfg.DB == nil || cfg.Sign == nil {
		return nil, perigee.E(op, perigee.Invalid, "datasets need a database and a key to sign with")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	d := &Datasets{cfg: cfg, log: cfg.Log, known: map[string]*knownHead{}, owners: map[perigee.AccountID]int{},
		met: map[perigee.PeerID]time.Time{}, joins: map[perigee.PeerID]*allowance{}}
	if err := d.load(); err != nil {
		return nil, err
	}
	d.ctx, d.cancel = context.WithCancel(context.WithoutCancel(ctx))
	d.task(d.upkeep)
	return d, nil
}

// Close ends what runs in the background. The database stays open.
func (d *Datasets) Close() error {
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
	d.cancel()
	d.wg.Wait()
	return nil
}

// task runs fn in the background until Close.
func (d *Datasets) task(fn func(ctx context.Context)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.closed {
		d.wg.Go(func() { fn(d.ctx) })
	}
}

func datasetID(owner perigee.AccountID, name string) string { return string(owner) + "/" + name }

// Publish makes or replaces this account's dataset of a name: the parts, with
// their paths, CIDs, sizes and holders, in any order. join is perigee.JoinAny or
// JoinNone ("" is JoinAny). Holders named before of a part that stays are kept,
// and so, while join is JoinAny, are the parts that others brought. Publishing
// what is published already changes nothing. Errors are of kind Invalid.
func (d *Datasets) Publish(ctx context.Context, name string, parts []perigee.DatasetPart, join string) (*perigee.Dataset, error) {
	const op = "data.Publish"
	if !perigee.ValidDatasetName(name) {
		return nil, perigee.E(op, perigee.Invalid, "%q cannot name a dataset; a name has 1 to 63 of a-z, 0-9, '.', '_' and '-', and begins with a letter or digit", name)
	}
	if join == "" {
		join = perigee.JoinAny
	}
	if join != perigee.JoinAny && join != perigee.JoinNone {
		return nil, perigee.E(op, perigee.Invalid, "join is %q; it is any or none", join)
	}
	if len(parts) == 0 {
		return nil, perigee.E(op, perigee.Invalid, "dataset %s has no parts; name at least one", name)
	}
	parts = d.tidy(parts)
	if err := perigee.CheckDatasetParts(parts); err != nil {
		return nil, perigee.E(op, perigee.Invalid, err, "dataset %s", name)
	}
	d.own.Lock()
	defer d.own.Unlock()
	old, err := d.current(ctx, d.cfg.Account, name)
	if err != nil && !errors.Is(err, perigee.NotFound) {
		return nil, err
	}
	next := &perigee.Dataset{Name: name, Join: join, Parts: parts}
	if old != nil {
		var kept []perigee.DatasetPart
		for _, p := range old.Parts {
			i, here := slices.BinarySearchFunc(parts, p.Path, func(q perigee.DatasetPart, path string) int { return cmp.Compare(q.Path, path) })
			if here && parts[i].CID == p.CID && parts[i].Size == p.Size || !here && p.By != d.cfg.Account && join == perigee.JoinAny {
				kept = append(kept, p)
			}
		}
		if next.Parts, _, err = mergeParts(parts, kept); err != nil {
			return nil, err
		}
		if old.Join == join && sameParts(old.Parts, next.Parts) {
			return old, nil
		}
		next.Sequence = old.Sequence
	}
	return next, d.sign(ctx, next)
}

// tidy copies parts, fills in who brought them and sorts.
func (d *Datasets) tidy(parts []perigee.DatasetPart) []perigee.DatasetPart {
	parts = slices.Clone(parts)
	for i := range parts {
		p := &parts[i]
		p.Holders = slices.Clone(p.Holders)
		slices.Sort(p.Holders)
		p.Holders = slices.Compact(p.Holders)
		if p.By == "" {
			p.By = d.cfg.Account
		}
	}
	sort.Slice(parts, func(i, j int) bool { return parts[i].Path < parts[j].Path })
	return parts
}

// sign makes next the account's newest version of its dataset, keeps it and
// spreads it. The caller holds own.
func (d *Datasets) sign(ctx context.Context, next *perigee.Dataset) error {
	next.Owner, next.Node = d.cfg.Account, d.cfg.Node
	next.Sequence++
	next.Created = time.Now().UnixMilli()
	if err := perigee.Sign(next, d.cfg.Sign); err != nil {
		return err
	}
	head, chunks, err := next.Split()
	if err != nil {
		return err
	}
	if err := head.Check(); err != nil {
		return perigee.E("data.Publish", perigee.Invalid, err, "the dataset cannot be published")
	}
	for i, c := range head.Chunks {
		if err := d.putChunk(head.Owner, head.Name, c, chunks[i]); err != nil {
			return err
		}
	}
	if _, err := d.accept(head, true); err != nil {
		return err
	}
	d.spread(ctx, head)
	return nil
}

// mergeParts adds parts and holders to a sorted list. The error is of kind
// Refused when a path is taken by other content.
func mergeParts(old, add []perigee.DatasetPart) (merged []perigee.DatasetPart, changed bool, err error) {
	merged = make([]perigee.DatasetPart, 0, len(old)+len(add))
	for len(old) > 0 || len(add) > 0 {
		switch {
		case len(add) == 0 || len(old) > 0 && old[0].Path < add[0].Path:
			merged, old = append(merged, old[0]), old[1:]
		case len(old) == 0 || add[0].Path < old[0].Path:
			merged, add, changed = append(merged, add[0]), add[1:], true
		case old[0].CID != add[0].CID || old[0].Size != add[0].Size:
			return nil, false, perigee.E("data.JoinDataset", perigee.Refused,
				"the dataset has other content at %q; join it under another path", add[0].Path)
		default:
			p := old[0]
			holders := append(slices.Clone(p.Holders), add[0].Holders...)
			slices.Sort(holders)
			holders = slices.Compact(holders)
			if len(holders) > len(p.Holders) && len(holders) <= perigee.MaxDatasetHolders {
				p.Holders, changed = holders, true
			}
			merged, old, add = append(merged, p), old[1:], add[1:]
		}
	}
	return merged, changed, nil
}

func sameParts(a, b []perigee.DatasetPart) bool {
	return slices.EqualFunc(a, b, func(p, q perigee.DatasetPart) bool {
		return p.Path == q.Path && p.CID == q.CID && p.Size == q.Size && p.By == q.By && slices.Equal(p.Holders, q.Holders)
	})
}

// ListDatasets returns the heads of all known datasets, this account's first, without
// their chunks.
func (d *Datasets) ListDatasets(context.Context) ([]perigee.DatasetHead, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make([]perigee.DatasetHead, 0, len(d.known))
	for _, k := range d.known {
		out = append(out, k.head)
	}
	me := d.cfg.Account
	sort.Slice(out, func(i, j int) bool {
		a, b := &out[i], &out[j]
		if (a.Owner == me) != (b.Owner == me) {
			return a.Owner == me
		}
		return a.Owner < b.Owner || a.Owner == b.Owner && a.Name < b.Name
	})
	return out, nil
}

// LookupDataset returns the dataset OWNER/NAME; see perigee.ParseDatasetName. One that
// is not known here is asked for among the connected peers and, through the
// router, beyond. Errors: Invalid for a malformed or ambiguous name, NotFound,
// and Unavailable when the head is known but nobody gives the parts.
func (d *Datasets) LookupDataset(ctx context.Context, ref string) (*perigee.Dataset, error) {
	owner, name, err := d.resolve(ref)
	if err != nil {
		return nil, err
	}
	set, err := d.current(ctx, owner, name)
	if !errors.Is(err, perigee.NotFound) || owner == d.cfg.Account {
		return set, err
	}
	asked, err := d.find(ctx, owner, name)
	if err != nil {
		return nil, err
	}
	if set, err = d.current(ctx, owner, name); errors.Is(err, perigee.NotFound) {
		if len(asked) == 0 {
			return nil, perigee.E("data.Lookup", perigee.NotFound, "dataset %s is not known here, and there is no peer to ask; see perigee connect", ref)
		}
		return nil, perigee.E("data.Lookup", perigee.NotFound, "nobody asked knows the dataset %s (asked %s)", ref, peerNames(asked))
	}
	return set, err
}

// peerNames lists a few peers for a message.
func peerNames(peers []perigee.PeerID) string {
	var names []string
	for _, p := range peers[:min(len(peers), 5)] {
		names = append(names, string(p))
	}
	if len(peers) > 5 {
		names = append(names, "and more")
	}
	return strings.Join(names, ", ")
}

// resolve finds the owner that a reference means.
func (d *Datasets) resolve(ref string) (perigee.AccountID, string, error) {
	owner, name, err := perigee.ParseDatasetName(ref)
	if err != nil {
		return "", "", err
	}
	if owner == "me" {
		return d.cfg.Account, name, nil
	}
	if _, err := perigee.AccountID(owner).PublicKey(); err == nil {
		return perigee.AccountID(owner), name, nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	var owners, having []perigee.AccountID
	for o := range d.owners {
		if strings.HasPrefix(string(o), owner) {
			owners = append(owners, o)
			if d.known[datasetID(o, name)] != nil {
				having = append(having, o)
			}
		}
	}
	if len(having) > 0 {
		owners = having
	}
	switch len(owners) {
	case 0:
		return "", "", perigee.E("data.Lookup", perigee.NotFound, "no known owner of a dataset begins with %q; write the whole account, or see perigee dataset list", owner)
	case 1:
		return owners[0], name, nil
	}
	slices.Sort(owners)
	return "", "", perigee.E("data.Lookup", perigee.Invalid, "%q may be %s or %s; write more characters of the account", owner, owners[0], owners[1])
}

// current returns the newest version known here, fetching chunks that are
// missing. The error is NotFound when no version is known.
func (d *Datasets) current(ctx context.Context, owner perigee.AccountID, name string) (*perigee.Dataset, error) {
	for try := 0; ; try++ {
		head, err := d.head(owner, name)
		if err != nil {
			return nil, err
		}
		parts, err := d.parts(ctx, head, "")
		if err != nil {
			// It may have been replaced meanwhile, and its chunks be gone.
			if now, again := d.head(owner, name); again == nil && now.Newer(head) && try < 3 {
				continue
			}
			return nil, err
		}
		return head.JoinChunks(parts)
	}
}
