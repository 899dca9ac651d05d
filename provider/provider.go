// Package provider is the role that offers resources: it answers bid requests,
// accepts leases, runs their executions next to the data and signs receipts.
//
// Everything it promised is durable: a lease is written before it is accepted,
// a receipt before it is told, so that after kill -9 the provider runs what it
// had accepted and tells again what it had finished. In memory it keeps only
// executions that are not final.
//
// Terms: a lease orders executions; an execution is one attempt at one part; a
// watch is a requester's open stream of events about its executions.
package provider

import (
	"context"
	"io"
	"iter"
	"log/slog"
	"sync"
	"time"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/data"
	"github.com/perigee-network/perigee/db"
	"github.com/perigee-network/perigee/wasm"
)

// Data is what a provider needs of the content store; *data.Store is one.
type Data interface {
	LocalBytes(ctx context.Context, in perigee.PartInput) (int64, error)
	Fetch(ctx context.Context, in perigee.PartInput, from []perigee.PeerID, progress func(n int64)) (data.Fetched, error)
	Tree(ctx context.Context, in perigee.PartInput) (perigee.Tree, error)
	OpenFile(ctx context.Context, c perigee.CID) (io.ReadSeekCloser, error)
	Stat(ctx context.Context, c perigee.CID) (data.Info, error)
	AddEntries(ctx context.Context, entries iter.Seq2[data.Entry, error], opts data.AddOptions) (data.Added, error)
	PutBlock(ctx context.Context, codec uint64, b []byte) (perigee.CID, error)
	ExportCAR(ctx context.Context, c perigee.CID, w io.Writer) error
	Pin(ctx context.Context, c perigee.CID, owner string) error
	Unpin(ctx context.Context, c perigee.CID, owner string) error
	Hold(cids ...perigee.CID) (release func())
}

// Engine runs guests; *wasm.Engine is one.
type Engine interface {
	Run(ctx context.Context, t wasm.Task) (*wasm.Outcome, error)
}

// Resources are what the provider gives to executions in all.
type Resources struct {
	CPU    int   // executions of one core at once
	Memory int64 // bytes
	Disk   int64 // bytes one execution may write
}

// Config makes a provider.
type Config struct {
	Peer      perigee.PeerID
	Account   perigee.AccountID
	Sign      func(msg []byte) []byte // with the node's key
	DB        db.DB
	Data      Data
	Engine    Engine
	Resources Resources
	Region    string
	Labels    map[string]string
	Price     perigee.Amount // per execution
	Log       *slog.Logger
	// Alter, when set, changes an execution's entries before they are stored.
	// It exists for builds that play a lying provider in tests.
	Alter func(data.Entry) data.Entry
}

// Limits on what one requester may leave here.
const (
	maxQueued       = 200_000                     // executions waiting in all
	maxRetention    = 30 * 24 * time.Hour         // a result is kept no longer, whatever was asked
	leaseKept       = maxRetention + 24*time.Hour // a lease is remembered longer than anything under it
	bidValidity     = 30 * time.Second            // how long a bid stands
	beatInterval    = 2 * time.Second             // an idle watch shows life this often
	inlineOutput    = 256 << 10                   // outputs up to this many bytes travel inside the completion event
	transferTimeout = 10 * time.Minute            // fetching inputs makes no progress for longer than the data package allows, or takes longer than this
	janitorInterval = time.Minute                 // how often expired results are let go
)

// Provider runs executions for requesters. It is safe for concurrent use.
type Provider struct {
	cfg     Config
	ctx     context.Context
	stop    context.CancelFunc
	wg      sync.WaitGroup
	mu      sync.Mutex
	queue   []*execution                             // accepted, not started, in order of acceptance
	active  map[execKey]*execution                   // not final: queued or running
	watch   map[perigee.PeerID]map[*watcher]struct{} // by requester
	used    Resources                                // by running executions
	mean    time.Duration                            // moving mean of how long an execution takes
	started bool
}

// execKey names an execution: requesters choose IDs, so two may choose one.
type execKey struct {
	requester perigee.PeerID
	id        string
}

// New makes a provider and takes up what its database says it had accepted and
// not finished. Close stops it.
func New(cfg Config) (*Provider, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Resources.CPU < 1 || cfg.Resources.Memory < 1<<20 {
		return nil, perigee.E("provider.New", perigee.Invalid, "a provider needs at least one core and 1 MiB of memory to give, not %d and %s",
			cfg.Resources.CPU, perigee.Size(cfg.Resources.Memory))
	}
	ctx, stop := context.WithCancel(context.Background())
	p := &Provider{cfg: cfg, ctx: ctx, stop: stop,
		active: map[execKey]*execution{}, watch: map[perigee.PeerID]map[*watcher]struct{}{}}
	if err := p.recover(); err != nil {
		stop()
		return nil, err
	}
	p.wg.Add(1)
	go p.janitor()
	p.mu.Lock()
	p.started = true
	p.dispatch()
	p.mu.Unlock()
	return p, nil
}

// Close stops all executions, leaving them to be taken up by the next New over
// the same database, and waits for them.
func (p *Provider) Close() error {
	p.stop()
	p.wg.Wait()
	return nil
}

// Offer returns the provider's present offer, signed, valid for ten minutes.
func (p *Provider) Offer(addrs []string, version string) (*perigee.Offer, error) {
	now := time.Now()
	o := &perigee.Offer{
		Provider: p.cfg.Peer, Account: p.cfg.Account,
		Sequence: uint64(now.UnixMilli()), Expires: now.Add(OfferValidity).UnixMilli(),
		Addrs: addrs, Region: p.cfg.Region, Engines: []string{wasm.Version}, Class: wasm.Class(),
		CPU: p.cfg.Resources.CPU, Memory: p.cfg.Resources.Memory, Disk: p.cfg.Resources.Disk,
		Labels: p.cfg.Labels, Price: p.cfg.Price, Version: version,
	}
	return o, perigee.Sign(o, p.cfg.Sign)
}

// OfferValidity is how long an offer stands after its making; a provider makes
// a new one well before.
const OfferValidity = 10 * time.Minute

// Running returns how many executions run and how many wait.
func (p *Provider) Running() (running, queued int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.active) - len(p.queue), len(p.queue)
}
