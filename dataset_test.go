package perigee

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// bigDataset has n parts with a holder each, signed by key 1.
func bigDataset(t testing.TB, n int) *Dataset {
	t.Helper()
	d := &Dataset{Owner: testAccount(1), Name: "big", Sequence: 3, Created: 5, Node: testPeer(1), Join: JoinNone}
	for i := range n {
		path := fmt.Sprintf("part-%06d", i)
		d.Parts = append(d.Parts, DatasetPart{Path: path, CID: SumCID(CodecRaw, []byte(path)), Size: int64(i), Holders: []PeerID{testPeer(byte(i % 3))}, By: testAccount(1)})
	}
	require.NoError(t, Sign(d, signer(1)))
	return d
}

func TestDatasetSplitsAndJoins(t *testing.T) {
	for _, n := range []int{1, datasetChunkParts, datasetChunkParts + 1, 10_000} {
		d := bigDataset(t, n)
		head, chunks, err := d.Split()
		require.NoError(t, err)
		require.NoError(t, head.Check())
		require.Equal(t, n, head.Count)
		require.Equal(t, min(n, 3), head.Holders)

		b, err := Encode(head)
		require.NoError(t, err)
		var back DatasetHead
		require.NoError(t, Decode(b, &back))
		require.NoError(t, back.Check())
		var parts []DatasetPart
		for i, chunk := range chunks {
			some, err := DecodeDatasetChunk(back.Chunks[i], chunk)
			require.NoError(t, err)
			parts = append(parts, some...)
			_, err = DecodeDatasetChunk(back.Chunks[i], chunk[1:])
			require.ErrorIs(t, err, Corrupt)
		}
		joined, err := back.JoinChunks(parts)
		require.NoError(t, err)
		require.Equal(t, d, joined)
		require.NoError(t, CheckSignature(joined))

		_, err = back.JoinChunks(parts[1:])
		require.ErrorIs(t, err, Corrupt)
		joined.Parts[0].CID = SumCID(CodecRaw, []byte("swapped"))
		require.ErrorIs(t, CheckSignature(joined), Corrupt, "the signature covers every part")
	}
}

func TestCheckDatasetParts(t *testing.T) {
	require.NoError(t, CheckDatasetParts(bigDataset(t, 5).Parts))
	for want, change := range map[string]func(p []DatasetPart){
		`two parts have the path "part-000000"`:                               func(p []DatasetPart) { p[1].Path = p[0].Path },
		`the parts are not sorted by path: "a" follows "part-000001"`:         func(p []DatasetPart) { p[2].Path = "a" },
		`"part-000000" cannot be a part and the directory of "part-000000/x"`: func(p []DatasetPart) { p[1].Path = p[0].Path + "/x" },
		`"../x" cannot be a part's path`:                                      func(p []DatasetPart) { p[0].Path = "../x" },
		`"/x" cannot be a part's path`:                                        func(p []DatasetPart) { p[0].Path = "/x" },
		`"a\\b" cannot be a part's path`:                                      func(p []DatasetPart) { p[0].Path = `a\b` },
		`"a\nb" cannot be a part's path`:                                      func(p []DatasetPart) { p[0].Path = "a\nb" },
		`a part's path has at most 1024 bytes, this has 2000`:                 func(p []DatasetPart) { p[0].Path = strings.Repeat("x", 2000) },
		`part "part-000001" has no CID`:                                       func(p []DatasetPart) { p[1].CID = CID{} },
		`part "part-000001" has size -1`:                                      func(p []DatasetPart) { p[1].Size = -1 },
		`the holders of part "part-000000" are not sorted or not different`:   func(p []DatasetPart) { p[0].Holders = []PeerID{testPeer(1), testPeer(1)} },
		`a holder of part "part-000000": peer ID "x"`:                         func(p []DatasetPart) { p[0].Holders = []PeerID{"x"} },
		`who brought part "part-000000": account "" is not of the form z6Mk…`: func(p []DatasetPart) { p[0].By = "" },
		`part "part-000000" names 300 holders; at most 256 are kept`:          func(p []DatasetPart) { p[0].Holders = make([]PeerID, 300) },
	} {
		parts := bigDataset(t, 5).Parts
		change(parts)
		err := CheckDatasetParts(parts)
		require.ErrorIs(t, err, Invalid, want)
		require.ErrorContains(t, err, want)
	}
	var huge []DatasetPart
	for i := range 9 {
		huge = append(huge, DatasetPart{Path: fmt.Sprint(i), CID: SumCID(CodecRaw, nil), Size: 1 << 60, By: testAccount(1)})
	}
	require.ErrorContains(t, CheckDatasetParts(huge), "add up to too much")
}

func TestDatasetHeadCheck(t *testing.T) {
	for want, change := range map[string]func(h *DatasetHead){
		"bad name":                         func(h *DatasetHead) { h.Name = "Big" },
		"bad join policy":                  func(h *DatasetHead) { h.Join = "some" },
		"bad sequence":                     func(h *DatasetHead) { h.Sequence = 0 },
		"bad number of parts":              func(h *DatasetHead) { h.Count = 5000 },
		"something else than chunks":       func(h *DatasetHead) { h.Chunks[0] = SumCID(CodecRaw, nil) },
		"node":                             func(h *DatasetHead) { h.Node = "x" },
		"signature does not match":         func(h *DatasetHead) { h.Size++ },
		"the dataset/1's signature does n": func(h *DatasetHead) { h.Signature = nil },
	} {
		head, _, err := bigDataset(t, 5).Split()
		require.NoError(t, err)
		change(head)
		err = head.Check()
		require.ErrorIs(t, err, Corrupt, want)
		require.ErrorContains(t, err, want)
	}
}

func TestDatasetHeadNewer(t *testing.T) {
	a, _, err := bigDataset(t, 1).Split()
	require.NoError(t, err)
	b, _, err := bigDataset(t, 2).Split()
	require.NoError(t, err)
	require.True(t, a.Newer(nil))
	require.False(t, a.Newer(a))
	require.NotEqual(t, a.Newer(b), b.Newer(a), "of two with one sequence, all nodes keep the same")
	b.Sequence++
	require.True(t, b.Newer(a))
	require.False(t, a.Newer(b))
}

func TestParseDatasetName(t *testing.T) {
	owner, name, err := ParseDatasetName("me/flights")
	require.NoError(t, err)
	require.Equal(t, []string{"me", "flights"}, []string{owner, name})
	_, _, err = ParseDatasetName(string(testAccount(1)) + "/a.b-c_1")
	require.NoError(t, err)
	for _, bad := range []string{"", "flights", "me/", "me/Flights", "me/../x", "me/a/b", "z6/x", "acme/x", "me/" + strings.Repeat("x", 64), strings.Repeat("x", 300)} {
		_, _, err := ParseDatasetName(bad)
		require.ErrorIs(t, err, Invalid, bad)
	}
}

func FuzzDatasetHead(f *testing.F) { fuzzDecode[DatasetHead](f) }

// FuzzDatasetChunk reads chunks whose link is right, as their maker would give it.
func FuzzDatasetChunk(f *testing.F) {
	_, chunks, err := bigDataset(f, 3).Split()
	require.NoError(f, err)
	f.Add(chunks[0])
	f.Add([]byte{0x80})
	f.Fuzz(func(t *testing.T, b []byte) {
		parts, err := DecodeDatasetChunk(SumCID(CodecDagCBOR, b), b)
		if err != nil {
			require.ErrorIs(t, err, Corrupt)
			return
		}
		if err := CheckDatasetParts(parts); err != nil {
			require.ErrorIs(t, err, Invalid)
		}
	})
}
