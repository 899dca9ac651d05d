package data

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perigee-network/perigee"
)

// routeTable is a router that several stores share.
type routeTable struct {
	mu sync.Mutex
	m  map[perigee.CID][]perigee.PeerID
}

// router is one store's view of a routeTable.
type router struct {
	t    *routeTable
	self perigee.PeerID
}

func (r router) Provide(_ context.Context, c perigee.CID) error {
	r.t.mu.Lock()
	defer r.t.mu.Unlock()
	r.t.m[c] = append(r.t.m[c], r.self)
	return nil
}

func (r router) FindHolders(_ context.Context, c perigee.CID, _ int) ([]perigee.PeerID, error) {
	r.t.mu.Lock()
	defer r.t.mu.Unlock()
	return append([]perigee.PeerID(nil), r.t.m[c]...), nil
}

func (t *routeTable) on(tb testing.TB) func(*Config) {
	h := newHost(tb)
	return func(c *Config) {
		c.Host, c.Router = h, router{t, perigee.PeerID(h.ID().String())}
	}
}

func TestRouter(t *testing.T) {
	ctx := context.Background()
	table := &routeTable{m: map[perigee.CID][]perigee.PeerID{}}
	holder, to := newStore(t, table.on(t)), newStore(t, table.on(t))
	b := randBytes(60, 3<<20)
	c := mustAdd(t, holder, b)
	require.Eventually(t, func() bool {
		found, _ := holder.cfg.Router.FindHolders(ctx, c, 1)
		return len(found) == 1
	}, 5*time.Second, 5*time.Millisecond, "roots are announced")
	// Known by address, as p2p leaves it, but not connected.
	to.cfg.Host.Peerstore().AddAddrs(holder.cfg.Host.ID(), holder.cfg.Host.Addrs(), time.Hour)
	hs, err := to.Holders(ctx, c)
	require.NoError(t, err)
	require.Equal(t, []Holder{{Peer: idOf(holder), Via: "router"}}, hs)
	_, err = to.Fetch(ctx, perigee.PartInput{CID: c}, nil, nil)
	require.NoError(t, err)
	checkFile(t, to, c, ".", b)
	hs, err = to.Holders(ctx, c)
	require.NoError(t, err)
	require.Len(t, hs, 2)
	_, err = to.GetBlock(ctx, perigee.SumCID(perigee.CodecRaw, []byte("absent")))
	require.ErrorIs(t, err, perigee.Unavailable)
}

// TestLongAnswers makes answers end at their budget again and again.
func TestLongAnswers(t *testing.T) {
	ctx := context.Background()
	files := map[string][]byte{}
	for i := range 40 {
		files[fmt.Sprintf("d%d/e%d/f%d", i%4, i%8, i)] = randBytes(uint64(i), 5000)
	}
	h, to := newStore(t, onHost(t)), newStore(t, onHost(t), func(c *Config) { c.NoBitswap = true })
	h.net.treeBlocks = 3
	join(t, to, h)
	a, err := h.AddPath(ctx, writeTree(t, files), AddOptions{Chunker: "size-1000"})
	require.NoError(t, err)
	_, err = to.Fetch(ctx, perigee.PartInput{CID: a.CID}, []perigee.PeerID{idOf(h)}, nil)
	require.NoError(t, err)
	for name, b := range files {
		checkFile(t, to, a.CID, name, b)
	}
}

// TestFetchTogether fetches one thing many times at once: it comes once.
func TestFetchTogether(t *testing.T) {
	ctx := context.Background()
	b := randBytes(61, 6<<20)
	h, a := holderWith(t, b, AddOptions{})
	to := newStore(t, onHost(t))
	join(t, to, h)
	var mu sync.Mutex
	var total int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			f, err := to.Fetch(ctx, perigee.PartInput{CID: a.CID}, []perigee.PeerID{idOf(h)}, nil)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			total += f.Bytes
			mu.Unlock()
		})
	}
	wg.Wait()
	require.Less(t, total, int64(len(b))+1<<20)
	checkFile(t, to, a.CID, ".", b)
}
