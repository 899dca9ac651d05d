package node

import (
	"context"
	"errors"
	"io"
	"iter"
	"slices"
	"time"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/api"
	"github.com/perigee-network/perigee/client"
	"github.com/perigee-network/perigee/data"
	"github.com/perigee-network/perigee/requester"
)

// The adapters below translate between the API's words and the packages that
// do the work; they decide nothing.

type nodeAPI struct{ n *Node }

func (a nodeAPI) Status(context.Context) (client.Status, error) { return a.n.status(), nil }

func (a nodeAPI) Peers(context.Context) ([]client.Peer, error) {
	list := []client.Peer{}
	for _, p := range a.n.net.Peers() {
		list = append(list, client.Peer{ID: p.ID, Addrs: p.Addrs, LatencyMS: p.LatencyMS, Direction: p.Direction,
			Relayed: p.Relayed, Version: p.Version})
	}
	return list, nil
}

func (a nodeAPI) Connect(ctx context.Context, addr string) error { return a.n.net.Connect(ctx, addr) }

type jobsAPI struct{ *requester.Requester }

func (a jobsAPI) Logs(ctx context.Context, id string, follow bool, fn func(client.LogChunk) error) error {
	return a.Requester.Logs(ctx, id, follow, func(c requester.LogChunk) error {
		return fn(client.LogChunk{Part: c.Part, Merge: c.Merge, Label: c.Label, Stream: c.Stream, Data: c.Data})
	})
}

type dataAPI struct{ *data.Store }

func addOptions(o client.AddOptions, progress api.ProgressFunc) data.AddOptions {
	return data.AddOptions{InPlace: o.InPlace, Profile: o.Profile, Chunker: o.Chunker, Name: o.Name, Pin: data.OwnerUser, Progress: progress}
}

func added(a data.Added, err error) (client.Added, error) {
	return client.Added{CID: a.CID, Size: a.Size, Files: a.Files, Seconds: a.Seconds}, err
}

func (a dataAPI) AddPath(ctx context.Context, path string, o client.AddOptions, progress api.ProgressFunc) (client.Added, error) {
	return added(a.Store.AddPath(ctx, path, addOptions(o, progress)))
}

func (a dataAPI) AddEntries(ctx context.Context, entries iter.Seq2[api.Entry, error], o client.AddOptions) (client.Added, error) {
	return added(a.Store.AddEntries(ctx, func(yield func(data.Entry, error) bool) {
		for e, err := range entries {
			if !yield(data.Entry{Path: e.Path, Kind: e.Kind, Size: e.Size, Target: e.Target, Open: e.Open}, err) {
				return
			}
		}
	}, addOptions(o, nil)))
}

func (a dataAPI) AddReader(ctx context.Context, r io.Reader, o client.AddOptions) (client.Added, error) {
	return added(a.Store.AddReader(ctx, r, addOptions(o, nil)))
}

func (a dataAPI) ImportCAR(ctx context.Context, r io.Reader) ([]perigee.CID, error) {
	return a.Store.ImportCAR(ctx, r, data.OwnerUser)
}

func (a dataAPI) Stat(ctx context.Context, c perigee.CID) (client.DataInfo, error) {
	i, err := a.Store.Stat(ctx, c)
	return client.DataInfo{CID: i.CID, Kind: i.Kind, Size: i.Size, Files: i.Files, Blocks: i.Blocks, Local: i.Local}, err
}

func (a dataAPI) Holders(ctx context.Context, c perigee.CID) ([]client.Holder, error) {
	found, err := a.Store.Holders(ctx, c)
	list := []client.Holder{}
	for _, h := range found {
		list = append(list, client.Holder{Peer: h.Peer, Local: h.Local})
	}
	return list, err
}

// Pin fetches what is missing before it answers, so that a pin means bytes.
func (a dataAPI) Fetch(ctx context.Context, c perigee.CID) error {
	_, err := a.Store.Fetch(ctx, perigee.PartInput{CID: c}, nil, nil)
	return err
}

func (a dataAPI) Pin(ctx context.Context, c perigee.CID, progress api.ProgressFunc) error {
	release := a.Hold(c)
	defer release()
	_, err := a.Store.Fetch(ctx, perigee.PartInput{CID: c}, nil, func(n int64) {
		if progress != nil {
			progress(n, 0)
		}
	})
	if err != nil {
		return err
	}
	return a.Store.Pin(ctx, c, data.OwnerUser)
}

func (a dataAPI) Unpin(ctx context.Context, c perigee.CID) error {
	return a.Store.Unpin(ctx, c, data.OwnerUser)
}

func (a dataAPI) Pins(ctx context.Context) ([]client.Pin, error) {
	found, err := a.Store.Pins(ctx)
	byCID := map[perigee.CID]int{}
	list := []client.Pin{}
	for _, p := range found {
		i, known := byCID[p.CID]
		if !known {
			i = len(list)
			byCID[p.CID] = i
			list = append(list, client.Pin{CID: p.CID, Size: p.Size})
		}
		list[i].Owners = append(list[i].Owners, p.Owner)
		if p.Name != "" {
			list[i].Name = p.Name
		}
	}
	return list, err
}

func (a dataAPI) Verify(ctx context.Context, c perigee.CID, progress api.ProgressFunc) (client.VerifyReport, error) {
	began := time.Now()
	r, err := a.Store.Verify(ctx, c)
	out := client.VerifyReport{CID: c, Blocks: r.Blocks, Bytes: r.Bytes, OK: r.OK(), Seconds: time.Since(began).Seconds()}
	for _, b := range r.Bad {
		out.Bad = append(out.Bad, client.BadBlock{CID: b.CID, Path: b.Path, Reason: b.Reason})
	}
	return out, err
}

func (a dataAPI) GC(ctx context.Context) (client.GCReport, error) {
	r, err := a.Store.GC(ctx)
	return client.GCReport{Blocks: r.Blocks, Bytes: r.Bytes, Kept: r.Kept}, err
}

type offersAPI struct{ n *Node }

func (a offersAPI) Offers(context.Context) ([]perigee.Offer, error) {
	list := []perigee.Offer{}
	for _, o := range a.n.offers.All() {
		list = append(list, *o)
	}
	return list, nil
}

func (a offersAPI) OwnOffer(context.Context) (perigee.Offer, error) {
	o, err := a.n.offers.Get(a.n.ID())
	if errors.Is(err, perigee.NotFound) {
		return perigee.Offer{}, perigee.E("node.OwnOffer", perigee.NotFound, "this node provides nothing")
	}
	if err != nil {
		return perigee.Offer{}, err
	}
	return *o, nil
}

// withoutQUIC drops the addresses that a private network cannot use: its key
// protects TCP connections only.
func withoutQUIC(addrs []string) []string {
	return slices.DeleteFunc(slices.Clone(addrs), func(a string) bool {
		return slices.Contains(splitAddr(a), "quic-v1") || slices.Contains(splitAddr(a), "webtransport")
	})
}
