package data

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"

	"github.com/perigee-network/perigee"
)

// holderWith makes a store on a host that holds b in place.
func holderWith(t testing.TB, b []byte, o AddOptions) (*Store, Added) {
	s := newStore(t, onHost(t))
	dir := writeTree(t, map[string][]byte{"f": b})
	o.InPlace = true
	a, err := s.AddPath(context.Background(), dir+"/f", o)
	require.NoError(t, err)
	return s, a
}

func TestFetchFromSeveral(t *testing.T) {
	ctx := context.Background()
	b := randBytes(3, 24<<20)
	h1, a := holderWith(t, b, AddOptions{})
	h2, _ := holderWith(t, b, AddOptions{})
	h3, _ := holderWith(t, b, AddOptions{})
	to := newStore(t, onHost(t))
	for _, h := range []*Store{h1, h2, h3} {
		join(t, to, h)
	}
	got, err := to.Fetch(ctx, perigee.PartInput{CID: a.CID, Size: a.Size}, []perigee.PeerID{idOf(h1), idOf(h2), idOf(h3)}, nil)
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(got.From), 2, "several holders share the work: %v", got.From)
	checkFile(t, to, a.CID, ".", b)
}

// badHolder answers requests for blocks with what change makes of each.
func badHolder(t testing.TB, s *Store, change func(st network.Stream, i int, c cid.Cid, b []byte) []byte) {
	s.cfg.Host.SetStreamHandler(Protocol, func(st network.Stream) {
		defer st.Close()
		r, w := bufio.NewReader(st), bufio.NewWriter(st)
		for i := 0; ; {
			q, err := readRequest(r)
			if err != nil {
				return
			}
			for _, c := range q.Want {
				b, err := s.local(c.Cid())
				if err != nil {
					continue
				}
				b = change(st, i, c.Cid(), bytes.Clone(b))
				i++
				if b == nil {
					w.Flush()
					return
				}
				writeFrame(w, c.Cid(), b)
			}
			writeUvarint(w, 0)
			writeMessage(w, trailer{Missing: []uint32{}})
			w.Flush()
		}
	})
}

func TestBadHolders(t *testing.T) {
	ctx := context.Background()
	b := randBytes(4, 12<<20)
	block := make(chan struct{})
	t.Cleanup(func() { close(block) })
	for name, c := range map[string]struct {
		change func(st network.Stream, i int, c cid.Cid, b []byte) []byte
		says   string
	}{
		"corrupt": {func(_ network.Stream, i int, _ cid.Cid, b []byte) []byte {
			if i == 3 {
				b[0] ^= 1
			}
			return b
		}, "sent corrupt data"},
		"stalls": {func(_ network.Stream, i int, _ cid.Cid, b []byte) []byte {
			if i == 3 {
				<-block
			}
			return b
		}, "stalled"},
		"resets": {func(st network.Stream, i int, _ cid.Cid, b []byte) []byte {
			if i == 3 {
				st.Reset()
				return nil
			}
			return b
		}, "failed"},
		"cuts off": {func(st network.Stream, i int, _ cid.Cid, b []byte) []byte {
			if i == 3 {
				return nil
			}
			return b
		}, "failed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bad, a := holderWith(t, b, AddOptions{})
			badHolder(t, bad, c.change)
			bad.net.bs.Close() // it speaks no bitswap either
			in := perigee.PartInput{CID: a.CID, Size: a.Size}

			alone := newStore(t, onHost(t), func(c *Config) { c.Idle, c.NoBitswap = time.Second, true })
			join(t, alone, bad)
			began := time.Now()
			_, err := alone.Fetch(ctx, in, []perigee.PeerID{idOf(bad)}, nil)
			require.ErrorIs(t, err, perigee.Unavailable)
			require.ErrorContains(t, err, c.says)
			require.ErrorContains(t, err, idOf(bad).Short())
			require.Less(t, time.Since(began), 8*time.Second)

			// With a good holder the fetch succeeds in spite of the bad one.
			good, _ := holderWith(t, b, AddOptions{})
			to := newStore(t, onHost(t), func(c *Config) { c.Idle = time.Second })
			join(t, to, bad)
			join(t, to, good)
			_, err = to.Fetch(ctx, in, []perigee.PeerID{idOf(bad), idOf(good)}, nil)
			require.NoError(t, err)
			checkFile(t, to, a.CID, ".", b)

			// What the bad one sent well was kept: the rest completes it.
			join(t, alone, good)
			got, err := alone.Fetch(ctx, in, []perigee.PeerID{idOf(good)}, nil)
			require.NoError(t, err)
			checkFile(t, alone, a.CID, ".", b)
			require.LessOrEqual(t, got.Bytes, a.Size+1<<20)
		})
	}
}

func TestFetchNobody(t *testing.T) {
	ctx := context.Background()
	absent := perigee.SumCID(perigee.CodecRaw, []byte("nobody has this"))
	lonely := newStore(t, onHost(t))
	_, err := lonely.Fetch(ctx, perigee.PartInput{CID: absent}, nil, nil)
	require.ErrorIs(t, err, perigee.Unavailable)
	require.ErrorContains(t, err, "no peer is connected")

	offline := newStore(t)
	_, err = offline.GetBlock(ctx, absent)
	require.ErrorIs(t, err, perigee.NotFound)
	_, err = offline.Tree(ctx, perigee.PartInput{CID: absent})
	require.ErrorIs(t, err, perigee.Unavailable)

	a, b := newStore(t, onHost(t)), newStore(t, onHost(t))
	join(t, lonely, a)
	join(t, lonely, b)
	_, err = lonely.GetBlock(ctx, absent)
	require.ErrorIs(t, err, perigee.Unavailable)
	require.ErrorContains(t, err, "asked 2 peers")
	require.ErrorContains(t, err, idOf(a).Short())
	require.ErrorContains(t, err, "none holds "+absent.String())
}

func TestFetchManySmall(t *testing.T) {
	ctx := context.Background()
	files := map[string][]byte{}
	for i := range 3000 {
		files[fmt.Sprintf("d%d/%04d-%s", i%3, i, strings.Repeat("x", 120))] = randBytes(uint64(i), 100)
	}
	h := newStore(t, onHost(t))
	a, err := h.AddPath(ctx, writeTree(t, files), AddOptions{InPlace: true})
	require.NoError(t, err)
	to := newStore(t, onHost(t))
	join(t, to, h)
	_, err = to.Fetch(ctx, perigee.PartInput{CID: a.CID, Size: a.Size}, nil, nil)
	require.NoError(t, err)
	n := 0
	require.NoError(t, to.List(ctx, a.CID, func(p string, e perigee.TreeEntry) error {
		n++
		require.EqualValues(t, 100, e.Size)
		return nil
	}))
	require.Equal(t, 3000, n)

	// Listing alone brings no content.
	meta := newStore(t, onHost(t))
	join(t, meta, h)
	n = 0
	require.NoError(t, meta.List(ctx, a.CID, func(p string, e perigee.TreeEntry) error {
		n++
		require.EqualValues(t, 100, e.Size)
		return nil
	}))
	require.Equal(t, 3000, n)
	local, err := meta.LocalBytes(ctx, perigee.PartInput{CID: a.CID, Size: a.Size})
	require.NoError(t, err)
	require.Zero(t, local)
	st, err := meta.Stat(ctx, a.CID)
	require.NoError(t, err)
	require.Equal(t, "dir", st.Kind)
	require.Equal(t, a.Size, st.Size)
}

func TestFetchSlice(t *testing.T) {
	ctx := context.Background()
	var text bytes.Buffer
	for i := 0; text.Len() < 8<<20; i++ {
		fmt.Fprintf(&text, "line %d %s\n", i, strings.Repeat("y", i%300))
	}
	b := text.Bytes()
	for _, prof := range []string{"unixfs-v1-2025", "unixfs-v0-2015"} {
		h, a := holderWith(t, b, AddOptions{Profile: prof})
		to := newStore(t, onHost(t))
		join(t, to, h)
		in := perigee.PartInput{CID: a.CID, Size: a.Size, Offset: 3<<20 + 77, Length: 2 << 20, Align: perigee.AlignLine}
		got, err := to.Fetch(ctx, in, nil, nil)
		require.NoError(t, err)
		require.Less(t, got.Bytes, int64(5<<20), "only the range is fetched")
		v, err := mustTree(t, to, in).Open(".")
		require.NoError(t, err)
		lo, hi := lineAt(b, in.Offset), lineAt(b, in.Offset+in.Length)
		require.True(t, bytes.Equal(b[lo:hi], readView(t, v)))
		n, err := to.LocalBytes(ctx, in)
		require.NoError(t, err)
		require.Equal(t, in.Length, n)
		whole, err := to.LocalBytes(ctx, perigee.PartInput{CID: a.CID, Size: a.Size})
		require.NoError(t, err)
		require.Greater(t, whole, int64(1<<20))
		require.Less(t, whole, int64(5<<20))
		_, err = mustTree(t, to, perigee.PartInput{CID: a.CID}).Open(".")
		require.ErrorIs(t, err, perigee.Unavailable)

		// Reading on demand brings the rest.
		f, err := to.OpenFile(ctx, a.CID)
		require.NoError(t, err)
		_, err = f.Seek(-100, io.SeekEnd)
		require.NoError(t, err)
		tail, err := io.ReadAll(f)
		require.NoError(t, err)
		require.Equal(t, b[len(b)-100:], tail)
		_, err = f.Seek(0, io.SeekStart)
		require.NoError(t, err)
		all, err := io.ReadAll(f)
		require.NoError(t, err)
		require.True(t, bytes.Equal(b, all))
	}
}

// lineAt is B(o) of perigee.AlignLine, written down as it is defined.
func lineAt(b []byte, o int64) int64 {
	if o == 0 {
		return 0
	}
	if o >= int64(len(b)) {
		return int64(len(b))
	}
	if i := bytes.IndexByte(b[o-1:], '\n'); i >= 0 {
		return o - 1 + int64(i) + 1
	}
	return int64(len(b))
}

func TestBitswap(t *testing.T) {
	ctx := context.Background()
	b := randBytes(5, 4<<20)
	h, a := holderWith(t, b, AddOptions{})
	h.cfg.Host.RemoveStreamHandler(Protocol) // like any other IPFS node
	to := newStore(t, onHost(t))
	to.cfg.Host.RemoveStreamHandler(Protocol)
	require.NoError(t, to.cfg.Host.Connect(ctx, peer.AddrInfo{ID: h.cfg.Host.ID(), Addrs: h.cfg.Host.Addrs()}))
	got, err := to.Fetch(ctx, perigee.PartInput{CID: a.CID, Size: a.Size}, nil, nil)
	require.NoError(t, err)
	require.Greater(t, got.Bytes, int64(len(b)))
	checkFile(t, to, a.CID, ".", b)
}

func TestServePolicy(t *testing.T) {
	ctx := context.Background()
	h, a := holderWith(t, randBytes(6, 100), AddOptions{})
	h.cfg.Serve = func(perigee.PeerID) bool { return false }
	to := newStore(t, onHost(t), func(c *Config) { c.Idle, c.Timeout = time.Second, time.Second })
	join(t, to, h)
	_, err := to.Fetch(ctx, perigee.PartInput{CID: a.CID}, nil, nil)
	require.ErrorIs(t, err, perigee.Unavailable)
}

func TestFetchCancel(t *testing.T) {
	b := randBytes(7, 8<<20)
	h, a := holderWith(t, b, AddOptions{})
	block := make(chan struct{})
	t.Cleanup(func() { close(block) })
	badHolder(t, h, func(_ network.Stream, i int, _ cid.Cid, b []byte) []byte {
		if i == 3 {
			<-block
		}
		return b
	})
	to := newStore(t, onHost(t), func(c *Config) { c.Idle = time.Minute })
	join(t, to, h)
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err := to.Fetch(ctx, perigee.PartInput{CID: a.CID}, nil, nil)
	require.ErrorIs(t, err, perigee.Timeout)
	require.Less(t, time.Since(began), 5*time.Second)
}

func TestSlices(t *testing.T) {
	ctx := context.Background()
	s := newStore(t)
	text := []byte("one\ntwo\n\nthree, which is longer\nfour\n\n\nlast without end")
	for _, chunk := range []string{"size-1", "size-3", "size-7", "size-1000"} {
		for _, prof := range []string{"unixfs-v1-2025", "unixfs-v0-2015"} {
			a, err := s.AddReader(ctx, bytes.NewReader(text), AddOptions{Chunker: chunk, Profile: prof})
			require.NoError(t, err)
			for n := int64(1); n < 60; n += 3 {
				var all []byte
				for o := int64(0); o < a.Size; o += n {
					in := perigee.PartInput{CID: a.CID, Size: a.Size, Offset: o, Length: n, Align: perigee.AlignLine}
					v, err := mustTree(t, s, in).Open(".")
					require.NoError(t, err)
					got := readView(t, v)
					require.Equal(t, string(text[lineAt(text, o):lineAt(text, o+n)]), string(got))
					all = append(all, got...)
				}
				require.Equal(t, string(text), string(all), "every byte is in exactly one part")
			}
			v, err := mustTree(t, s, perigee.PartInput{CID: a.CID, Offset: 5, Length: 9}).Open(".")
			require.NoError(t, err)
			require.Equal(t, string(text[5:14]), string(readView(t, v)))
		}
	}
	_, err := s.Tree(ctx, perigee.PartInput{CID: mustAdd(t, s, []byte("x")), Offset: 1 << 62, Length: 1 << 62})
	require.ErrorIs(t, err, perigee.Invalid)
}

func mustAdd(t testing.TB, s *Store, b []byte) perigee.CID {
	a, err := s.AddReader(context.Background(), bytes.NewReader(b), AddOptions{})
	require.NoError(t, err)
	return a.CID
}
