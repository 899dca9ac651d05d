package data

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/db"
	keys "github.com/perigee-network/perigee/identity"
	"github.com/perigee-network/perigee/p2p"
)

// dsWire joins Datasets within the process: messages are encoded and decoded as
// on a real wire, gossip is delivered at once, and nodes may be cut off.
type dsWire struct {
	t     testing.TB
	mu    sync.Mutex
	nodes map[perigee.PeerID]*dsNode
	order []*dsNode
}

type dsNode struct {
	*Datasets
	wire *dsWire
	key  *keys.Key
	id   perigee.PeerID
	db   db.DB
	off  atomic.Bool
	// alter, if set, changes this node's answers.
	alter func(req *datasetRequest, a *datasetAnswer)
}

func dsKey(t testing.TB) *keys.Key {
	t.Helper()
	k, err := keys.Generate()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newDsWire(t testing.TB) *dsWire { return &dsWire{t: t, nodes: map[perigee.PeerID]*dsNode{}} }

// add starts a node; the key serves as account key too.
func (w *dsWire) add(given ...*keys.Key) *dsNode {
	w.t.Helper()
	if len(given) == 0 {
		given = []*keys.Key{dsKey(w.t)}
	}
	n := &dsNode{wire: w, key: given[0], id: dsKey(w.t).Peer(), db: db.Memory()}
	n.open()
	w.mu.Lock()
	w.nodes[n.id] = n
	w.order = append(w.order, n)
	w.mu.Unlock()
	return n
}

func (n *dsNode) open() {
	n.wire.t.Helper()
	var err error
	n.Datasets, err = OpenDatasets(n.wire.t.Context(), DatasetsConfig{DB: n.db, Node: n.id, Account: n.key.Account(),
		Sign: n.key.Sign, Call: n.call, Peers: n.others, Announce: n.gossip})
	if err != nil {
		n.wire.t.Fatal(err)
	}
	n.wire.t.Cleanup(func() { n.Close() })
}

func (n *dsNode) others() []perigee.PeerID {
	n.wire.mu.Lock()
	defer n.wire.mu.Unlock()
	var out []perigee.PeerID
	for id, o := range n.wire.nodes {
		if o != n && !o.off.Load() && !n.off.Load() {
			out = append(out, id)
		}
	}
	return out
}

func (n *dsNode) gossip(_ context.Context, b []byte) error {
	for _, id := range n.others() {
		o := n.wire.nodes[id]
		if o.Validate(n.id, b) == nil {
			o.Deliver(n.id, b)
		}
	}
	return n.Validate(n.id, b) // as gossipsub does with one's own
}

// dsPipe is a stream with one request and one answer.
type dsPipe struct{ in, out []byte }

func (p *dsPipe) Receive(v any) error {
	if p.in == nil {
		return io.EOF
	}
	b := p.in
	p.in = nil
	return perigee.Decode(b, v)
}

func (p *dsPipe) Send(v any) (err error) {
	p.out, err = perigee.Encode(v)
	return err
}

func (n *dsNode) call(ctx context.Context, to perigee.PeerID, proto string, req, resp any) error {
	n.wire.mu.Lock()
	o := n.wire.nodes[to]
	n.wire.mu.Unlock()
	if o == nil || o.off.Load() || n.off.Load() || proto != ProtocolDatasets {
		return perigee.E("test.Call", perigee.Unavailable, "peer %s cannot be reached", to)
	}
	b, err := perigee.Encode(req)
	if err != nil {
		return err
	}
	p := &dsPipe{in: b}
	o.Serve(ctx, n.id, p)
	if o.alter != nil {
		var q datasetRequest
		var a datasetAnswer
		if err := errors.Join(perigee.Decode(b, &q), perigee.Decode(p.out, &a)); err != nil {
			return err
		}
		o.alter(&q, &a)
		if p.out, err = perigee.Encode(&a); err != nil {
			return err
		}
	}
	return perigee.Decode(p.out, resp)
}

func dsPart(path string, size int64, holders ...perigee.PeerID) perigee.DatasetPart {
	return perigee.DatasetPart{Path: path, CID: perigee.SumCID(perigee.CodecRaw, []byte(path)), Size: size, Holders: holders}
}

func dsParts(n int, holder perigee.PeerID) []perigee.DatasetPart {
	parts := make([]perigee.DatasetPart, n)
	for i := range parts {
		parts[i] = dsPart(fmt.Sprintf("d%03d/f%06d.csv", i/1000, i), int64(i), holder)
	}
	return parts
}

func (n *dsNode) publish(name, join string, parts ...perigee.DatasetPart) *perigee.Dataset {
	n.wire.t.Helper()
	set, err := n.Publish(n.wire.t.Context(), name, parts, join)
	if err != nil {
		n.wire.t.Fatal(err)
	}
	return set
}

func (n *dsNode) ref(name string) string { return string(n.key.Account()) + "/" + name }

func dsEventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("waited in vain: " + what)
		}
	}
}

func TestDatasetPublish(t *testing.T) {
	n := newDsWire(t).add()
	one := n.publish("flights", "none", dsPart("b.csv", 2, n.id), dsPart("a.csv", 1, n.id, n.id))
	if one.Sequence != 1 || one.Parts[0].Path != "a.csv" || one.Parts[0].By != n.key.Account() ||
		len(one.Parts[0].Holders) != 1 || one.Join != perigee.JoinNone || one.Node != n.id {
		t.Errorf("%+v", one)
	}
	if err := perigee.CheckSignature(one); err != nil {
		t.Error(err)
	}
	if same := n.publish("flights", "none", dsPart("a.csv", 1, n.id), dsPart("b.csv", 2, n.id)); same.Sequence != 1 {
		t.Errorf("the same again is version %d", same.Sequence)
	}
	two := n.publish("flights", "any", dsPart("a.csv", 1, n.id))
	if two.Sequence != 2 || len(two.Parts) != 1 {
		t.Errorf("%+v", two)
	}
	if other := n.publish("other", "", dsPart("x", 0)); other.Join != perigee.JoinAny {
		t.Errorf("the default is join %q", other.Join)
	}
	n.Close()
	n.open() // a restart
	heads, err := n.ListDatasets(t.Context())
	if err != nil || len(heads) != 2 || heads[0].Name != "flights" || heads[0].Count != 1 || heads[0].Size != 1 ||
		heads[0].Holders != 1 || heads[0].Sequence != 2 {
		t.Errorf("%+v, %v", heads, err)
	}
	for _, ref := range []string{"me/flights", n.ref("flights"), n.ref("flights")[:8] + "/flights"} {
		got, err := n.LookupDataset(t.Context(), ref)
		if err != nil || !sameParts(got.Parts, two.Parts) || perigee.CheckSignature(got) != nil {
			t.Errorf("%s: %+v, %v", ref, got, err)
		}
	}
	chunks := 0
	if err := n.db.Scan([]byte(datasetChunks), nil, func(_, _ []byte) error { chunks++; return nil }); err != nil || chunks != 2 {
		t.Errorf("%d chunks are kept, %v", chunks, err)
	}
}

func TestDatasetBadInput(t *testing.T) {
	n := newDsWire(t).add()
	ok := dsPart("a", 1, n.id)
	long := dsPart(strings.Repeat("x", perigee.MaxDatasetPath+1), 1)
	for _, c := range []struct {
		name, join string
		parts      []perigee.DatasetPart
		text       string
	}{
		{"Flights", "", []perigee.DatasetPart{ok}, "cannot name"},
		{"", "", []perigee.DatasetPart{ok}, "cannot name"},
		{"a/b", "", []perigee.DatasetPart{ok}, "cannot name"},
		{strings.Repeat("a", 64), "", []perigee.DatasetPart{ok}, "cannot name"},
		{"a", "some", []perigee.DatasetPart{ok}, "any or none"},
		{"a", "", nil, "no parts"},
		{"a", "", []perigee.DatasetPart{dsPart("../a", 1)}, "path"},
		{"a", "", []perigee.DatasetPart{dsPart("/a", 1)}, "path"},
		{"a", "", []perigee.DatasetPart{dsPart("a/./b", 1)}, "path"},
		{"a", "", []perigee.DatasetPart{dsPart("a//b", 1)}, "path"},
		{"a", "", []perigee.DatasetPart{dsPart(".", 1)}, "path"},
		{"a", "", []perigee.DatasetPart{dsPart("a\nb", 1)}, "path"},
		{"a", "", []perigee.DatasetPart{dsPart(`a\b`, 1)}, "path"},
		{"a", "", []perigee.DatasetPart{dsPart("a\xff", 1)}, "path"},
		{"a", "", []perigee.DatasetPart{long}, "at most"},
		{"a", "", []perigee.DatasetPart{ok, ok}, "two parts"},
		{"a", "", []perigee.DatasetPart{dsPart("a", 1), dsPart("a-b", 1), dsPart("a/b", 1)}, "directory of"},
		{"a", "", []perigee.DatasetPart{{Path: "a"}}, "no CID"},
		{"a", "", []perigee.DatasetPart{dsPart("a", -1)}, "size"},
		{"a", "", []perigee.DatasetPart{dsPart("a", 1<<60), dsPart("b", 1<<61)}, "size"},
		{"a", "", []perigee.DatasetPart{dsPart("a", 1, "somebody")}, "holder"},
	} {
		if _, err := n.Publish(t.Context(), c.name, c.parts, c.join); !errors.Is(err, perigee.Invalid) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%q %v: kind %s: %v", c.name, c.parts, perigee.KindOf(err), err)
		}
	}
	other := dsKey(t).Account()
	for ref, kind := range map[string]perigee.Kind{
		"flights": perigee.Invalid, "me/": perigee.Invalid, "/x": perigee.Invalid, "me/a/b": perigee.Invalid,
		"z6Mk/x": perigee.Invalid, "you/x": perigee.Invalid, "me/../x": perigee.Invalid,
		"z6Mkzzzzzz/x": perigee.NotFound, "me/none": perigee.NotFound, string(other) + "/x": perigee.NotFound,
	} {
		if _, err := n.LookupDataset(t.Context(), ref); !errors.Is(err, kind) {
			t.Errorf("%s: kind %s: %v", ref, perigee.KindOf(err), err)
		}
	}
}

func TestDatasetSpreads(t *testing.T) {
	w := newDsWire(t)
	a, b, c := w.add(), w.add(), w.add()
	c.off.Store(true)
	set := a.publish("flights", "", dsParts(10, a.id)...)
	dsEventually(t, "the parts at b", func() bool {
		_, err := b.db.Get(chunkKey(set.Owner, set.Name, mustHead(t, b, set).Chunks[0]))
		return err == nil
	})
	a.off.Store(true)
	c.off.Store(false) // c came late, and a is gone
	c.Met(b.id)
	dsEventually(t, "the list at c", func() bool { l, _ := c.ListDatasets(t.Context()); return len(l) == 1 })
	got, err := c.LookupDataset(t.Context(), a.ref("flights"))
	if err != nil || !sameParts(got.Parts, set.Parts) {
		t.Fatal(err)
	}
	if x, err := c.ask(t.Context(), b.id, time.Second, &datasetRequest{Op: opList, Digest: c.digest[:]}); err != nil || !x.Same {
		t.Errorf("equal lists differ: %+v, %v", x, err)
	}
}

func mustHead(t testing.TB, n *dsNode, set *perigee.Dataset) *perigee.DatasetHead {
	t.Helper()
	h, err := n.head(set.Owner, set.Name)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// TestDatasetMetEarly meets a peer that does not serve datasets yet.
func TestDatasetMetEarly(t *testing.T) {
	w := newDsWire(t)
	a, b := w.add(), w.add()
	b.off.Store(true)
	a.publish("x", "", dsPart("a", 1, a.id))
	b.Met(a.id)
	time.Sleep(50 * time.Millisecond)
	b.off.Store(false)
	dsEventually(t, "the list", func() bool { l, _ := b.ListDatasets(t.Context()); return len(l) == 1 })
}

func TestDatasetLookupAsks(t *testing.T) {
	w := newDsWire(t)
	a := w.add()
	a.publish("flights", "", dsParts(3, a.id)...)
	b := w.add()
	if _, err := b.LookupDataset(t.Context(), a.ref("flights")); err != nil {
		t.Error(err)
	}
	_, err := b.LookupDataset(t.Context(), a.ref("nothing"))
	if !errors.Is(err, perigee.NotFound) || !strings.Contains(err.Error(), string(a.id)) {
		t.Errorf("not naming who was asked: %v", err)
	}
	alone := newDsWire(t).add()
	if _, err := alone.LookupDataset(t.Context(), a.ref("flights")); !errors.Is(err, perigee.NotFound) || !strings.Contains(err.Error(), "no peer") {
		t.Error(err)
	}
}

func TestDatasetPrefix(t *testing.T) {
	w := newDsWire(t)
	a := w.add()
	var two []*keys.Key
	for len(two) < 2 { // two accounts that share six characters: z6Mk, and two more
		k := dsKey(t)
		if len(two) == 0 || string(k.Account())[:6] == string(two[0].Account())[:6] {
			two = append(two, k)
		}
	}
	b, c := w.add(two[0]), w.add(two[1])
	b.publish("x", "", dsPart("b", 1, b.id))
	c.publish("y", "", dsPart("c", 1, c.id))
	prefix := string(b.key.Account())[:6]
	for name, want := range map[string]*dsNode{"x": b, "y": c} {
		if got, err := a.LookupDataset(t.Context(), prefix+"/"+name); err != nil || got.Owner != want.key.Account() {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	if _, err := a.LookupDataset(t.Context(), prefix+"/z"); !errors.Is(err, perigee.Invalid) || !strings.Contains(err.Error(), "more characters") {
		t.Errorf("ambiguous: %v", err)
	}
}

func TestDatasetJoin(t *testing.T) {
	w := newDsWire(t)
	a, b, c := w.add(), w.add(), w.add()
	a.publish("open", "", dsPart("a.csv", 1, a.id)) // any by default
	a.publish("closed", "none", dsPart("a.csv", 1, a.id))

	got, err := b.JoinDataset(t.Context(), a.ref("open"), []perigee.DatasetPart{dsPart("b.csv", 2), dsPart("a.csv", 1)})
	if err != nil {
		t.Fatal(err)
	}
	holders := []perigee.PeerID{a.id, b.id}
	slices.Sort(holders)
	if got.Sequence != 2 || len(got.Parts) != 2 || !slices.Equal(got.Parts[0].Holders, holders) ||
		got.Parts[0].By != a.key.Account() || got.Parts[1].By != b.key.Account() || got.Parts[1].Holders[0] != b.id {
		t.Errorf("%+v", got)
	}
	if got, err = b.JoinDataset(t.Context(), a.ref("open"), []perigee.DatasetPart{dsPart("b.csv", 2)}); err != nil || got.Sequence != 2 {
		t.Errorf("the same join again: version %d, %v", got.Sequence, err)
	}
	dsEventually(t, "the new version at c", func() bool {
		s, err := c.LookupDataset(t.Context(), a.ref("open"))
		return err == nil && s.Sequence == 2
	})
	if _, err = b.JoinDataset(t.Context(), a.ref("open"), []perigee.DatasetPart{{Path: "a.csv", CID: dsPart("other", 1).CID, Size: 1}}); !errors.Is(err, perigee.Refused) {
		t.Errorf("other content at a taken path: %v", err)
	}
	if _, err = b.JoinDataset(t.Context(), a.ref("open"), []perigee.DatasetPart{dsPart("b.csv/below", 1)}); !errors.Is(err, perigee.Refused) {
		t.Errorf("a file as directory: %v", err)
	}
	if _, err = b.JoinDataset(t.Context(), a.ref("closed"), []perigee.DatasetPart{dsPart("b.csv", 2)}); !errors.Is(err, perigee.Refused) {
		t.Errorf("closed: %v", err)
	}
	if got, err = a.JoinDataset(t.Context(), "me/closed", []perigee.DatasetPart{dsPart("b.csv", 2)}); err != nil || len(got.Parts) != 2 {
		t.Errorf("joining one's own: %v", err)
	}

	// Published again, it keeps what others brought while it is open.
	if set := a.publish("open", "any", dsPart("c.csv", 3, a.id)); len(set.Parts) != 2 || set.Parts[0].Path != "b.csv" {
		t.Errorf("%+v", set.Parts)
	}
	if set := a.publish("open", "none", dsPart("c.csv", 3, a.id)); len(set.Parts) != 1 || set.Sequence != 4 {
		t.Errorf("%+v", set)
	}

	a.off.Store(true)
	if _, err = b.JoinDataset(t.Context(), a.ref("open"), []perigee.DatasetPart{dsPart("d.csv", 2)}); err == nil {
		t.Error("joined at a node that is gone")
	}
}

// TestDatasetForgedJoin sends joins that no honest node does.
func TestDatasetForgedJoin(t *testing.T) {
	w := newDsWire(t)
	a, b := w.add(), w.add()
	a.publish("open", "", dsPart("a.csv", 1, a.id)) // any by default
	honest := func() *perigee.DatasetJoin {
		p := dsPart("b.csv", 1, b.id)
		p.By = b.key.Account()
		return &perigee.DatasetJoin{Owner: a.key.Account(), Name: "open", Account: b.key.Account(), Node: b.id,
			Created: time.Now().UnixMilli(), Parts: []perigee.DatasetPart{p}}
	}
	for name, c := range map[string]struct {
		change func(j *perigee.DatasetJoin)
		kind   perigee.Kind
	}{
		"nothing":          {func(*perigee.DatasetJoin) {}, ""},
		"another owner":    {func(j *perigee.DatasetJoin) { j.Owner = j.Account }, perigee.Refused},
		"a bad name":       {func(j *perigee.DatasetJoin) { j.Name = "../x" }, perigee.Invalid},
		"an unknown name":  {func(j *perigee.DatasetJoin) { j.Name = "none" }, perigee.NotFound},
		"another node":     {func(j *perigee.DatasetJoin) { j.Node = a.id }, perigee.Refused},
		"another's parts":  {func(j *perigee.DatasetJoin) { j.Parts[0].By = a.key.Account() }, perigee.Invalid},
		"another's claim":  {func(j *perigee.DatasetJoin) { j.Parts[0].Holders = []perigee.PeerID{a.id} }, perigee.Invalid},
		"no parts":         {func(j *perigee.DatasetJoin) { j.Parts = nil }, perigee.Invalid},
		"the future":       {func(j *perigee.DatasetJoin) { j.Created += 1e10 }, perigee.Invalid},
		"an escaping path": {func(j *perigee.DatasetJoin) { j.Parts[0].Path = "../../etc/passwd" }, perigee.Invalid},
		"another's name":   {func(j *perigee.DatasetJoin) { j.Account = a.key.Account(); j.Parts[0].By = j.Account }, perigee.Corrupt},
	} {
		j := honest()
		c.change(j)
		if err := perigee.Sign(j, b.key.Sign); err != nil {
			t.Fatal(err)
		}
		if _, err := b.ask(t.Context(), a.id, time.Second, &datasetRequest{Op: opJoin, Join: j}); perigee.KindOf(err) != c.kind {
			t.Errorf("%s: kind %q: %v", name, perigee.KindOf(err), err)
		}
	}
	busy := 0
	for range 2 * joinBurst {
		j := honest()
		if err := perigee.Sign(j, b.key.Sign); err != nil {
			t.Fatal(err)
		}
		if _, err := b.ask(t.Context(), a.id, time.Second, &datasetRequest{Op: opJoin, Join: j}); errors.Is(err, perigee.Busy) {
			busy++
		}
	}
	if busy < joinBurst/2 {
		t.Errorf("only %d of %d joins at once were too many", busy, 2*joinBurst)
	}
}

func TestDatasetBig(t *testing.T) {
	w := newDsWire(t)
	a, liar, b := w.add(), w.add(), w.add()
	set := a.publish("big", "any", dsParts(20_000, a.id)...)
	if h := mustHead(t, b, set); len(h.Chunks) < 5 || h.Count != 20_000 {
		t.Fatalf("%d chunks of %d parts", len(h.Chunks), h.Count)
	}
	// A peer that gives wrong chunks is passed over.
	liar.alter = func(req *datasetRequest, a *datasetAnswer) {
		if req.Op == opChunk {
			a.Fault, a.Chunk = nil, []byte("\x80")
		}
	}
	if _, err := b.parts(t.Context(), mustHead(t, b, set), liar.id); err != nil {
		t.Fatal(err)
	}
	got, err := b.LookupDataset(t.Context(), a.ref("big"))
	if err != nil || !sameParts(got.Parts, set.Parts) || perigee.CheckSignature(got) != nil {
		t.Fatal(err)
	}
	mine := make([]perigee.DatasetPart, 5000) // more than one join
	for i := range mine {
		mine[i] = dsPart(fmt.Sprintf("mine/%d", i), 1)
	}
	if got, err = b.JoinDataset(t.Context(), a.ref("big"), mine); err != nil || len(got.Parts) != 25_000 {
		t.Fatalf("%d parts, %v", len(got.Parts), err)
	}
	a.off.Store(true)
	c := w.add()
	c.Met(b.id)
	dsEventually(t, "the head at c", func() bool { _, err := c.head(set.Owner, set.Name); return err == nil })
	if got, err := c.LookupDataset(t.Context(), a.ref("big")); err != nil || len(got.Parts) != 25_000 {
		t.Errorf("from a node that is not the owner's: %v", err)
	}
}

// TestDatasetHostileHeads offers heads that no honest owner signs.
func TestDatasetHostileHeads(t *testing.T) {
	w := newDsWire(t)
	a, b := w.add(), w.add()
	b.off.Store(true)
	set := a.publish("x", "", dsPart("a", 1, a.id))
	good := mustHead(t, a, set)
	sign := func(h perigee.DatasetHead) []byte {
		if err := perigee.Sign(&h, a.key.Sign); err != nil {
			t.Fatal(err)
		}
		b, err := perigee.Encode(&h)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	bad := map[string][]byte{"garbage": []byte("hello"), "empty": nil, "long": make([]byte, maxHead+1)}
	for name, change := range map[string]func(h *perigee.DatasetHead){
		"name":      func(h *perigee.DatasetHead) { h.Name = "../x" },
		"sequence":  func(h *perigee.DatasetHead) { h.Sequence = 0 },
		"sequence2": func(h *perigee.DatasetHead) { h.Sequence = 1 << 60 },
		"join":      func(h *perigee.DatasetHead) { h.Join = "all" },
		"no chunks": func(h *perigee.DatasetHead) { h.Chunks = nil },
		"count":     func(h *perigee.DatasetHead) { h.Count = 1 << 40 },
		"raw chunk": func(h *perigee.DatasetHead) { h.Chunks = []perigee.CID{dsPart("x", 1).CID} },
		"node":      func(h *perigee.DatasetHead) { h.Node = "me" },
		"owner":     func(h *perigee.DatasetHead) { h.Owner = b.key.Account() }, // signed by a
	} {
		h := *good
		change(&h)
		bad[name] = sign(h)
	}
	for name, msg := range bad {
		if err := b.Validate(a.id, msg); !errors.Is(err, perigee.Corrupt) {
			t.Errorf("%s: kind %s: %v", name, perigee.KindOf(err), err)
		}
		b.Deliver(a.id, msg)
	}
	if l, _ := b.ListDatasets(t.Context()); len(l) != 0 {
		t.Errorf("kept %+v", l)
	}

	// Of two versions with the same number all nodes keep the same one, in
	// whatever order they hear of them.
	one, two := *good, *good
	two.Created++
	m1, m2 := sign(one), sign(two)
	c := w.add()
	c.off.Store(true)
	for _, m := range [][]byte{m1, m2, m1} {
		b.Deliver(a.id, m)
	}
	for _, m := range [][]byte{m2, m1, m2} {
		c.Deliver(a.id, m)
	}
	if b.digest != c.digest || b.digest == [32]byte{} {
		t.Error("two nodes keep different versions")
	}
	if err := b.Validate(a.id, m1); err == nil || errors.Is(err, perigee.Corrupt) {
		t.Errorf("an old version: %v", err)
	}

	// A head whose parts are not what it says.
	lie := *good
	lie.Sequence, lie.Size = 9, 1000
	if err := perigee.Sign(&lie, a.key.Sign); err != nil {
		t.Fatal(err)
	}
	if _, err := a.accept(&lie, true); err != nil {
		t.Fatal(err)
	}
	if _, err := a.LookupDataset(t.Context(), "me/x"); !errors.Is(err, perigee.Corrupt) {
		t.Errorf("a head that lies about its size: %v", err)
	}
}

func TestDatasetLimitOfOneOwner(t *testing.T) {
	w := newDsWire(t)
	a, b := w.add(), w.add()
	b.off.Store(true)
	for i := range foreignEach + 5 {
		a.publish(fmt.Sprintf("s%d", i), "", dsPart("a", 1, a.id))
	}
	b.off.Store(false)
	b.Met(a.id)
	dsEventually(t, "the list", func() bool { l, _ := b.ListDatasets(t.Context()); return len(l) >= foreignEach })
	a.off.Store(true)
	b.off.Store(true)
	time.Sleep(50 * time.Millisecond)
	if l, _ := b.ListDatasets(t.Context()); len(l) != foreignEach {
		t.Errorf("%d datasets of one owner", len(l))
	}
	a.off.Store(false)
	b.off.Store(false)
	for i := range foreignEach + 5 { // asked for by name, any is found
		if _, err := b.LookupDataset(t.Context(), a.ref(fmt.Sprintf("s%d", i))); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDatasetServeHostile(t *testing.T) {
	a := newDsWire(t).add()
	set := a.publish("x", "", dsPart("a", 1, a.id))
	for name, c := range map[string]struct {
		req  any
		kind perigee.Kind
	}{
		"garbage":         {"hello", perigee.Corrupt},
		"no operation":    {&datasetRequest{Op: "fly", Name: "x"}, perigee.Unsupported},
		"bad name":        {&datasetRequest{Op: opHead, Owner: set.Owner, Name: "../"}, perigee.Invalid},
		"no chunk":        {&datasetRequest{Op: opChunk, Owner: set.Owner, Name: "x"}, perigee.Invalid},
		"another chunk":   {&datasetRequest{Op: opChunk, Owner: set.Owner, Name: "x", Chunk: set.Parts[0].CID}, perigee.NotFound},
		"join of nothing": {&datasetRequest{Op: opJoin}, perigee.Invalid},
	} {
		b, err := perigee.Encode(c.req)
		if err != nil {
			t.Fatal(err)
		}
		p := &dsPipe{in: b}
		a.Serve(t.Context(), a.id, p)
		var got datasetAnswer
		if err := perigee.Decode(p.out, &got); err != nil || got.Fault == nil || got.Fault.Kind != c.kind {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func FuzzDatasetHead(f *testing.F) {
	n := newDsWire(f).add()
	set := n.publish("x", "", dsPart("a", 1, n.id))
	h, chunks, err := set.Split()
	if err != nil {
		f.Fatal(err)
	}
	b, _ := perigee.Encode(h)
	f.Add(b)
	f.Add(chunks[0])
	f.Fuzz(func(t *testing.T, data []byte) {
		if h, err := decodeHead(data); err == nil {
			if again, err := perigee.Encode(h); err != nil || !bytes.Equal(again, data) {
				t.Fatal("a head has two forms")
			}
		} else if perigee.KindOf(err) != perigee.Corrupt {
			t.Fatalf("kind %s: %v", perigee.KindOf(err), err)
		}
		parts, err := perigee.DecodeDatasetChunk(perigee.SumCID(perigee.CodecDagCBOR, data), data)
		if err != nil {
			return
		}
		if perigee.CheckDatasetParts(parts) == nil {
			for _, p := range parts {
				if strings.HasPrefix(p.Path, "/") || slices.Contains(strings.Split(p.Path, "/"), "..") {
					t.Fatalf("path %q", p.Path)
				}
			}
		}
	})
}

func FuzzDatasetRequest(f *testing.F) {
	n := newDsWire(f).add()
	set := n.publish("x", "any", dsPart("a", 1, n.id))
	for _, q := range []datasetRequest{
		{Op: opHead, Owner: set.Owner, Name: "x"}, {Op: opList}, {Op: opChunk, Owner: set.Owner, Name: "x", Chunk: set.Parts[0].CID},
		{Op: opJoin, Join: &perigee.DatasetJoin{Owner: set.Owner, Name: "x", Account: set.Owner, Node: n.id, Parts: set.Parts}},
	} {
		b, _ := perigee.Encode(q)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p := &dsPipe{in: data}
		n.Serve(t.Context(), n.id, p)
		var a datasetAnswer
		if p.out != nil && perigee.Decode(p.out, &a) != nil {
			t.Fatal("an answer that cannot be read")
		}
	})
}

func FuzzParseDatasetName(f *testing.F) {
	for _, s := range []string{"me/flights", "z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp/x", "z6Mk/x", "a/b/c", "/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		owner, name, err := perigee.ParseDatasetName(s)
		if err != nil {
			if !errors.Is(err, perigee.Invalid) {
				t.Fatal(err)
			}
			return
		}
		if owner+"/"+name != s || !perigee.ValidDatasetName(name) || strings.Contains(owner, "/") {
			t.Fatalf("%q is %q and %q", s, owner, name)
		}
	})
}

// TestDatasetsOverNetwork runs the whole over real hosts on loopback, wired as
// the comment on Datasets says.
func TestDatasetsOverNetwork(t *testing.T) {
	type node struct {
		net  *p2p.Network
		sets *Datasets
	}
	start := func(peers ...string) node {
		key := dsKey(t)
		net, err := p2p.New(t.Context(), p2p.Config{Key: key, Listen: []string{"/ip4/127.0.0.1/tcp/0"}, Peers: peers})
		if err != nil {
			t.Fatal(err)
		}
		var topic *p2p.Topic
		sets, err := OpenDatasets(t.Context(), DatasetsConfig{DB: db.Memory(), Node: net.ID(), Account: key.Account(), Sign: key.Sign,
			Call: net.Call, Peers: net.Nodes, Router: net,
			Announce: func(ctx context.Context, b []byte) error { return topic.Publish(ctx, b) }})
		if err != nil {
			t.Fatal(err)
		}
		if topic, err = net.Join(TopicDatasets, sets.Validate, sets.Deliver); err != nil {
			t.Fatal(err)
		}
		net.Handle(ProtocolDatasets, func(ctx context.Context, s *p2p.Stream) { sets.Serve(ctx, s.Peer(), s) })
		net.OnPeer(sets.Met)
		t.Cleanup(func() { sets.Close(); net.Close() })
		return node{net, sets}
	}
	a := start()
	if _, err := a.sets.Publish(t.Context(), "early", dsParts(3, a.net.ID()), "any"); err != nil {
		t.Fatal(err)
	}
	b := start(a.net.Addrs()...)
	ref := string(a.sets.cfg.Account) + "/"
	dsEventually(t, "what was published before b came", func() bool {
		l, _ := b.sets.ListDatasets(t.Context())
		return len(l) == 1
	})
	if _, err := a.sets.Publish(t.Context(), "late", dsParts(9000, a.net.ID()), "any"); err != nil {
		t.Fatal(err)
	}
	set, err := b.sets.LookupDataset(t.Context(), ref+"late")
	if err != nil || len(set.Parts) != 9000 {
		t.Fatal(err)
	}
	set, err = b.sets.JoinDataset(t.Context(), ref+"late", []perigee.DatasetPart{dsPart("from-b", 5)})
	if err != nil || len(set.Parts) != 9001 {
		t.Fatal(err)
	}
	dsEventually(t, "the new version at its owner", func() bool {
		set, err := a.sets.LookupDataset(t.Context(), "me/late")
		return err == nil && set.Sequence == 2 && set.Parts[9000].Holders[0] == b.net.ID()
	})
}
