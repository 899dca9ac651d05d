package data

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perigee-network/perigee"
)

func TestPins(t *testing.T) {
	ctx := context.Background()
	s := newStore(t)
	a, err := s.AddPath(ctx, writeTree(t, testFiles()), AddOptions{Name: "test data"})
	require.NoError(t, err)
	require.NoError(t, s.Pin(ctx, a.CID, "job/1"))
	require.NoError(t, s.Pin(ctx, a.CID, "job/1"))
	pins, err := s.Pins(ctx)
	require.NoError(t, err)
	require.Len(t, pins, 2)
	for i, owner := range []string{"job/1", OwnerUser} {
		require.Equal(t, owner, pins[i].Owner)
		require.Equal(t, a.CID, pins[i].CID)
		require.Equal(t, a.Size, pins[i].Size)
		require.True(t, pins[i].Complete)
		require.Equal(t, "dir", pins[i].Kind)
	}
	require.Equal(t, "test data", pins[1].Name)
	require.NoError(t, s.Remove(ctx, a.CID))
	ok, err := s.isComplete(a.CID.Cid())
	require.NoError(t, err)
	require.True(t, ok, "another pin keeps what is known")
	require.NoError(t, s.Unpin(ctx, a.CID, "job/1"))
	require.NoError(t, s.Unpin(ctx, a.CID, "job/1"))
	ok, err = s.isComplete(a.CID.Cid())
	require.NoError(t, err)
	require.False(t, ok)

	// A pin of what is not here keeps what will come.
	absent := perigee.SumCID(perigee.CodecRaw, []byte("later"))
	require.NoError(t, s.Pin(ctx, absent, "job/2"))
	pins, err = s.Pins(ctx)
	require.NoError(t, err)
	require.False(t, pins[0].Complete)
	_, err = s.PutBlock(ctx, perigee.CodecRaw, []byte("later"))
	require.NoError(t, err)
	_, err = s.GC(ctx)
	require.NoError(t, err)
	b, err := s.LocalBlock(absent)
	require.NoError(t, err)
	require.Equal(t, "later", string(b))
	pins, err = s.Pins(ctx)
	require.NoError(t, err)
	require.True(t, pins[0].Complete)
	require.ErrorIs(t, s.Pin(ctx, absent, string(make([]byte, 300))), perigee.Invalid)
}
