package api_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net/http/httptest"
	"path"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/api"
	"github.com/perigee-network/perigee/client"
)

// memory is a node in memory: it keeps what it is given and runs jobs by
// answering them, so that the API is tested with something that behaves.
type memory struct {
	mu        sync.Mutex
	files     map[perigee.CID][]byte
	dirs      map[perigee.CID][]perigee.TreeEntry
	blocks    map[perigee.CID][]byte
	pins      map[perigee.CID]string
	jobs      map[string]*perigee.JobStatus
	order     []string
	keys      map[string]string
	logs      map[string][]client.LogChunk
	changed   chan struct{}
	lastJob   perigee.Job
	lastAdd   client.AddOptions
	connected []string
	datasets  map[string]perigee.Dataset
	offers    []perigee.Offer
	fail      error         // answered by everything while set
	slow      chan struct{} // when set, opened files fail after their first bytes until it is closed
	hold      bool          // jobs stay running until finished by the test
	panics    bool
}

func newMemory() *memory {
	return &memory{
		files: map[perigee.CID][]byte{}, dirs: map[perigee.CID][]perigee.TreeEntry{}, blocks: map[perigee.CID][]byte{},
		pins: map[perigee.CID]string{}, jobs: map[string]*perigee.JobStatus{}, keys: map[string]string{},
		logs: map[string][]client.LogChunk{}, changed: make(chan struct{}), datasets: map[string]perigee.Dataset{},
	}
}

const testToken = "a-token-of-the-tests"

// serve returns a server over m.
func serve(m *memory, change ...func(*api.Config)) *api.Server {
	cfg := api.Config{Node: m, Jobs: m, Data: memoryData{m}, Datasets: memorySets{m}, Providers: memoryOffers{m},
		Token: testToken, TokenFile: "/home/x/.perigee/token", Heartbeat: 20 * time.Millisecond, Stall: 5 * time.Second,
		Log: slog.New(slog.DiscardHandler)}
	for _, fn := range change {
		fn(&cfg)
	}
	return api.New(cfg)
}

// overTCP returns a client of m that sends the token, and the server's URL.
func overTCP(t *testing.T, m *memory, change ...func(*api.Config)) (*client.Client, string) {
	t.Helper()
	srv := httptest.NewServer(serve(m, change...).Handler(false))
	t.Cleanup(srv.Close)
	c, err := client.New(client.Config{URL: srv.URL, Token: testToken})
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c, srv.URL
}

// overSocket returns a client of m over a Unix socket.
func overSocket(t *testing.T, m *memory, change ...func(*api.Config)) *client.Client {
	t.Helper()
	dir := t.TempDir()
	socket := path.Join(dir, client.SocketFile)
	l, err := client.ListenSocket(socket)
	require.NoError(t, err)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- serve(m, change...).Serve(ctx, l, true) }()
	t.Cleanup(func() { stop(); require.NoError(t, <-done) })
	c, err := client.FromHome(dir)
	require.NoError(t, err)
	require.True(t, c.Local())
	t.Cleanup(c.Close)
	return c
}

func (m *memory) Status(context.Context) (client.Status, error) {
	if m.panics {
		panic("secret of the panic")
	}
	return client.Status{PeerID: "12D3KooWfake", Account: "z6MkFake", Version: "test", Roles: []string{"requester"}, Peers: 1}, m.fail
}

func (m *memory) Peers(context.Context) ([]client.Peer, error) {
	return []client.Peer{{ID: "12D3KooWother", LatencyMS: 1.5, Direction: "outbound"}}, m.fail
}

func (m *memory) Connect(_ context.Context, addr string) error {
	m.connected = append(m.connected, addr)
	return m.fail
}

// Submit runs a job of as many parts as it has inputs, or holds it.
func (m *memory) Submit(_ context.Context, job perigee.Job, key string) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return "", m.fail
	}
	if id, ok := m.keys[key]; ok && key != "" {
		return id, nil
	}
	id := fmt.Sprintf("job-%d", len(m.order)+1)
	m.keys[key], m.lastJob = id, job
	m.order = append(m.order, id)
	m.jobs[id] = &perigee.JobStatus{ID: id, Name: job.Name, State: perigee.JobRunning, Created: time.Now(), Parts: max(1, len(job.Inputs)), Executions: []perigee.ExecutionStatus{}}
	if !m.hold {
		m.finish(id)
	}
	return id, nil
}

// finish completes a job; mu is held.
func (m *memory) finish(id string) {
	st := m.jobs[id]
	now := time.Now()
	out := perigee.SumCID(perigee.CodecRaw, []byte(id))
	st.State, st.Done, st.Finished, st.Output = perigee.JobCompleted, st.Parts, &now, out
	for i := range st.Parts {
		st.Executions = append(st.Executions, perigee.ExecutionStatus{ID: fmt.Sprintf("e%d", i), Part: i, State: perigee.ExecCompleted, Accepted: true, Output: out})
	}
	m.notify()
}

func (m *memory) notify() {
	close(m.changed)
	m.changed = make(chan struct{})
}

func (m *memory) Get(_ context.Context, id string) (perigee.JobStatus, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if st, ok := m.jobs[id]; ok {
		return *st, m.fail
	}
	return perigee.JobStatus{}, perigee.E("memory.Get", perigee.NotFound, "there is no job %s", id)
}

func (m *memory) List(_ context.Context, limit int) ([]perigee.JobStatus, error) {
	list := []perigee.JobStatus{}
	for i := len(m.order) - 1; i >= 0 && len(list) < limit; i-- {
		st := *m.jobs[m.order[i]]
		st.Executions = nil
		list = append(list, st)
	}
	return list, m.fail
}

func (m *memory) Cancel(_ context.Context, id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	st, ok := m.jobs[id]
	if !ok {
		return perigee.E("memory.Cancel", perigee.NotFound, "there is no job %s", id)
	}
	if !st.State.Final() {
		st.State = perigee.JobCancelled
		m.notify()
	}
	return nil
}

func (m *memory) Wait(ctx context.Context, id string) (perigee.JobStatus, error) {
	var last perigee.JobStatus
	err := m.Watch(ctx, id, func(st perigee.JobStatus) error { last = st; return nil })
	return last, err
}

func (m *memory) Watch(ctx context.Context, id string, fn func(perigee.JobStatus) error) error {
	for {
		m.mu.Lock()
		changed := m.changed
		m.mu.Unlock()
		st, err := m.Get(ctx, id)
		if err != nil {
			return err
		}
		if err := fn(st); err != nil || st.State.Final() {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

func (m *memory) Logs(ctx context.Context, id string, follow bool, fn func(client.LogChunk) error) error {
	told := 0
	for {
		m.mu.Lock()
		chunks, changed := m.logs[id][told:], m.changed
		m.mu.Unlock()
		st, err := m.Get(ctx, id)
		if err != nil {
			return err
		}
		for _, c := range chunks {
			if err := fn(c); err != nil {
				return err
			}
			told++
		}
		if !follow || st.State.Final() {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

func (m *memory) Explain(_ context.Context, job perigee.Job) (perigee.Explanation, error) {
	m.lastJob = job
	return perigee.Explanation{Parts: len(job.Inputs), Candidates: []perigee.CandidateReport{}}, m.fail
}

func (m *memory) ExplainJob(ctx context.Context, id string) (perigee.Explanation, error) {
	if _, err := m.Get(ctx, id); err != nil {
		return perigee.Explanation{}, err
	}
	return perigee.Explanation{Parts: 7}, nil
}

type memoryData struct{ m *memory }

func (d memoryData) put(b []byte) perigee.CID {
	c := perigee.SumCID(perigee.CodecRaw, b)
	d.m.mu.Lock()
	defer d.m.mu.Unlock()
	d.m.files[c], d.m.pins[c] = b, "user"
	return c
}

func (d memoryData) putDir(list []perigee.TreeEntry) perigee.CID {
	sort.Slice(list, func(i, j int) bool { return list[i].Name < list[j].Name })
	c := perigee.SumCID(perigee.CodecDagPB, []byte(fmt.Sprint(list)))
	d.m.mu.Lock()
	defer d.m.mu.Unlock()
	d.m.dirs[c] = list
	return c
}

func (d memoryData) AddPath(_ context.Context, p string, o client.AddOptions, progress api.ProgressFunc) (client.Added, error) {
	d.m.lastAdd = o
	if progress != nil {
		progress(1, 2)
		progress(2, 2)
	}
	if d.m.fail != nil {
		return client.Added{}, d.m.fail
	}
	return client.Added{CID: d.put([]byte(p)), Size: int64(len(p)), Files: 1}, nil
}

func (d memoryData) AddEntries(_ context.Context, entries iter.Seq2[api.Entry, error], o client.AddOptions) (client.Added, error) {
	d.m.lastAdd = o
	children := map[string][]perigee.TreeEntry{"": nil}
	added := client.Added{}
	for e, err := range entries {
		if err != nil {
			return added, err
		}
		te := perigee.TreeEntry{Name: path.Base(e.Path), Kind: e.Kind, Size: e.Size, Target: e.Target}
		switch e.Kind {
		case perigee.KindFile:
			r, err := e.Open()
			if err != nil {
				return added, err
			}
			b, err := io.ReadAll(r)
			if err != nil {
				return added, perigee.E("memory.AddEntries", perigee.Unavailable, err, "broke off")
			}
			te.CID = d.put(b)
			added.Files++
			added.Size += int64(len(b))
		case perigee.KindDir:
			if _, ok := children[e.Path]; !ok {
				children[e.Path] = nil
			}
			continue
		}
		dir := strings.TrimPrefix(path.Dir(e.Path), ".")
		children[dir] = append(children[dir], te)
	}
	names := make([]string, 0, len(children))
	for n := range children {
		names = append(names, n)
	}
	sort.Sort(sort.Reverse(sort.StringSlice(names))) // children before parents
	for _, n := range names {
		added.CID = d.putDir(children[n])
		if n != "" {
			dir := strings.TrimPrefix(path.Dir(n), ".")
			children[dir] = append(children[dir], perigee.TreeEntry{Name: path.Base(n), Kind: perigee.KindDir, CID: added.CID})
		}
	}
	return added, nil
}

func (d memoryData) AddReader(_ context.Context, r io.Reader, o client.AddOptions) (client.Added, error) {
	d.m.lastAdd = o
	b, err := io.ReadAll(r)
	if err != nil {
		return client.Added{}, perigee.E("memory.AddReader", perigee.Unavailable, err, "broke off")
	}
	return client.Added{CID: d.put(b), Size: int64(len(b)), Files: 1}, nil
}

func (d memoryData) ImportCAR(_ context.Context, r io.Reader) ([]perigee.CID, error) {
	b, err := io.ReadAll(r)
	return []perigee.CID{d.put(b)}, err
}

func (d memoryData) ExportCAR(_ context.Context, root perigee.CID, w io.Writer) error {
	b, ok := d.m.files[root]
	if !ok {
		return perigee.E("memory.ExportCAR", perigee.NotFound, "no holder of %s answered", root)
	}
	if _, err := w.Write(b); err != nil {
		return err
	}
	return d.m.fail
}

func (d memoryData) Resolve(ctx context.Context, p string) (perigee.CID, error) {
	root, rest, _ := strings.Cut(p, "/")
	c, err := perigee.ParseCID(root)
	for _, name := range strings.Split(rest, "/") {
		list, lerr := d.Ls(ctx, c)
		if lerr != nil {
			return c, lerr
		}
		found := false
		for _, e := range list {
			if e.Name == name {
				c, found = e.CID, true
			}
		}
		if !found {
			return c, perigee.E("memory.Resolve", perigee.NotFound, "there is no %s in %s", name, root)
		}
	}
	return c, err
}

func (d memoryData) Stat(_ context.Context, c perigee.CID) (client.DataInfo, error) {
	if b, ok := d.m.files[c]; ok {
		return client.DataInfo{CID: c, Kind: client.KindFile, Size: int64(len(b)), Files: 1, Local: int64(len(b))}, d.m.fail
	}
	if list, ok := d.m.dirs[c]; ok {
		return client.DataInfo{CID: c, Kind: client.KindDir, Files: int64(len(list))}, nil
	}
	return client.DataInfo{}, perigee.E("memory.Stat", perigee.NotFound, "no holder of %s answered", c)
}

func (d memoryData) Ls(_ context.Context, c perigee.CID) ([]perigee.TreeEntry, error) {
	list, ok := d.m.dirs[c]
	if !ok {
		return nil, perigee.E("memory.Ls", perigee.NotFound, "no directory %s", c)
	}
	return list, d.m.fail
}

// breaking is a file that fails after some bytes.
type breaking struct {
	*bytes.Reader
	left int
	err  error
}

func (b *breaking) Close() error { return nil }
func (b *breaking) Read(p []byte) (int, error) {
	if b.err == nil {
		return b.Reader.Read(p)
	}
	if b.left == 0 {
		return 0, b.err
	}
	n, err := b.Reader.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

func (d memoryData) OpenFile(_ context.Context, c perigee.CID) (io.ReadSeekCloser, error) {
	d.m.mu.Lock()
	defer d.m.mu.Unlock()
	b, ok := d.m.files[c]
	if !ok {
		return nil, perigee.E("memory.OpenFile", perigee.NotFound, "no holder of %s answered", c)
	}
	f := &breaking{Reader: bytes.NewReader(b)}
	if d.m.slow != nil {
		select {
		case <-d.m.slow:
		default:
			f.left, f.err = 100_000, perigee.E("memory", perigee.Unavailable, "the holder went away")
		}
	}
	return f, nil
}

// Fetch finds nothing missing: what is, is told by who reads it.
func (d memoryData) Fetch(context.Context, perigee.CID) error { return nil }

func (d memoryData) GetBlock(_ context.Context, c perigee.CID) ([]byte, error) {
	if b, ok := d.m.blocks[c]; ok {
		return b, nil
	}
	return nil, perigee.E("memory.GetBlock", perigee.NotFound, "no holder of %s answered", c)
}

func (d memoryData) Holders(_ context.Context, _ perigee.CID) ([]client.Holder, error) {
	return []client.Holder{{Peer: "12D3KooWfake", Local: true}}, d.m.fail
}

func (d memoryData) Pin(_ context.Context, c perigee.CID, progress api.ProgressFunc) error {
	if progress != nil {
		progress(5, 10)
	}
	d.m.pins[c] = "user"
	return d.m.fail
}

func (d memoryData) Unpin(_ context.Context, c perigee.CID) error {
	if _, ok := d.m.pins[c]; !ok {
		return perigee.E("memory.Unpin", perigee.NotFound, "%s is not pinned", c)
	}
	delete(d.m.pins, c)
	return nil
}

func (d memoryData) Pins(context.Context) ([]client.Pin, error) {
	list := []client.Pin{}
	for c, owner := range d.m.pins {
		list = append(list, client.Pin{CID: c, Owners: []string{owner}})
	}
	return list, d.m.fail
}

func (d memoryData) Remove(ctx context.Context, c perigee.CID) error { return d.Unpin(ctx, c) }

func (d memoryData) Verify(_ context.Context, c perigee.CID, _ api.ProgressFunc) (client.VerifyReport, error) {
	return client.VerifyReport{CID: c, Blocks: 3, Bytes: 30, OK: true}, d.m.fail
}

func (d memoryData) GC(context.Context) (client.GCReport, error) {
	return client.GCReport{Blocks: 2, Bytes: 20, Kept: 1}, d.m.fail
}

type memorySets struct{ m *memory }

func (s memorySets) Publish(_ context.Context, req client.PublishRequest) (perigee.Dataset, error) {
	d := perigee.Dataset{Owner: testAccount, Name: req.Name, Join: req.Join}
	for _, p := range req.Parts {
		d.Parts = append(d.Parts, perigee.DatasetPart{Path: p.Path, CID: p.CID})
	}
	s.m.datasets[req.Name] = d
	return d, s.m.fail
}

func (s memorySets) List(context.Context) ([]client.DatasetSummary, error) {
	list := []client.DatasetSummary{}
	for _, d := range s.m.datasets {
		list = append(list, client.DatasetSummary{Owner: d.Owner, Name: d.Name, Parts: len(d.Parts)})
	}
	return list, s.m.fail
}

func (s memorySets) Show(_ context.Context, owner, name string) (perigee.Dataset, error) {
	if d, ok := s.m.datasets[name]; ok && string(d.Owner) == owner {
		return d, nil
	}
	return perigee.Dataset{}, perigee.E("memory.Show", perigee.NotFound, "there is no dataset %s/%s", owner, name)
}

func (s memorySets) Join(ctx context.Context, owner, name string, parts []client.DatasetRoot) (perigee.Dataset, error) {
	d, err := s.Show(ctx, owner, name)
	for _, p := range parts {
		d.Parts = append(d.Parts, perigee.DatasetPart{Path: p.Path, CID: p.CID})
	}
	return d, err
}

type memoryOffers struct{ m *memory }

func (o memoryOffers) Offers(context.Context) ([]perigee.Offer, error) { return o.m.offers, o.m.fail }

func (o memoryOffers) OwnOffer(context.Context) (perigee.Offer, error) {
	if len(o.m.offers) == 0 {
		return perigee.Offer{}, perigee.E("memory.OwnOffer", perigee.NotFound, "this node provides nothing")
	}
	return o.m.offers[0], nil
}
