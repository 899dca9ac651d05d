package data

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/stretchr/testify/require"

	"github.com/perigee-network/perigee"
)

// putNode stores a crafted node and returns its CID.
func putNode(t testing.TB, s *Store, n node) cid.Cid {
	c, err := s.PutBlock(context.Background(), perigee.CodecDagPB, encodeNode(n))
	require.NoError(t, err)
	return c.Cid()
}

func fileNode(sizes []uint64, links ...link) node {
	var total uint64
	for _, s := range sizes {
		total += s
	}
	return node{Links: links, Data: encodeUnixFS(unixfs{Type: ufsFile, HasSize: true, FileSize: total, BlockSizes: sizes})}
}

// TestHostileTrees opens trees that lie or would take forever.
func TestHostileTrees(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	s := newStore(t)
	leaf, err := s.PutBlock(ctx, perigee.CodecRaw, []byte("four"))
	require.NoError(t, err)
	dirData := encodeUnixFS(unixfs{Type: ufsDirectory})

	// Each level links twice to the one below: 2^100 paths, 101 blocks.
	bomb := putNode(t, s, node{Data: dirData, Links: []link{{"x", leaf.Cid(), 4}}})
	for range 100 {
		bomb = putNode(t, s, node{Data: dirData, Links: []link{{"a", bomb, 1}, {"b", bomb, 1}}})
	}
	require.NoError(t, s.Pin(ctx, perigee.NewCID(bomb), ""))
	var car bytes.Buffer
	require.NoError(t, s.ExportCAR(ctx, perigee.NewCID(bomb), &car))

	deep := putNode(t, s, node{Data: dirData})
	for range 2000 {
		deep = putNode(t, s, node{Data: dirData, Links: []link{{"a", deep, 1}}})
	}
	require.ErrorIs(t, s.Pin(ctx, perigee.NewCID(deep), ""), perigee.Invalid)

	for name, c := range map[string]cid.Cid{
		"larger than said":   putNode(t, s, fileNode([]uint64{3}, link{"", leaf.Cid(), 4})),
		"smaller than said":  putNode(t, s, fileNode([]uint64{1 << 40}, link{"", leaf.Cid(), 4})),
		"sizes miss links":   putNode(t, s, fileNode([]uint64{4, 4}, link{"", leaf.Cid(), 4})),
		"overflowing":        putNode(t, s, fileNode([]uint64{1 << 63, 1 << 63}, link{"", leaf.Cid(), 4}, link{"", leaf.Cid(), 4})),
		"a file of a dir":    putNode(t, s, fileNode([]uint64{4}, link{"", bomb, 4})),
		"inner size differs": putNode(t, s, fileNode([]uint64{8}, link{"", putNode(t, s, fileNode([]uint64{4}, link{"", leaf.Cid(), 4})), 8})),
		"total differs":      putNode(t, s, node{Data: encodeUnixFS(unixfs{Type: ufsFile, HasSize: true, FileSize: 9, BlockSizes: []uint64{4}}), Links: []link{{"", leaf.Cid(), 4}}}),
		"not unixfs":         putNode(t, s, node{Data: []byte("what?")}),
		"metadata type":      putNode(t, s, node{Data: encodeUnixFS(unixfs{Type: 3})}),
		"parent of itself":   putNode(t, s, node{Data: dirData, Links: []link{{"..", leaf.Cid(), 4}}}),
		"slash":              putNode(t, s, node{Data: dirData, Links: []link{{"a/b", leaf.Cid(), 4}}}),
		"twice":              putNode(t, s, node{Data: dirData, Links: []link{{"a", leaf.Cid(), 4}, {"a", leaf.Cid(), 4}}}),
		"shard to a file":    putNode(t, s, node{Data: encodeUnixFS(unixfs{Type: ufsHAMT, HashType: hamtMurmur3, Fanout: 256}), Links: []link{{"AA", bomb, 4}}}),
		"shard, short name":  putNode(t, s, node{Data: encodeUnixFS(unixfs{Type: ufsHAMT, HashType: hamtMurmur3, Fanout: 256}), Links: []link{{"A", bomb, 4}}}),
		"shard, hash":        putNode(t, s, node{Data: encodeUnixFS(unixfs{Type: ufsHAMT, HashType: 1, Fanout: 256})}),
		"shard, fanout":      putNode(t, s, node{Data: encodeUnixFS(unixfs{Type: ufsHAMT, HashType: hamtMurmur3, Fanout: 1 << 40})}),
		"a long link":        putNode(t, s, node{Data: encodeUnixFS(unixfs{Type: ufsSymlink, Data: make([]byte, 5000)})}),
	} {
		root := perigee.NewCID(c)
		tr, err := s.Tree(ctx, perigee.PartInput{CID: root})
		if err == nil {
			if _, err = tr.ReadDir("."); err == nil || perigee.KindOf(err) == perigee.Invalid {
				_, err = tr.Open(".")
			}
		}
		require.Error(t, err, name)
		require.Contains(t, []perigee.Kind{perigee.Corrupt, perigee.Invalid, perigee.Unsupported}, perigee.KindOf(err), "%s: %v", name, err)
		_ = s.Pin(ctx, root, "")
		_, _ = s.Stat(ctx, root)
		_, _ = s.Verify(ctx, root)
		if f, err := s.OpenFile(ctx, root); err == nil {
			_, err = f.Read(make([]byte, 10))
			require.Error(t, err, name)
		}
	}
	_, err = s.GC(ctx)
	require.NoError(t, err)
}

// TestBlockHashes accepts the hash functions in use and refuses weak ones.
func TestBlockHashes(t *testing.T) {
	data := []byte("data")
	for text, ok := range map[string]bool{
		"bafkr4ihx7uzs2fpfdmcmxgjutmcnmmehqrlvjowdocdpnidvhpuhggi7ji": false, // of other data
		"bafkqabdemf2gc": true, // identity of "data"
	} {
		c, err := perigee.ParseCID(text)
		require.NoError(t, err)
		require.Equal(t, ok, verify(c.Cid(), data) == nil, text)
	}
	s := newStore(t)
	c, err := perigee.ParseCID("bafkqabdemf2gc")
	require.NoError(t, err)
	b, err := s.GetBlock(context.Background(), c)
	require.NoError(t, err)
	require.Equal(t, data, b)
	checkFile(t, s, c, ".", data)
	_, err = s.PutBlock(context.Background(), perigee.CodecRaw, make([]byte, MaxBlock+1))
	require.ErrorIs(t, err, perigee.Invalid)
	require.Contains(t, fmt.Sprint(err), "2097152")
}
