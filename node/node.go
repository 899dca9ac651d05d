// Package node wires a Perigee node: configuration, keys, plain constructors in
// order, and their lifecycle. It is the only package that knows all the others;
// none of the work is done here.
//
// A home is a node's directory: its keys, token, configuration, journal and
// data. One home belongs to one running node at a time.
package node

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/api"
	"github.com/perigee-network/perigee/client"
	"github.com/perigee-network/perigee/data"
	"github.com/perigee-network/perigee/db"
	"github.com/perigee-network/perigee/p2p"
	"github.com/perigee-network/perigee/provider"
	"github.com/perigee-network/perigee/requester"
	"github.com/perigee-network/perigee/wasm"
)

// Node is a running node. It is safe for concurrent use.
type Node struct {
	cfg     Config
	log     *slog.Logger
	keys    keys
	started time.Time

	db        db.DB
	net       *p2p.Network
	data      *data.Store
	datasets  *data.Datasets
	engine    *wasm.Engine
	provider  *provider.Provider // nil: gives nothing
	offers    *requester.Offers
	requester *requester.Requester
	apiURL    string

	ctx     context.Context
	cancel  context.CancelFunc
	tasks   sync.WaitGroup
	closers []func() error // run in reverse
	once    sync.Once
	done    chan struct{}
	failMu  sync.Mutex
	failure error
}

// Start starts the node at cfg.Home, making the home if there is none, and
// returns when its API answers. ctx bounds the start only. Close stops it.
func Start(ctx context.Context, cfg Config) (*Node, error) {
	n := &Node{cfg: cfg, log: cfg.Log, started: time.Now(), done: make(chan struct{})}
	if n.log == nil {
		n.log = slog.New(slog.DiscardHandler)
	}
	n.ctx, n.cancel = context.WithCancel(context.WithoutCancel(ctx))
	if err := n.start(ctx); err != nil {
		_ = n.Close()
		return nil, err
	}
	return n, nil
}

func (n *Node) start(ctx context.Context) error {
	var err error
	if _, err = Init(n.cfg.Home, n.cfg); err != nil {
		return err
	}
	if n.keys, err = loadKeys(n.cfg.Home, new([]string)); err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{
		n.openDB, n.openNetwork, n.openData, n.openEngine, n.openProvider, n.openRequester, n.serveAPI,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	collected := make(chan struct{})
	go func() {
		defer close(collected)
		n.collect()
	}()
	n.onClose(func() error { <-collected; return nil }) // before the store closes
	return nil
}

// collectEvery is how often what nobody keeps is removed from the disk.
const collectEvery = time.Hour

// collect removes, from time to time, blocks that no pin and no running
// execution keeps: inputs fetched for executions that ended, above all.
func (n *Node) collect() {
	tick := time.NewTicker(collectEvery)
	defer tick.Stop()
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-tick.C:
			r, err := n.data.GC(n.ctx)
			if err != nil {
				n.log.Warn("collecting garbage", "err", err)
				continue
			}
			n.log.Info("collected garbage", "blocks", r.Blocks, "bytes", r.Bytes)
		}
	}
}

func (n *Node) path(name string) string { return filepath.Join(n.cfg.Home, name) }

func (n *Node) onClose(fn func() error) { n.closers = append(n.closers, fn) }

func (n *Node) openDB(context.Context) (err error) {
	n.db, err = db.Open(n.path("journal"))
	if err == nil {
		n.onClose(n.db.Close)
	}
	return err
}

// openNetwork starts the node's presence. When the default port is another
// node's, any free one does; an address that somebody chose must work.
func (n *Node) openNetwork(ctx context.Context) error {
	cfg := p2p.Config{Key: n.keys.node, Listen: n.cfg.Listen, Peers: n.cfg.Peers, Relays: n.cfg.Relays,
		RelayService: n.cfg.RelayService, MDNS: n.cfg.MDNS == nil || *n.cfg.MDNS, DHT: n.cfg.DHT,
		PublicDHT: n.cfg.PublicDHT, Log: n.log}
	if n.cfg.PSKFile != "" {
		b, err := os.ReadFile(n.cfg.PSKFile)
		if err != nil {
			return perigee.E("node.Start", perigee.Invalid, err, "cannot read the private network's key")
		}
		if cfg.PSK, err = p2p.ParsePSK(b); err != nil {
			return err
		}
	}
	tries := [][]string{cfg.Listen}
	switch {
	case slices.Equal(cfg.Listen, []string{ListenNone}):
		tries = [][]string{nil}
	case len(cfg.Listen) == 0:
		if tries = [][]string{DefaultListen, fallbackListen}; n.cfg.Embedded {
			tries, cfg.MDNS = [][]string{embeddedListen}, false
		}
	}
	var err error
	for _, listen := range tries {
		if cfg.Listen = listen; cfg.PSK != nil {
			cfg.Listen = withoutQUIC(listen)
		}
		if n.net, err = p2p.New(ctx, cfg); err == nil {
			n.onClose(n.net.Close)
			return nil
		}
	}
	return err
}

func (n *Node) openData(ctx context.Context) (err error) {
	n.data, err = data.Open(ctx, data.Config{Dir: n.path("data"), DB: n.db, Host: n.net.Host(), Router: n.net, Tamper: tamper, Log: n.log})
	if err != nil {
		return err
	}
	n.onClose(n.data.Close)
	return n.openDatasets(ctx)
}

func (n *Node) openEngine(context.Context) (err error) {
	if n.cfg.Provide.Off {
		return nil
	}
	modules := n.cfg.Modules
	if modules == "" {
		modules = n.path("modules")
	}
	n.engine, err = wasm.New(wasm.Config{CacheDir: modules, ScratchDir: n.path("scratch"),
		Workers: n.resources().CPU, Log: n.log})
	if err == nil {
		n.onClose(n.engine.Close)
	}
	return err
}

// resources are what the configuration gives, the defaults filled in.
func (n *Node) resources() provider.Resources {
	r := provider.DefaultResources(machineMemory())
	p := n.cfg.Provide
	if p.CPU > 0 {
		r.CPU = p.CPU
	}
	if p.Memory > 0 {
		r.Memory = int64(p.Memory)
	}
	if p.Disk > 0 {
		r.Disk = int64(p.Disk)
	}
	return r
}

func (n *Node) openProvider(context.Context) (err error) {
	if n.engine == nil {
		return nil
	}
	n.provider, err = provider.New(provider.Config{
		Peer: n.keys.node.Peer(), Account: n.keys.account.Account(), Sign: n.keys.node.Sign,
		DB: n.db, Data: n.data, Engine: n.engine, Resources: n.resources(),
		Region: n.cfg.Region, Labels: n.cfg.Labels, Log: n.log, Alter: alter,
	})
	if err != nil {
		return err
	}
	n.onClose(n.provider.Close)
	n.provider.Serve(n.net)
	return nil
}

func (n *Node) openRequester(context.Context) (err error) {
	n.offers = requester.NewOffers()
	self := n.keys.node.Peer()
	n.requester, err = requester.New(requester.Config{
		Peer: self, Sign: n.keys.node.Sign, DB: n.db, Data: requesterData{n.data, n.datasets}, Offers: n.offers,
		Engine: wasm.Version, Log: n.log,
		Dial: func(id perigee.PeerID) requester.Provider {
			if id == self && n.provider != nil {
				return near{n.provider, self}
			}
			return requester.Remote(n.net, id)
		},
	})
	if err != nil {
		return err
	}
	n.onClose(n.requester.Close)
	return n.startOffers()
}

// serveAPI opens the API on the home's Unix socket and over TCP, and leaves its
// address in the home.
func (n *Node) serveAPI(ctx context.Context) error {
	token, err := loadToken(n.cfg.Home, new([]string))
	if err != nil {
		return err
	}
	socket, err := client.ListenSocket(n.path(client.SocketFile))
	if err != nil {
		return err
	}
	addr := n.cfg.APIListen
	if addr == "" {
		addr = DefaultAPIListen
	}
	tcp, err := net.Listen("tcp", addr)
	if err != nil {
		_ = socket.Close()
		return perigee.E("node.Start", perigee.Invalid, err, "the API cannot listen on %q; choose another address with --api-listen", addr)
	}
	n.apiURL = "http://" + tcp.Addr().String()
	srv := api.New(api.Config{Node: nodeAPI{n}, Jobs: jobsAPI{n.requester}, Data: dataAPI{n.data}, Datasets: datasetsAPI{n},
		Providers: offersAPI{n}, Token: token, TokenFile: n.path(client.TokenFile), Log: n.log})
	stopping, stop := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	for l, local := range map[net.Listener]bool{socket: true, tcp: false} {
		serving.Go(func() {
			if err := srv.Serve(stopping, l, local); err != nil {
				n.fail(err)
			}
		})
	}
	n.onClose(func() error {
		stop()
		serving.Wait()
		_ = os.Remove(n.path(client.URLFile))
		return nil
	})
	return os.WriteFile(n.path(client.URLFile), []byte(n.apiURL+"\n"), 0o600)
}

// fail records an error that ends the node.
func (n *Node) fail(err error) {
	n.failMu.Lock()
	defer n.failMu.Unlock()
	if n.failure == nil && err != nil {
		n.failure = err
		close(n.done)
	}
}

// Done is closed when the node cannot go on; Close says why.
func (n *Node) Done() <-chan struct{} { return n.done }

// Close stops the node: first the API, then what works, then what stores. Jobs
// and executions go on with the next Start. It returns why the node could not go
// on, if that is why it is closed.
func (n *Node) Close() error {
	n.failMu.Lock()
	err := n.failure
	n.failMu.Unlock()
	n.once.Do(func() {
		n.cancel()
		for i := len(n.closers) - 1; i >= 0; i-- {
			err = errors.Join(err, n.closers[i]())
		}
		n.tasks.Wait()
	})
	return err
}

// ID returns the node's peer ID.
func (n *Node) ID() perigee.PeerID { return n.keys.node.Peer() }

// Account returns the account that the node belongs to.
func (n *Node) Account() perigee.AccountID { return n.keys.account.Account() }

// Addrs returns the addresses under which peers reach the node.
func (n *Node) Addrs() []string { return n.net.Addrs() }

// API returns the URL of the API's TCP listener.
func (n *Node) API() string { return n.apiURL }

// status is what GET /v1/status tells.
func (n *Node) status() client.Status {
	st := client.Status{
		PeerID: n.ID(), Account: n.Account(), Addrs: n.Addrs(), API: n.apiURL, Home: n.cfg.Home,
		Peers: len(n.net.Peers()), Version: perigee.Version, Roles: []string{"requester"}, Region: n.cfg.Region,
		Engine: wasm.Version, Started: n.started, Embedded: n.cfg.Embedded, Jobs: n.requester.Open(),
		Sandbox: "none: this node runs no guests on " + runtime.GOOS,
	}
	if n.provider != nil {
		st.Roles = append(st.Roles, "provider")
		st.Sandbox = n.engine.Sandbox()
		running, queued := n.provider.Running()
		st.Running = running + queued
	}
	if n.cfg.RelayService {
		st.Roles = append(st.Roles, "relay")
	}
	return st
}
