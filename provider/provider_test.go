package provider_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/data"
	"github.com/perigee-network/perigee/db"
	"github.com/perigee-network/perigee/identity"
	"github.com/perigee-network/perigee/provider"
	"github.com/perigee-network/perigee/wasm"
	"github.com/perigee-network/perigee/wasm/wasmtest"
)

func TestMain(m *testing.M) {
	if wasm.IsWorker() {
		os.Exit(wasm.WorkerMain())
	}
	os.Exit(m.Run())
}

// host is a provider over real stores and a real engine, and a requester's key.
type host struct {
	t        *testing.T
	db       db.DB
	store    *data.Store
	engine   *wasm.Engine
	key, ask *identity.Key
	*provider.Provider
}

func newHost(t *testing.T) *host {
	h := &host{t: t, db: db.Memory()}
	var err error
	h.key, err = identity.Generate()
	require.NoError(t, err)
	h.ask, err = identity.Generate()
	require.NoError(t, err)
	h.store, err = data.Open(t.Context(), data.Config{Dir: t.TempDir(), DB: h.db})
	require.NoError(t, err)
	t.Cleanup(func() { h.store.Close() })
	h.engine, err = wasm.New(wasm.Config{CacheDir: wasmtest.CacheDir(t), ScratchDir: t.TempDir(), Workers: 2})
	require.NoError(t, err)
	t.Cleanup(func() { h.engine.Close() })
	h.open()
	t.Cleanup(func() { h.Provider.Close() })
	return h
}

func (h *host) open() {
	var err error
	h.Provider, err = provider.New(provider.Config{Peer: h.key.Peer(), Account: h.key.Account(), Sign: h.key.Sign, DB: h.db,
		Data: h.store, Engine: h.engine, Region: "EU/DE", Resources: provider.Resources{CPU: 2, Memory: 1 << 30, Disk: 1 << 30}})
	require.NoError(h.t, err)
}

func (h *host) part(program string, args ...string) perigee.Part {
	a, err := h.store.AddPath(h.t.Context(), wasmtest.C(h.t, program), data.AddOptions{})
	require.NoError(h.t, err)
	return perigee.Part{Engine: wasm.Version, Module: a.CID, Args: args, Workdir: "/",
		Limits: perigee.Limits{Memory: 64 << 20, Fuel: 1e15, Disk: 1 << 20, Files: 10}}
}

// lease makes a lease of the requester over parts, signed.
func (h *host) lease(id string, parts ...perigee.Part) *perigee.Lease {
	l := &perigee.Lease{ID: id, Requester: h.ask.Peer(), Provider: h.key.Peer(), Job: "j", Created: time.Now().UnixMilli(),
		CPU: 1, Timeout: 60_000, Retention: 3_600_000}
	for i, p := range parts {
		l.Executions = append(l.Executions, perigee.LeasedExecution{ID: id + "-" + string(rune('a'+i)), Part: p})
	}
	require.NoError(h.t, perigee.Sign(l, h.ask.Sign))
	return l
}

// ends watches until every execution named is final and returns the last events.
func (h *host) ends(ids ...string) map[string]*perigee.Event {
	got := map[string]*perigee.Event{}
	ctx, cancel := context.WithTimeout(h.t.Context(), 30*time.Second)
	defer cancel()
	done := errors.New("done")
	err := h.Watch(ctx, h.ask.Peer(), &perigee.WatchRequest{Executions: ids}, func(ev *perigee.Event) error {
		if ev.Kind == perigee.EventState && ev.State.Final() {
			got[ev.Execution] = ev
		}
		if len(got) == len(ids) {
			return done
		}
		return nil
	})
	require.ErrorIs(h.t, err, done)
	return got
}

func TestRunsALeaseAndSignsAReceipt(t *testing.T) {
	h := newHost(t)
	l := h.lease("l1", h.part("hello"))
	answer := h.Accept(t.Context(), h.ask.Peer(), l)
	require.Nil(t, answer.Refusal)
	msg, err := perigee.SignedBytes(l)
	require.NoError(t, err)
	require.True(t, ed25519.Verify(h.key.Public(), msg, answer.Signature), "the answer is the provider's signature over the lease")
	ev := h.ends("l1-a")["l1-a"]
	require.Equal(t, perigee.ExecCompleted, ev.State, "%+v", ev.Fault)
	rc := new(perigee.Receipt)
	require.NoError(t, perigee.Decode(ev.Receipt, rc))
	require.NoError(t, rc.Check())
	require.Equal(t, h.ask.Peer(), rc.Requester)
	require.NotEmpty(t, ev.Output, "a small output travels with the event")

	again := h.Accept(t.Context(), h.ask.Peer(), l)
	require.Equal(t, answer, again, "accepting a lease again changes nothing")
	require.Equal(t, ev.Receipt, h.ends("l1-a")["l1-a"].Receipt)
}

func TestRefusesLeases(t *testing.T) {
	h := newHost(t)
	other, err := identity.Generate()
	require.NoError(t, err)
	good := h.part("hello")
	for name, c := range map[string]struct {
		change func(*perigee.Lease)
		from   perigee.PeerID
		kind   perigee.Kind
	}{
		"another provider's":      {change: func(l *perigee.Lease) { l.Provider = other.Peer() }, kind: perigee.Invalid},
		"sent by somebody else":   {from: other.Peer(), kind: perigee.Refused},
		"another price":           {change: func(l *perigee.Lease) { l.Price = 5 }, kind: perigee.Refused},
		"no executions":           {change: func(l *perigee.Lease) { l.Executions = nil }, kind: perigee.Invalid},
		"a path as ID":            {change: func(l *perigee.Lease) { l.Executions[0].ID = "../x" }, kind: perigee.Invalid},
		"an ID twice":             {change: func(l *perigee.Lease) { l.Executions = append(l.Executions, l.Executions[0]) }, kind: perigee.Invalid},
		"no timeout":              {change: func(l *perigee.Lease) { l.Timeout = 0 }, kind: perigee.Invalid},
		"more memory than there":  {change: func(l *perigee.Lease) { l.Executions[0].Part.Limits.Memory = 2 << 30 }, kind: perigee.Refused},
		"an unknown engine":       {change: func(l *perigee.Lease) { l.Executions[0].Part.Engine = "v8" }, kind: perigee.Unsupported},
		"a part that is no part":  {change: func(l *perigee.Lease) { l.Executions[0].Part.Outputs = []string{"../etc"} }, kind: perigee.Invalid},
		"a module that is no CID": {change: func(l *perigee.Lease) { l.Executions[0].Part.Module = perigee.CID{} }, kind: perigee.Invalid},
	} {
		t.Run(name, func(t *testing.T) {
			l := h.lease("bad", good)
			if c.change != nil {
				c.change(l)
				require.NoError(t, perigee.Sign(l, h.ask.Sign))
			}
			from := h.ask.Peer()
			if c.from != "" {
				from = c.from
			}
			answer := h.Accept(t.Context(), from, l)
			require.NotNil(t, answer.Refusal)
			require.Equal(t, c.kind, answer.Refusal.Kind, answer.Refusal.Message)
			require.Empty(t, answer.Signature)
		})
	}
	forged := h.lease("forged", good)
	forged.Timeout++
	require.Equal(t, perigee.Corrupt, h.Accept(t.Context(), h.ask.Peer(), forged).Refusal.Kind)
	running, queued := h.Running()
	require.Zero(t, running+queued)
}

func TestAcceptedLeasesSurviveARestart(t *testing.T) {
	h := newHost(t)
	var parts []perigee.Part
	for _, n := range []string{"40", "41", "42", "43"} {
		parts = append(parts, h.part("spin", "-n", n))
	}
	require.Nil(t, h.Accept(t.Context(), h.ask.Peer(), h.lease("l", parts...)).Refusal)
	require.NoError(t, h.Provider.Close())
	h.open()
	for id, ev := range h.ends("l-a", "l-b", "l-c", "l-d") {
		require.Equal(t, perigee.ExecCompleted, ev.State, "%s: %+v", id, ev.Fault)
	}
}

func TestCancelAndRelease(t *testing.T) {
	h := newHost(t)
	loop := h.part("evil", "loop")
	require.Nil(t, h.Accept(t.Context(), h.ask.Peer(), h.lease("l", loop, loop, loop)).Refusal)
	stranger, err := identity.Generate()
	require.NoError(t, err)
	require.Zero(t, h.Cancel(t.Context(), stranger.Peer(), &perigee.CancelRequest{Job: "j"}).Count, "another's executions")
	require.Equal(t, 3, h.Cancel(t.Context(), h.ask.Peer(), &perigee.CancelRequest{Job: "j"}).Count)
	for id, ev := range h.ends("l-a", "l-b", "l-c") {
		require.Equal(t, perigee.ExecCancelled, ev.State, id)
	}
	require.Eventually(t, func() bool { r, q := h.Running(); return r+q == 0 }, 10*time.Second, 10*time.Millisecond)

	require.Nil(t, h.Accept(t.Context(), h.ask.Peer(), h.lease("m", h.part("hello"))).Refusal)
	require.Equal(t, perigee.ExecCompleted, h.ends("m-a")["m-a"].State)
	h.Cancel(t.Context(), h.ask.Peer(), &perigee.CancelRequest{Job: "j", Executions: []string{"m-a"}, Release: true})
	require.Equal(t, perigee.ExecLost, h.ends("m-a")["m-a"].State, "a released result is forgotten")
}

func TestFailureCarriesWhatWasPrinted(t *testing.T) {
	h := newHost(t)
	p := h.part("evil", "memory", "1000000000")
	p.Limits.Memory = 16 << 20
	require.Nil(t, h.Accept(t.Context(), h.ask.Peer(), h.lease("l", p)).Refusal)
	ev := h.ends("l-a")["l-a"]
	require.Equal(t, perigee.ExecFailed, ev.State)
	require.Equal(t, perigee.Exhausted, ev.Fault.Kind)
	require.NotEmpty(t, ev.Output)
	require.Empty(t, ev.Receipt)
}

func TestBidTellsLocalBytesAndRefusals(t *testing.T) {
	h := newHost(t)
	path := filepath.Join(t.TempDir(), "data")
	require.NoError(t, os.WriteFile(path, make([]byte, 3<<20), 0o644))
	here, err := h.store.AddPath(t.Context(), path, data.AddOptions{InPlace: true})
	require.NoError(t, err)
	there := perigee.SumCID(perigee.CodecRaw, []byte("elsewhere"))
	req := &perigee.BidRequest{Requester: h.ask.Peer(), Job: "j", Engine: wasm.Version, CPU: 1, Limits: perigee.Limits{Memory: 512 << 20},
		Parts: []perigee.PartAsk{{Index: 4, Inputs: []perigee.PartInput{{Mount: "/in", CID: here.CID, Size: here.Size}}},
			{Index: 5, Inputs: []perigee.PartInput{{Mount: "/in", CID: there, Size: 9}}}}}
	bid, err := h.Bid(t.Context(), h.ask.Peer(), req)
	require.NoError(t, err)
	require.NoError(t, perigee.CheckSignature(bid))
	require.Equal(t, []perigee.PartLocal{{Index: 4, Bytes: 3 << 20}}, bid.Local)
	require.Equal(t, 2, bid.Slots)
	req.Limits.Memory = 3 << 30
	bid, err = h.Bid(t.Context(), h.ask.Peer(), req)
	require.NoError(t, err)
	require.Equal(t, perigee.Refused, bid.Refusal.Kind)
	require.Contains(t, bid.Refusal.Message, "1GiB")
}

func TestResultsAndLeasesAreForgottenInTime(t *testing.T) {
	h := newHost(t)
	require.Nil(t, h.Accept(t.Context(), h.ask.Peer(), h.lease("l", h.part("hello"))).Refusal)
	require.Equal(t, perigee.ExecCompleted, h.ends("l-a")["l-a"].State)
	pins := func() (n int) {
		list, err := h.store.Pins(t.Context())
		require.NoError(t, err)
		for _, p := range list {
			if p.Owner != data.OwnerUser {
				n++
			}
		}
		return n
	}
	rows := func() (n int) {
		require.NoError(t, h.db.Scan([]byte("prov/"), nil, func(_, _ []byte) error { n++; return nil }))
		return n
	}
	require.NoError(t, h.Expire(time.Now().Add(30*time.Minute)))
	require.Equal(t, 1, pins(), "kept for the hour that the lease asks")
	require.NoError(t, h.Expire(time.Now().Add(2*time.Hour)))
	require.Zero(t, pins())
	require.Equal(t, perigee.ExecLost, h.ends("l-a")["l-a"].State)
	require.NoError(t, h.Expire(time.Now().Add(60*24*time.Hour)))
	require.Zero(t, rows(), "nothing stays for ever")
}
