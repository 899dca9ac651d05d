package node

import (
	"context"
	"path"
	"time"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/client"
	"github.com/perigee-network/perigee/data"
	"github.com/perigee-network/perigee/p2p"
)

// openDatasets opens the office of named datasets and connects it to the network.
func (n *Node) openDatasets(ctx context.Context) error {
	var topic *p2p.Topic
	sets, err := data.OpenDatasets(ctx, data.DatasetsConfig{
		DB: n.db, Node: n.ID(), Account: n.Account(), Sign: n.keys.account.Sign,
		Call: n.net.Call, Peers: n.net.Nodes, Router: n.net, Log: n.log,
		Announce: func(ctx context.Context, b []byte) error { return topic.Publish(ctx, b) },
	})
	if err != nil {
		return err
	}
	n.onClose(sets.Close)
	n.datasets = sets
	if topic, err = n.net.Join(data.TopicDatasets, sets.Validate, sets.Deliver); err != nil {
		return err
	}
	n.net.Handle(data.ProtocolDatasets, func(ctx context.Context, s *p2p.Stream) { sets.Serve(ctx, s.Peer(), s) })
	n.net.OnPeer(sets.Met)
	return nil
}

// requesterData is the content store with the named datasets beside it.
type requesterData struct {
	*data.Store
	*data.Datasets
}

type datasetsAPI struct{ n *Node }

func (a datasetsAPI) Publish(ctx context.Context, req client.PublishRequest) (perigee.Dataset, error) {
	parts, err := a.parts(ctx, req.Parts)
	if err != nil {
		return perigee.Dataset{}, err
	}
	return dataset(a.n.datasets.Publish(ctx, req.Name, parts, req.Join))
}

func dataset(d *perigee.Dataset, err error) (perigee.Dataset, error) {
	if err != nil {
		return perigee.Dataset{}, err
	}
	return *d, nil
}

func (a datasetsAPI) List(ctx context.Context) ([]client.DatasetSummary, error) {
	heads, err := a.n.datasets.ListDatasets(ctx)
	list := []client.DatasetSummary{}
	for _, h := range heads {
		list = append(list, client.DatasetSummary{Owner: h.Owner, Name: h.Name, Sequence: h.Sequence,
			Created: time.UnixMilli(h.Created), Parts: h.Count, Size: h.Size, Holders: h.Holders, Join: h.Join})
	}
	return list, err
}

func (a datasetsAPI) Show(ctx context.Context, owner, name string) (perigee.Dataset, error) {
	return dataset(a.n.datasets.LookupDataset(ctx, owner+"/"+name))
}

func (a datasetsAPI) Join(ctx context.Context, owner, name string, roots []client.DatasetRoot) (perigee.Dataset, error) {
	parts, err := a.parts(ctx, roots)
	if err != nil {
		return perigee.Dataset{}, err
	}
	return dataset(a.n.datasets.JoinDataset(ctx, owner+"/"+name, parts))
}

// parts turns roots into a dataset's parts: a directory stands for its files.
// What is named must be here, since this node says that it holds it.
func (a datasetsAPI) parts(ctx context.Context, roots []client.DatasetRoot) ([]perigee.DatasetPart, error) {
	var parts []perigee.DatasetPart
	add := func(p string, c perigee.CID, size int64) {
		parts = append(parts, perigee.DatasetPart{Path: path.Clean(p), CID: c, Size: size,
			Holders: []perigee.PeerID{a.n.ID()}, By: a.n.Account()})
	}
	for _, r := range roots {
		info, err := a.n.data.Stat(ctx, r.CID)
		if err != nil {
			return nil, err
		}
		if info.Local < info.Size {
			return nil, perigee.E("node.Publish", perigee.Invalid, "this node holds %s of the %s of %s; pin it here first: perigee data pin %s",
				perigee.Size(info.Local), perigee.Size(info.Size), r.CID, r.CID)
		}
		if info.Kind == client.KindFile {
			if r.Path == "" {
				return nil, perigee.E("node.Publish", perigee.Invalid, "%s is a file: it needs a path within the dataset", r.CID)
			}
			add(r.Path, r.CID, info.Size)
			continue
		}
		err = a.n.data.List(ctx, r.CID, func(p string, e perigee.TreeEntry) error {
			if e.Kind == perigee.KindFile {
				add(path.Join(r.Path, p), e.CID, e.Size)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	if len(parts) == 0 {
		return nil, perigee.E("node.Publish", perigee.Invalid, "there are no files in what was named: a dataset has at least one part")
	}
	return parts, nil
}
