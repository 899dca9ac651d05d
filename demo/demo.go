package demo

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/client"
	"github.com/perigee-network/perigee/demo/localnet"
)

// MaxNodes bounds the size of the demo's network.
const MaxNodes = 32

// maxMoved is the share of input bytes that may move between nodes.
const maxMoved = 0.01

// datasetName is the dataset that the nodes make together.
const datasetName = "flights"

// regions are claimed by the nodes in turn.
var regions = []string{"EU/DE", "EU/FR", "US/CA", "US/NY", "AS/JP"}

// Options say how the demo runs.
type Options struct {
	Nodes    int       // how many node processes, 1 to MaxNodes
	Binary   string    // the perigee executable
	Out      io.Writer // what happened, for people; nil for nobody
	Progress io.Writer // the same while it happens; nil for nobody
	Terminal bool      // Progress is a terminal that understands cursor movement

	// Keep, when set, is called at the end while the network still runs.
	Keep func(*Report) error
}

// Run starts a network, runs the job, and returns what happened. It returns an
// error when anything did not hold: a node or the job failed, more than a
// hundredth of the input moved, a receipt did not verify, the second run was not
// answered by reuse. Whatever it made, processes and files, is gone when it
// returns; cancelling ctx ends it early.
func Run(ctx context.Context, o Options) (*Report, error) {
	const op = "demo.Run"
	if o.Nodes < 1 || o.Nodes > MaxNodes {
		return nil, perigee.E(op, perigee.Invalid, "the demo runs between 1 and %d nodes, not %d", MaxNodes, o.Nodes)
	}
	if o.Out == nil {
		o.Out = io.Discard
	}
	if o.Progress == nil {
		o.Progress = io.Discard
	}
	dir, err := os.MkdirTemp("", "perigee-demo-")
	if err != nil {
		return nil, perigee.E(op, perigee.Internal, err, "cannot make a temporary home")
	}
	d := &run{Options: o, dir: dir}
	defer os.RemoveAll(dir)
	defer func() { localnet.StopAll(d.nodes) }()
	return d.all(ctx)
}

// run is one run of the demo.
type run struct {
	Options
	dir    string
	nodes  []*localnet.Node
	input  int64 // bytes of all tables
	report Report
}

func (d *run) all(ctx context.Context) (*Report, error) {
	modules := filepath.Join(d.dir, "programs")
	for _, step := range []func(context.Context) error{
		func(context.Context) error { return writePrograms(modules) },
		d.start,
		d.publish,
		d.compute,
		d.check,
		d.again,
	} {
		if err := step(ctx); err != nil {
			return nil, d.explain(ctx, err)
		}
	}
	r := &d.report
	r.Home = d.dir
	r.Next = d.next(modules)
	r.Print(d.Out)
	if err := r.verdict(); err != nil {
		return r, err
	}
	if d.Keep != nil {
		return r, d.Keep(r)
	}
	return r, nil
}

// writePrograms puts the job's modules where they can be given to commands.
func writePrograms(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, name := range []string{"flights", "flightsmerge"} {
		b, err := Program(name)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name+".wasm"), b, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// explain adds the log of a node that died to the error it caused.
func (d *run) explain(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return perigee.E("demo.Run", perigee.Cancelled, "the demo was stopped")
	}
	for i, n := range d.nodes {
		select {
		case <-n.Done():
			return fmt.Errorf("%s ended unexpectedly: %w", nodeName(i), n.Failure(err))
		default:
		}
	}
	return err
}

func nodeName(i int) string { return fmt.Sprintf("node%d", i) }

func (d *run) say(format string, args ...any) { fmt.Fprintf(d.Progress, format+"\n", args...) }

// start starts the nodes: the first, then the others, which know its address.
func (d *run) start(ctx context.Context) error {
	began := time.Now()
	d.nodes = make([]*localnet.Node, 0, d.Nodes)
	first, err := d.startNode(ctx, 0, nil)
	if err != nil {
		return err
	}
	d.nodes = append(d.nodes, first)
	rest := make([]*localnet.Node, d.Nodes-1)
	var g errgroup.Group // each stops on its own when ctx ends, so that all are known to be stopped
	for i := range rest {
		g.Go(func() (err error) {
			rest[i], err = d.startNode(ctx, i+1, first.Status.Addrs)
			return err
		})
	}
	err = g.Wait()
	for _, n := range rest {
		if n != nil {
			d.nodes = append(d.nodes, n)
		}
	}
	if err != nil {
		return err
	}
	if err := d.awaitOffers(ctx); err != nil {
		return err
	}
	for i, n := range d.nodes {
		d.report.Nodes = append(d.report.Nodes, NodeReport{Name: nodeName(i), Peer: n.Status.PeerID, Region: regions[i%len(regions)], PID: n.PID()})
	}
	d.say("%d nodes started and found each other in %s", d.Nodes, since(began))
	return nil
}

func (d *run) startNode(ctx context.Context, i int, peers []string) (*localnet.Node, error) {
	n, err := localnet.Start(ctx, localnet.Options{
		Binary: d.Binary,
		Home:   filepath.Join(d.dir, nodeName(i)),
		Region: regions[i%len(regions)],
		// Each node gives little: five of them share one machine.
		Provide: "cpu=1,memory=1GiB,disk=1GiB",
		// One machine compiles a program once, whatever runs on it.
		Modules: filepath.Join(d.dir, "modules"),
		Peers:   peers,
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", nodeName(i), err)
	}
	return n, nil
}

// offersTime is how long the nodes' offers may take to reach the first node.
const offersTime = 30 * time.Second

// awaitOffers waits until the first node knows what all of them offer.
func (d *run) awaitOffers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, offersTime)
	defer cancel()
	for {
		offers, err := d.nodes[0].Client.Providers(ctx, "")
		if err != nil {
			return fmt.Errorf("the nodes did not all find each other: %w", err)
		}
		if len(offers) >= d.Nodes {
			return nil
		}
		select {
		case <-ctx.Done():
			return perigee.E("demo.Run", perigee.Timeout, "%s knows the offers of %d of %d nodes after %s", nodeName(0), len(offers), d.Nodes, offersTime)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// publish spreads the tables over the nodes, indexes them where they lie, and
// makes one dataset of them: the first node publishes, the others join.
func (d *run) publish(ctx context.Context) error {
	dirs := make([]string, d.Nodes)
	for i := range dirs {
		dirs[i] = filepath.Join(d.dir, "data", nodeName(i))
		if err := os.MkdirAll(dirs[i], 0o755); err != nil {
			return err
		}
	}
	var err error
	if d.input, err = spread(dirs); err != nil {
		return err
	}
	began := time.Now()
	parts := make([][]client.DatasetRoot, d.Nodes)
	for i, n := range d.nodes {
		entries, err := os.ReadDir(dirs[i])
		if err != nil {
			return err
		}
		if len(entries) == 0 {
			continue
		}
		added, err := n.Client.AddPath(ctx, dirs[i], client.AddOptions{InPlace: true, Name: "flights of " + nodeName(i)}, nil)
		if err != nil {
			return fmt.Errorf("%s cannot index its data: %w", nodeName(i), n.Failure(err))
		}
		parts[i] = []client.DatasetRoot{{Path: "", CID: added.CID}}
		d.report.Nodes[i].Held = added.Size
		d.report.Nodes[i].Tables = len(entries)
	}
	set, err := d.nodes[0].Client.Publish(ctx, client.PublishRequest{Name: datasetName, Parts: parts[0], Join: "any"})
	if err != nil {
		return fmt.Errorf("%s cannot publish the dataset: %w", nodeName(0), err)
	}
	for i, n := range d.nodes[1:] {
		if parts[i+1] == nil {
			continue
		}
		if _, err := n.Client.Join(ctx, string(set.Owner), datasetName, client.JoinRequest{Parts: parts[i+1]}); err != nil {
			return fmt.Errorf("%s cannot join the dataset: %w", nodeName(i+1), err)
		}
	}
	d.report.Input, d.report.Tables, d.report.Flights = d.input, len(Tables()), flightCount
	d.report.Dataset = string(set.Owner) + "/" + datasetName
	d.say("%s flights, %s in %d tables, indexed where they lie and published in %s",
		thousands(flightCount), bytesText(d.input), len(Tables()), since(began))
	return nil
}

// flightCount is how many flights Tables hold in all.
const flightCount = 1_000_000
