package data

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/db"
)

// newStore opens a store in a fresh directory.
func newStore(t testing.TB, change ...func(*Config)) *Store {
	t.Helper()
	cfg := Config{Dir: t.TempDir(), DB: db.Memory(), Idle: 2 * time.Second, Timeout: 2 * time.Second}
	for _, f := range change {
		f(&cfg)
	}
	s, err := Open(context.Background(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

// newHost starts a libp2p host on loopback.
func newHost(t testing.TB) host.Host {
	t.Helper()
	h, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.DisableMetrics())
	require.NoError(t, err)
	t.Cleanup(func() { h.Close() })
	return h
}

func onHost(t testing.TB) func(*Config) {
	h := newHost(t)
	return func(c *Config) { c.Host = h }
}

// join connects two stores.
func join(t testing.TB, a, b *Store) {
	t.Helper()
	info := peer.AddrInfo{ID: b.cfg.Host.ID(), Addrs: b.cfg.Host.Addrs()}
	require.NoError(t, a.cfg.Host.Connect(context.Background(), info))
}

func idOf(s *Store) perigee.PeerID { return perigee.PeerID(s.cfg.Host.ID().String()) }

// randBytes returns n reproducible bytes.
func randBytes(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8(sha256.Sum256([]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)}))
	r.Read(b)
	return b
}

// writeTree writes files and returns their directory.
func writeTree(t testing.TB, files map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	for name, b := range files {
		p := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(p), 0o755))
		require.NoError(t, os.WriteFile(p, b, 0o644))
	}
	return dir
}

// readView reads a view as its reader must: checking every extent.
func readView(t testing.TB, v perigee.FileView) []byte {
	t.Helper()
	var all []byte
	for _, x := range v.Extents {
		b := x.Data
		if x.Path != "" {
			f, err := os.Open(x.Path)
			require.NoError(t, err)
			b = make([]byte, x.Length)
			_, err = f.ReadAt(b, x.Offset)
			require.NoError(t, err)
			f.Close()
		}
		require.EqualValues(t, x.Length, len(b))
		require.Equal(t, x.Sum, sha256.Sum256(b))
		all = append(all, b...)
	}
	return all[v.Skip : v.Skip+v.Size]
}

func mustTree(t testing.TB, s *Store, in perigee.PartInput) perigee.Tree {
	t.Helper()
	tr, err := s.Tree(context.Background(), in)
	require.NoError(t, err)
	return tr
}

// checkFile reads a file of a tree and compares.
func checkFile(t testing.TB, s *Store, c perigee.CID, name string, want []byte) {
	t.Helper()
	v, err := mustTree(t, s, perigee.PartInput{CID: c}).Open(name)
	require.NoError(t, err)
	if !bytes.Equal(readView(t, v), want) {
		t.Fatalf("%s differs", name)
	}
}

func testFiles() map[string][]byte {
	return map[string][]byte{
		"a":            []byte("a"),
		"empty":        {},
		".hidden":      []byte("hidden"),
		"dir/big":      randBytes(1, 5<<20+123),
		"dir/sub/mid":  randBytes(2, 300<<10),
		"dir/sub/mid2": randBytes(2, 300<<10),
	}
}

func TestAddAndRead(t *testing.T) {
	ctx := context.Background()
	files := testFiles()
	dir := writeTree(t, files)
	require.NoError(t, os.Symlink("dir/big", filepath.Join(dir, "link")))
	for _, prof := range []string{"unixfs-v1-2025", "unixfs-v0-2015", "legacy-cid-v1"} {
		var roots []perigee.CID
		for _, inPlace := range []bool{false, true} {
			s := newStore(t)
			a, err := s.AddPath(ctx, dir, AddOptions{InPlace: inPlace, Profile: prof})
			require.NoError(t, err)
			roots = append(roots, a.CID)
			for name, b := range files {
				checkFile(t, s, a.CID, name, b)
				c, err := s.Resolve(ctx, a.CID.String()+"/"+name)
				require.NoError(t, err)
				f, err := s.OpenFile(ctx, c)
				require.NoError(t, err)
				got, err := io.ReadAll(f)
				require.NoError(t, err)
				require.True(t, bytes.Equal(got, b))
			}
			e, err := mustTree(t, s, perigee.PartInput{CID: a.CID}).Stat("link")
			require.NoError(t, err)
			require.Equal(t, perigee.KindSymlink, e.Kind)
			require.Equal(t, "dir/big", e.Target)
			n, err := s.LocalBytes(ctx, perigee.PartInput{CID: a.CID, Size: a.Size})
			require.NoError(t, err)
			require.Equal(t, a.Size, n)
			st, err := s.Stat(ctx, a.CID)
			require.NoError(t, err)
			require.Equal(t, a.Size, st.Local)
			require.EqualValues(t, len(files)+1, st.Files)
			packs, err := os.ReadDir(filepath.Join(s.cfg.Dir, "packs"))
			require.NoError(t, err)
			require.Equal(t, inPlace, len(packs) == 0, "in-place adds copy nothing")
		}
		require.Equal(t, roots[0], roots[1])
	}
}

func TestFetch(t *testing.T) {
	ctx := context.Background()
	files := testFiles()
	dir := writeTree(t, files)
	for _, prof := range []string{"unixfs-v1-2025", "unixfs-v0-2015"} {
		a, b := newStore(t, onHost(t)), newStore(t, onHost(t))
		join(t, a, b)
		added, err := a.AddPath(ctx, dir, AddOptions{InPlace: true, Profile: prof})
		require.NoError(t, err)
		var last int64
		got, err := b.Fetch(ctx, perigee.PartInput{CID: added.CID, Size: added.Size}, []perigee.PeerID{idOf(a)}, func(n int64) { last = n })
		require.NoError(t, err)
		require.Equal(t, got.Bytes, last)
		require.Equal(t, got.Bytes, got.From[idOf(a)])
		for name, want := range files {
			checkFile(t, b, added.CID, name, want)
		}
		again, err := b.Fetch(ctx, perigee.PartInput{CID: added.CID}, nil, nil)
		require.NoError(t, err)
		require.Zero(t, again.Bytes)
		require.NoError(t, b.Pin(ctx, added.CID, ""))
		hs, err := b.Holders(ctx, added.CID)
		require.NoError(t, err)
		require.Len(t, hs, 2)
	}
}
