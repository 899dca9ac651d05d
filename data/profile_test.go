package data

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/boxo/chunker"
	"github.com/ipfs/boxo/ipld/merkledag"
	boxofs "github.com/ipfs/boxo/ipld/unixfs"
	"github.com/ipfs/boxo/ipld/unixfs/importer/balanced"
	"github.com/ipfs/boxo/ipld/unixfs/importer/helpers"
	uio "github.com/ipfs/boxo/ipld/unixfs/io"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	format "github.com/ipfs/go-ipld-format"
	mh "github.com/multiformats/go-multihash"
	"github.com/stretchr/testify/require"

	"github.com/perigee-network/perigee"
)

// reference builds trees with Kubo's own library.
type reference struct {
	dag format.DAGService
	p   profile
}

func newReference(p profile) *reference {
	bs := blockstore.NewBlockstore(dssync.MutexWrap(datastore.NewMapDatastore()))
	return &reference{merkledag.NewDAGService(blockservice.New(bs, nil)), p}
}

func (r *reference) builder() cid.Builder {
	return cid.Prefix{Version: r.p.version, Codec: cid.DagProtobuf, MhType: mh.SHA2_256, MhLength: -1}
}

func (r *reference) file(t testing.TB, b []byte) format.Node {
	params := helpers.DagBuilderParams{Dagserv: r.dag, RawLeaves: r.p.rawLeaves, Maxlinks: r.p.links, CidBuilder: r.builder()}
	h, err := params.New(chunk.NewSizeSplitter(bytes.NewReader(b), r.p.chunk))
	require.NoError(t, err)
	n, err := balanced.Layout(h)
	require.NoError(t, err)
	return n
}

func (r *reference) symlink(t testing.TB, target string) format.Node {
	b, err := boxofs.SymlinkData(target)
	require.NoError(t, err)
	n := merkledag.NodeWithData(b)
	require.NoError(t, n.SetCidBuilder(r.builder()))
	return n
}

func (r *reference) dir(t testing.TB, children map[string]format.Node) format.Node {
	mode := uio.SizeEstimationLinks
	if r.p.sizeBlock {
		mode = uio.SizeEstimationBlock
	}
	d, err := uio.NewDirectory(r.dag, uio.WithCidBuilder(r.builder()), uio.WithMaxHAMTFanout(256), uio.WithSizeEstimationMode(mode))
	require.NoError(t, err)
	for name, n := range children {
		require.NoError(t, r.dag.Add(context.Background(), n))
		require.NoError(t, d.AddChild(context.Background(), name, n))
	}
	n, err := d.GetNode()
	require.NoError(t, err)
	return n
}

func TestFileCIDs(t *testing.T) {
	ctx := context.Background()
	s := newStore(t)
	for _, c := range []struct {
		profile, chunker string
		sizes            []int
	}{
		{"unixfs-v1-2025", "", []int{0, 1, 1<<20 - 1, 1 << 20, 1<<20 + 1, 7<<20 + 5}},
		{"unixfs-v0-2015", "", []int{0, 1, 1 << 18, 1<<18 + 1, 175 << 18}},
		{"legacy-cid-v1", "", []int{0, 1, 1 << 18, 1<<18 + 1, 174 << 18, 174<<18 + 1}},
		{"unixfs-v1-2025", "size-16", []int{16 * 1024, 16*1024 + 1, 16 * 1024 * 3}},
		{"unixfs-v0-2015", "size-3", []int{3 * 174, 3*174 + 1}},
		{"unixfs-v1-2025", "size-1000000", []int{2_500_000}},
	} {
		p, err := parseProfile(c.profile, c.chunker)
		require.NoError(t, err)
		for _, n := range c.sizes {
			b := randBytes(uint64(n), n)
			want := newReference(p).file(t, b)
			got, err := s.AddReader(ctx, bytes.NewReader(b), AddOptions{Profile: c.profile, Chunker: c.chunker})
			require.NoError(t, err)
			require.Equal(t, want.Cid().String(), got.CID.String(), "%s %s %d bytes", c.profile, c.chunker, n)
			require.EqualValues(t, n, got.Size)
		}
	}
}

// TestFileLevels makes, with narrow nodes, the levels that only huge files have.
func TestFileLevels(t *testing.T) {
	for _, name := range []string{"unixfs-v1-2025", "unixfs-v0-2015"} {
		for n := 1; n < 300; n += 1 + n/40 {
			p, err := parseProfile(name, "size-2")
			require.NoError(t, err)
			p.links = 3
			b := randBytes(uint64(n), n)
			var leaves []ref
			for i := 0; i < n; i += 2 {
				part := b[i:min(i+2, n)]
				leaves = append(leaves, p.leafRef(p.leafDigest(part), len(part)))
			}
			got, err := p.file(leaves, func(cid.Cid, []byte) error { return nil })
			require.NoError(t, err)
			want := newReference(p).file(t, b)
			require.Equal(t, want.Cid(), got.CID, "%d bytes", n)
		}
	}
}

func TestDirectoryCIDs(t *testing.T) {
	for _, name := range []string{"unixfs-v1-2025", "unixfs-v0-2015"} {
		p, err := parseProfile(name, "")
		require.NoError(t, err)
		for _, count := range []int{0, 1, 1000, 2500, 6000} {
			// 2,500 entries of 60 characters are within a few of the threshold.
			r, s := newReference(p), newStore(t)
			children := map[string]format.Node{}
			var entries []Named
			var list []dirEntry
			for i := range count {
				n := fmt.Sprintf("%060d", i*7919)
				b := []byte(fmt.Sprint(i))
				f := r.file(t, b)
				children[n] = f
				size, err := f.Size()
				require.NoError(t, err)
				list = append(list, dirEntry{n, ref{f.Cid(), uint64(len(b)), size}})
				entries = append(entries, Named{n, perigee.NewCID(f.Cid())})
			}
			children["link"] = r.symlink(t, "../x")
			w := s.newSession()
			l, err := p.symlink("../x", w.put)
			require.NoError(t, err)
			list = append(list, dirEntry{"link", l})
			got, err := p.dir(list, w.put)
			require.NoError(t, err)
			want := r.dir(t, children)
			require.Equal(t, want.Cid(), got.CID, "%s with %d entries", name, count)
			size, err := want.Size()
			require.NoError(t, err)
			require.Equal(t, size, got.Cum)
			require.NoError(t, w.commit())
			w.end()
			n, err := nodeOf(got.CID, s.local)
			require.NoError(t, err)
			links, err := dirLinks(context.Background(), n, s.local)
			require.NoError(t, err)
			require.Len(t, links, count+1)
			_ = entries
		}
	}
}

// TestShardThreshold walks the size of a directory across the threshold, where
// the two ways of estimating matter.
func TestShardThreshold(t *testing.T) {
	for _, name := range []string{"unixfs-v1-2025", "unixfs-v0-2015"} {
		p, err := parseProfile(name, "")
		require.NoError(t, err)
		r := newReference(p)
		leaf := r.file(t, []byte("x"))
		size, err := leaf.Size()
		require.NoError(t, err)
		sharded := map[bool]bool{}
		for pad := 0; pad < 300; pad += 7 {
			children := map[string]format.Node{}
			var list []dirEntry
			per := 200 + 36
			if p.sizeBlock {
				per = 200 + 36 + 10
			} else {
				per = 200 + 34
			}
			count := (256<<10)/per - 1
			for i := range count {
				n := fmt.Sprintf("%0200d", i)
				children[n] = leaf
				list = append(list, dirEntry{n, ref{leaf.Cid(), 1, size}})
			}
			for i := 0; i < pad; i += 100 {
				n := fmt.Sprintf("z%0*d", min(pad-i, 200), i)
				children[n] = leaf
				list = append(list, dirEntry{n, ref{leaf.Cid(), 1, size}})
			}
			got, err := p.dir(list, func(c cid.Cid, b []byte) error {
				n, err := parseUnixFS(b)
				if err == nil && len(n.Links) > 0 {
					sharded[n.Type == ufsHAMT] = true
				}
				return nil
			})
			require.NoError(t, err)
			require.Equal(t, r.dir(t, children).Cid(), got.CID, "%s pad %d", name, pad)
		}
		require.Len(t, sharded, 2, "the test must cross the threshold")
	}
}

// TestFrozenCIDs keeps CIDs from changing unnoticed; they are Kubo's too.
func TestFrozenCIDs(t *testing.T) {
	ctx := context.Background()
	for _, c := range []struct{ profile, content, want string }{
		{"unixfs-v1-2025", "", "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"},
		{"unixfs-v0-2015", "", "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH"},
		{"unixfs-v1-2025", "hello world\n", "bafkreifjjcie6lypi6ny7amxnfftagclbuxndqonfipmb64f2km2devei4"},
		{"unixfs-v0-2015", "hello world\n", "QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o"},
	} {
		s := newStore(t)
		a, err := s.AddReader(ctx, bytes.NewReader([]byte(c.content)), AddOptions{Profile: c.profile})
		require.NoError(t, err)
		require.Equal(t, c.want, a.CID.String())
	}
	s := newStore(t)
	dir := t.TempDir()
	for _, c := range []struct{ profile, want string }{
		{"unixfs-v1-2025", "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354"},
		{"unixfs-v0-2015", "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn"},
	} {
		a, err := s.AddPath(ctx, dir, AddOptions{Profile: c.profile})
		require.NoError(t, err)
		require.Equal(t, c.want, a.CID.String(), "the empty directory")
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "big"), bytes.Repeat([]byte("perigee\n"), 1<<18), 0o644))
	require.NoError(t, os.Symlink("big", filepath.Join(dir, "link")))
	a, err := s.AddPath(ctx, dir, AddOptions{InPlace: true})
	require.NoError(t, err)
	require.Equal(t, frozenTree, a.CID.String())
}

const frozenTree = "bafybeihi2jj5ladfjsusstllywgv2jaujwh7ee6gk7t4i7hxw4prsmr54y"

func TestProfileStrings(t *testing.T) {
	for _, c := range []string{"size-0", "size-", "size--1", "size-+1", "size-01", "size-1.5", "size-2097152", "rabin", "buzhash", "SIZE-1", "size-99999999999999999999"} {
		_, err := parseProfile("", c)
		require.ErrorIs(t, err, perigee.Invalid, c)
	}
	_, err := parseProfile("nope", "")
	require.ErrorContains(t, err, "unixfs-v1-2025")
	p, err := parseProfile("", "size-2096896")
	require.NoError(t, err)
	require.EqualValues(t, maxChunk, p.chunk)
}
