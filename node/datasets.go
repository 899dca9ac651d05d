package node

import (
	"context"
	"path"
	"time"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/client"
)

type datasetsAPI struct{ n *Node }

func (a datasetsAPI) Publish(ctx context.Context, req client.PublishRequest) (perigee.Dataset, error) {
	parts, err := a.parts(ctx, req.Parts)
	if err != nil {
		return perigee.Dataset{}, err
	}
	return a.n.publish(ctx, req.Name, parts, req.Join)
}

func (a datasetsAPI) List(ctx context.Context) ([]client.DatasetSummary, error) {
	sets, err := a.n.datasetList(ctx)
	list := []client.DatasetSummary{}
	for _, d := range sets {
		s := client.DatasetSummary{Owner: d.Owner, Name: d.Name, Sequence: d.Sequence, Created: time.UnixMilli(d.Created),
			Parts: len(d.Parts), Join: d.Join}
		holders := map[perigee.PeerID]bool{}
		for _, p := range d.Parts {
			s.Size += p.Size
			for _, h := range p.Holders {
				holders[h] = true
			}
		}
		s.Holders = len(holders)
		list = append(list, s)
	}
	return list, err
}

func (a datasetsAPI) Show(ctx context.Context, owner, name string) (perigee.Dataset, error) {
	d, err := a.n.data.LookupDataset(ctx, owner+"/"+name)
	if err != nil {
		return perigee.Dataset{}, err
	}
	return *d, nil
}

func (a datasetsAPI) Join(ctx context.Context, owner, name string, roots []client.DatasetRoot) (perigee.Dataset, error) {
	parts, err := a.parts(ctx, roots)
	if err != nil {
		return perigee.Dataset{}, err
	}
	return a.n.joinDataset(ctx, owner+"/"+name, parts)
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
		if info.Kind == perigee.KindFile {
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
