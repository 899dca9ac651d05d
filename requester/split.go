package requester

import (
	"context"
	"maps"
	"path"
	"sort"
	"strings"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/data"
	"github.com/perigee-network/perigee/schedule"
)

// parts resolves a job's module and inputs and divides it. The hints say who
// holds what it found. It reads metadata only, and asks other nodes for it
// where it must, no longer than FindTimeout.
func (r *Requester) parts(ctx context.Context, job *perigee.Job) ([]*partRecord, []perigee.HolderHint, error) {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.FindTimeout)
	defer cancel()
	module, err := r.module(ctx, job.Wasm.Module)
	if err != nil {
		return nil, nil, err
	}
	hints := map[perigee.CID][]perigee.PeerID{}
	inputs := make([]schedule.Input, 0, len(job.Inputs))
	for _, in := range job.Inputs {
		x, err := r.input(ctx, in, hints)
		if err != nil {
			return nil, nil, err
		}
		inputs = append(inputs, x)
	}
	specs, err := schedule.Split(inputs)
	if err != nil {
		return nil, nil, err
	}
	limits := limitsOf(job)
	list := make([]*partRecord, len(specs))
	for i, s := range specs {
		env := maps.Clone(job.Wasm.Env)
		if len(s.Env) > 0 {
			if env == nil {
				env = map[string]string{}
			}
			maps.Copy(env, s.Env)
		}
		list[i] = &partRecord{Index: i, Label: s.Label, Part: perigee.Part{
			Engine: r.cfg.Engine, Module: module, Args: job.Wasm.Args, Env: env, Workdir: job.Wasm.Workdir,
			Inputs: s.Inputs, Outputs: job.Outputs, Limits: limits,
		}}
	}
	return list, hintList(hints), nil
}

func limitsOf(job *perigee.Job) perigee.Limits {
	return perigee.Limits{Memory: int64(job.Resources.Memory), Fuel: int64(job.Resources.Fuel),
		Disk: int64(job.Resources.Disk), Files: int64(job.Resources.Files)}
}

// module resolves a job's module, which must be a file that can be found.
func (r *Requester) module(ctx context.Context, source string) (perigee.CID, error) {
	c, err := r.cfg.Data.Resolve(ctx, source)
	if err != nil {
		return c, perigee.E("requester.Split", kindOr(err, perigee.NotFound), err, "module %s", source)
	}
	info, err := r.cfg.Data.Stat(ctx, c)
	if err != nil {
		return c, perigee.E("requester.Split", kindOr(err, perigee.NotFound), err, "module %s", source)
	}
	if info.Kind != "file" {
		return c, perigee.E("requester.Split", perigee.Invalid, "module %s is a directory; name the .wasm file", source)
	}
	return c, nil
}

// kindOr keeps err's kind, but tells a passed deadline as other: to look for
// something until FindTimeout is not to find it.
func kindOr(err error, other perigee.Kind) perigee.Kind {
	if k := perigee.KindOf(err); k != perigee.Timeout {
		return k
	}
	return other
}

// input resolves one input; it adds the holders it learns of to hints.
func (r *Requester) input(ctx context.Context, in perigee.Input, hints map[perigee.CID][]perigee.PeerID) (schedule.Input, error) {
	out := schedule.Input{Mount: in.Mount}
	var err error
	if out.Split, err = schedule.ParseSplit(in.Split); err != nil {
		return out, err
	}
	if in.Source == "" { // a split by count needs no data
		return out, nil
	}
	if owner, _, ok := strings.Cut(in.Source, "/"); ok && owner != "" {
		if _, err := perigee.ParseCID(owner); err != nil {
			return r.datasetInput(ctx, in, out, hints)
		}
	}
	if out.CID, err = r.cfg.Data.Resolve(ctx, in.Source); err != nil {
		return out, perigee.E("requester.Split", kindOr(err, perigee.NotFound), err, "input %s", in.Source)
	}
	info, err := r.cfg.Data.Stat(ctx, out.CID)
	if err != nil {
		return out, perigee.E("requester.Split", kindOr(err, perigee.NotFound), err, "input %s", in.Source)
	}
	out.Size = info.Size
	var peers []perigee.PeerID
	if info.Local < info.Size {
		peers = r.holders(ctx, out.CID)
	} else {
		peers = []perigee.PeerID{r.cfg.Peer}
	}
	hints[out.CID] = peers
	switch {
	case in.Split == "" || strings.HasPrefix(in.Split, "count="):
	case info.Kind == "file":
		out.Files = []schedule.File{{CID: out.CID, Size: info.Size, Holders: peers}}
	default:
		err = r.cfg.Data.List(ctx, out.CID, func(p string, e perigee.TreeEntry) error {
			if e.Kind == perigee.KindFile {
				out.Files = append(out.Files, schedule.File{Path: p, CID: e.CID, Size: e.Size, Holders: peers})
				hints[e.CID] = peers
			}
			return nil
		})
		if err != nil {
			return out, perigee.E("requester.Split", kindOr(err, perigee.NotFound), err, "listing input %s", in.Source)
		}
	}
	return out, nil
}

// holders finds who holds a root, this node first if it does.
func (r *Requester) holders(ctx context.Context, c perigee.CID) []perigee.PeerID {
	list, err := r.cfg.Data.Holders(ctx, c)
	if err != nil {
		r.cfg.Log.Debug("finding holders", "cid", c, "err", err)
	}
	var peers []perigee.PeerID
	for _, h := range list {
		peers = append(peers, h.Peer)
	}
	return peers
}

// datasetInput resolves OWNER/NAME. Unsplit, the dataset is one directory.
func (r *Requester) datasetInput(ctx context.Context, in perigee.Input, out schedule.Input, hints map[perigee.CID][]perigee.PeerID) (schedule.Input, error) {
	set, err := r.cfg.Data.LookupDataset(ctx, in.Source)
	if err != nil {
		return out, perigee.E("requester.Split", kindOr(err, perigee.NotFound), err, "input %s", in.Source)
	}
	all := map[perigee.PeerID]bool{}
	for _, p := range set.Parts {
		out.Files = append(out.Files, schedule.File{Path: p.Path, CID: p.CID, Size: p.Size, Holders: p.Holders})
		hints[p.CID] = p.Holders
		out.Size += p.Size
		for _, h := range p.Holders {
			all[h] = true
		}
	}
	if in.Split != "" && !strings.HasPrefix(in.Split, "count=") {
		return out, nil
	}
	if out.CID, err = r.directory(ctx, out.Files); err != nil {
		return out, err
	}
	peers := []perigee.PeerID{r.cfg.Peer}
	for h := range all {
		peers = append(peers, h)
	}
	sort.Slice(peers[1:], func(i, j int) bool { return peers[1+i] < peers[1+j] })
	hints[out.CID] = peers
	out.Files = nil
	return out, nil
}

// datasetOwner pins the directories made over whole datasets: metadata only.
const datasetOwner = "dataset"

// directory makes a directory tree over files that may lie elsewhere.
func (r *Requester) directory(ctx context.Context, files []schedule.File) (perigee.CID, error) {
	below := map[string][]data.Named{}
	dirs := map[string]bool{".": true}
	for _, f := range files {
		dir := path.Dir(f.Path)
		below[dir] = append(below[dir], data.Named{Name: path.Base(f.Path), CID: f.CID})
		for d := dir; d != "."; d = path.Dir(d) {
			dirs[d] = true
		}
	}
	order := make([]string, 0, len(dirs))
	for d := range dirs {
		order = append(order, d)
	}
	sort.Slice(order, func(i, j int) bool { // deepest first
		a, b := strings.Count(order[i], "/"), strings.Count(order[j], "/")
		if order[i] == "." || order[j] == "." {
			return order[j] == "." && order[i] != "."
		}
		return a > b || a == b && order[i] < order[j]
	})
	var root perigee.CID
	for _, d := range order {
		c, err := r.cfg.Data.Combine(ctx, below[d], datasetOwner)
		if err != nil {
			return root, err
		}
		if d == "." {
			root = c
			break
		}
		parent := path.Dir(d)
		below[parent] = append(below[parent], data.Named{Name: path.Base(d), CID: c})
	}
	return root, nil
}

func hintList(m map[perigee.CID][]perigee.PeerID) []perigee.HolderHint {
	list := make([]perigee.HolderHint, 0, len(m))
	for c, peers := range m {
		if len(peers) > 0 {
			list = append(list, perigee.HolderHint{CID: c, Peers: peers})
		}
	}
	sort.Slice(list, func(i, j int) bool { return list[i].CID.String() < list[j].CID.String() })
	return list
}
