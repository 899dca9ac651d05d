package requester_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/data"
	"github.com/perigee-network/perigee/db"
	"github.com/perigee-network/perigee/identity"
	"github.com/perigee-network/perigee/provider"
	"github.com/perigee-network/perigee/requester"
	"github.com/perigee-network/perigee/wasm"
	"github.com/perigee-network/perigee/wasm/wasmtest"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "worker" {
		os.Exit(wasm.WorkerMain())
	}
	os.Exit(m.Run())
}

// bench is one node's requester and provider over real stores, without network.
type bench struct {
	t        testing.TB
	db       db.DB
	store    *data.Store
	key      *identity.Key
	offers   *requester.Offers
	provider *provider.Provider
	*requester.Requester
}

// self is the provider as its own node talks to it.
type self struct {
	p  *provider.Provider
	id perigee.PeerID
}

func (s self) Bid(ctx context.Context, req *perigee.BidRequest) (*perigee.Bid, error) {
	return s.p.Bid(ctx, s.id, req)
}
func (s self) Lease(ctx context.Context, l *perigee.Lease) (*perigee.LeaseAnswer, error) {
	return s.p.Accept(ctx, s.id, l), nil
}
func (s self) Watch(ctx context.Context, req *perigee.WatchRequest, fn func(*perigee.Event) error) error {
	return s.p.Watch(ctx, s.id, req, fn)
}
func (s self) Cancel(ctx context.Context, req *perigee.CancelRequest) (*perigee.CancelAnswer, error) {
	return s.p.Cancel(ctx, s.id, req), nil
}

// offline is a store without named datasets.
type offline struct{ *data.Store }

func (offline) LookupDataset(_ context.Context, name string) (*perigee.Dataset, error) {
	return nil, perigee.E("test", perigee.NotFound, "no dataset %s", name)
}

func newBench(t testing.TB) *bench {
	b := &bench{t: t, db: db.Memory(), offers: requester.NewOffers()}
	var err error
	b.key, err = identity.Generate()
	require.NoError(t, err)
	b.store, err = data.Open(t.Context(), data.Config{Dir: t.TempDir(), DB: b.db})
	require.NoError(t, err)
	t.Cleanup(func() { b.store.Close() })
	engine, err := wasm.New(wasm.Config{CacheDir: t.TempDir(), Workers: 2})
	require.NoError(t, err)
	t.Cleanup(func() { engine.Close() })
	b.provider, err = provider.New(provider.Config{Peer: b.key.Peer(), Account: b.key.Account(), Sign: b.key.Sign, DB: b.db,
		Data: b.store, Engine: engine, Region: "EU/DE", Resources: provider.Resources{CPU: 2, Memory: 2 << 30, Disk: 4 << 30}})
	require.NoError(t, err)
	t.Cleanup(func() { b.provider.Close() })
	offer, err := b.provider.Offer(nil, perigee.Version)
	require.NoError(t, err)
	_, err = b.offers.Put(offer)
	require.NoError(t, err)
	b.open()
	t.Cleanup(func() { b.Requester.Close() })
	return b
}

// open makes the requester over what the database holds.
func (b *bench) open() {
	var err error
	b.Requester, err = requester.New(requester.Config{Peer: b.key.Peer(), Sign: b.key.Sign, DB: b.db, Data: offline{b.store},
		Offers: b.offers, Engine: wasm.Version, PlaceTimeout: 2 * time.Second, FindTimeout: 2 * time.Second,
		Dial: func(perigee.PeerID) requester.Provider { return self{b.provider, b.key.Peer()} }})
	require.NoError(b.t, err)
}

// add puts a file or directory into the store.
func (b *bench) add(path string) string {
	a, err := b.store.AddPath(b.t.Context(), path, data.AddOptions{})
	require.NoError(b.t, err)
	return a.CID.String()
}

func (b *bench) run(job perigee.Job) perigee.JobStatus {
	id, err := b.Submit(b.t.Context(), job, "")
	require.NoError(b.t, err)
	return b.wait(id)
}

func (b *bench) wait(id string) perigee.JobStatus {
	ctx, cancel := context.WithTimeout(b.t.Context(), time.Minute)
	defer cancel()
	st, err := b.Wait(ctx, id)
	require.NoError(b.t, err)
	return st
}

func files(t testing.TB, n int) string {
	dir := t.TempDir()
	for i := range n {
		name := filepath.Join(dir, "f"+string(rune('a'+i)))
		require.NoError(t, os.WriteFile(name, []byte(strings.Repeat(name, 10)), 0o644))
	}
	return dir
}

func (b *bench) spinJob(n int) perigee.Job {
	return perigee.Job{Wasm: &perigee.Wasm{Module: b.add(wasmtest.C(b.t, "spin")), Args: []string{"/in"}},
		Inputs: []perigee.Input{{Source: b.add(files(b.t, n)), Split: "file"}}}
}

func TestSubmitIsIdempotentUnderAKey(t *testing.T) {
	b := newBench(t)
	job := b.spinJob(1)
	first, err := b.Submit(t.Context(), job, "k")
	require.NoError(t, err)
	again, err := b.Submit(t.Context(), job, "k")
	require.NoError(t, err)
	require.Equal(t, first, again)
	job.Name = "another"
	_, err = b.Submit(t.Context(), job, "k")
	require.ErrorIs(t, err, perigee.Invalid)
	require.Equal(t, perigee.JobCompleted, b.wait(first).State)
}

func TestCompletesAndReuses(t *testing.T) {
	b := newBench(t)
	job := b.spinJob(3)
	st := b.run(job)
	require.Equal(t, perigee.JobCompleted, st.State, "%+v", st.Error)
	require.Equal(t, 3, st.Done)
	again := b.run(job)
	require.Equal(t, 3, again.Reused)
	require.Equal(t, st.Output, again.Output)
	job.Reuse = "off"
	require.Zero(t, b.run(job).Reused)
}

func TestJobsResumeAfterARestart(t *testing.T) {
	b := newBench(t)
	id, err := b.Submit(t.Context(), b.spinJob(8), "")
	require.NoError(t, err)
	require.NoError(t, b.Requester.Close())
	b.open()
	st := b.wait(id)
	require.Equal(t, perigee.JobCompleted, st.State, "%+v", st.Error)
	accepted := 0
	for _, x := range st.Executions {
		if x.Accepted {
			accepted++
		}
	}
	require.Equal(t, 8, accepted)
}

func TestFailuresSayWhy(t *testing.T) {
	b := newBench(t)
	text := filepath.Join(t.TempDir(), "not.wasm")
	require.NoError(t, os.WriteFile(text, []byte("hello"), 0o644))
	absent := perigee.SumCID(perigee.CodecRaw, []byte("nobody has this")).String()
	hello := b.add(wasmtest.C(t, "hello"))
	for _, c := range []struct {
		name string
		job  perigee.Job
		kind perigee.Kind
		text string
	}{
		{"no module", perigee.Job{Wasm: &perigee.Wasm{Module: b.add(text)}}, perigee.Invalid, "not WebAssembly"},
		{"absent input", perigee.Job{Wasm: &perigee.Wasm{Module: hello}, Inputs: []perigee.Input{{Source: absent}}}, "", absent},
		{"exit code", perigee.Job{Wasm: &perigee.Wasm{Module: b.add(wasmtest.C(t, "exit")), Args: []string{"9"}}}, perigee.Invalid, "exit code 9"},
		{"region", perigee.Job{Wasm: &perigee.Wasm{Module: hello}, Placement: perigee.Placement{Regions: []string{"US"}}}, perigee.Refused, "region"},
		{"memory", perigee.Job{Wasm: &perigee.Wasm{Module: hello}, Resources: perigee.Resources{Memory: 3 << 30}}, perigee.Refused, "GiB"},
		{"replicas", perigee.Job{Wasm: &perigee.Wasm{Module: hello}, Verify: perigee.Verify{Mode: "replicate", Copies: 3, Quorum: 2}}, perigee.Unavailable, "provider"},
	} {
		t.Run(c.name, func(t *testing.T) {
			st := b.run(c.job)
			require.Equal(t, perigee.JobFailed, st.State)
			require.Contains(t, st.Error.Message, c.text)
			if c.kind != "" {
				require.Equal(t, c.kind, st.Error.Kind, st.Error.Message)
			}
		})
	}
}

func TestCancel(t *testing.T) {
	b := newBench(t)
	spin := perigee.Job{Wasm: &perigee.Wasm{Module: b.add(wasmtest.C(t, "evil")), Args: []string{"loop"}}, Resources: perigee.Resources{Fuel: 1e15}}
	id, err := b.Submit(t.Context(), spin, "")
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		st, err := b.Get(t.Context(), id)
		return err == nil && len(st.Executions) == 1 && st.Executions[0].State == perigee.ExecRunning
	}, 20*time.Second, 10*time.Millisecond)
	require.NoError(t, b.Cancel(t.Context(), id))
	require.Equal(t, perigee.JobCancelled, b.wait(id).State)
	require.Eventually(t, func() bool { running, queued := b.provider.Running(); return running+queued == 0 }, 10*time.Second, 10*time.Millisecond)
}

func TestLogsAreWhole(t *testing.T) {
	b := newBench(t)
	job := b.spinJob(4)
	job.StreamLogs = true
	id, err := b.Submit(t.Context(), job, "")
	require.NoError(t, err)
	got := map[int]string{}
	require.NoError(t, b.Logs(t.Context(), id, true, func(c requester.LogChunk) error {
		if c.Stream == 1 {
			got[c.Part] += string(c.Data)
		}
		return nil
	}))
	require.Len(t, got, 4)
	for i, s := range got {
		require.NotEmpty(t, s, i)
	}
	later := map[int]string{}
	require.NoError(t, b.Logs(t.Context(), id, false, func(c requester.LogChunk) error {
		later[c.Part] += string(c.Data)
		return nil
	}))
	require.Equal(t, got, later)
}

func TestExplainNamesTheRule(t *testing.T) {
	b := newBench(t)
	job := b.spinJob(2)
	x, err := b.Explain(t.Context(), job)
	require.NoError(t, err)
	require.Equal(t, 2, x.Candidates[0].Assigned)
	job.Placement.Exclude = []string{string(b.key.Peer())}
	x, err = b.Explain(t.Context(), job)
	require.NoError(t, err)
	require.Equal(t, "exclude", x.Candidates[0].Rule)
	require.Len(t, x.Unplaced, 2)
}

func TestAuditWithoutAnotherProviderIsWaived(t *testing.T) {
	b := newBench(t)
	job := b.spinJob(2)
	job.Verify.Mode = "audit"
	st := b.run(job)
	require.Equal(t, perigee.JobCompleted, st.State, "%+v", st.Error)
	require.Zero(t, st.Audited)
	require.Len(t, st.Executions, 2)
}

func TestFailedProgramsOutputIsKept(t *testing.T) {
	b := newBench(t)
	id, err := b.Submit(t.Context(), perigee.Job{Wasm: &perigee.Wasm{Module: b.add(wasmtest.C(t, "evil")), Args: []string{"memory", "1000000000"}},
		Resources: perigee.Resources{Memory: 32 << 20}}, "")
	require.NoError(t, err)
	st := b.wait(id)
	require.Equal(t, perigee.JobFailed, st.State)
	require.Equal(t, perigee.Exhausted, st.Error.Kind)
	var stderr string
	require.NoError(t, b.Logs(t.Context(), id, false, func(c requester.LogChunk) error {
		if c.Stream == 2 {
			stderr += string(c.Data)
		}
		return nil
	}))
	require.Contains(t, stderr, "no more after")
}

func TestReuseDemandsNoLessChecking(t *testing.T) {
	b := newBench(t)
	job := b.spinJob(2)
	require.Equal(t, perigee.JobCompleted, b.run(job).State)
	job.Reuse = "audited"
	require.Zero(t, b.run(job).Reused, "nobody else has repeated the results")
	job.Reuse, job.Verify.Mode = "own", "audit"
	require.Zero(t, b.run(job).Reused, "they were taken without any check")
	job.Verify.Mode = "none"
	require.Equal(t, 2, b.run(job).Reused)
}

func TestResultsAreLetGoAfterTheirRetention(t *testing.T) {
	b := newBench(t)
	job := b.spinJob(3)
	job.Merge = &perigee.Wasm{Module: b.add(wasmtest.C(t, "concat"))}
	job.Retention = perigee.Duration(time.Hour)
	require.Equal(t, perigee.JobCompleted, b.run(job).State)
	kept := func() (n int) {
		pins, err := b.store.Pins(t.Context())
		require.NoError(t, err)
		for _, p := range pins {
			if strings.HasPrefix(p.Owner, "job/") {
				n++
			}
		}
		return n
	}
	before := kept()
	require.NotZero(t, before)
	require.NoError(t, b.Expire(time.Now().Add(30*time.Minute)))
	require.Equal(t, before, kept())
	require.NoError(t, b.Expire(time.Now().Add(2*time.Hour)))
	require.Zero(t, kept())
}
