package schedule

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/perigee-network/perigee"
	"github.com/stretchr/testify/require"
)

func cidOf(name string) perigee.CID { return perigee.SumCID(perigee.CodecRaw, []byte(name)) }

func file(path string, size int64) File { return File{Path: path, CID: cidOf(path), Size: size} }

func spec(t testing.TB, s string) SplitSpec {
	t.Helper()
	parsed, err := ParseSplit(s)
	require.NoError(t, err)
	return parsed
}

// reference is a second input, given whole.
var reference = Input{Mount: "/ref", CID: cidOf("reference"), Size: 7}

func TestSplitNone(t *testing.T) {
	got, err := Split([]Input{reference, {Mount: "/in", CID: cidOf("data"), Size: 100}})
	require.NoError(t, err)
	require.Equal(t, []PartSpec{{Bytes: 107, Inputs: []perigee.PartInput{
		{Mount: "/in", CID: cidOf("data"), Size: 100}, {Mount: "/ref", CID: cidOf("reference"), Size: 7},
	}}}, got)

	got, err = Split(nil)
	require.NoError(t, err)
	require.Equal(t, []PartSpec{{}}, got, "a job without inputs is one part")
}

func TestSplitByFile(t *testing.T) {
	for _, mode := range []string{"file", "part"} {
		got, err := Split([]Input{{Mount: "/in", Split: spec(t, mode), Files: []File{file("b/2.csv", 20), file("a.csv", 10), file("empty", 0)}}, reference})
		require.NoError(t, err)
		require.Equal(t, []PartSpec{
			{Index: 0, Label: "a.csv", Bytes: 17, Inputs: []perigee.PartInput{{Mount: "/in/a.csv", CID: cidOf("a.csv"), Size: 10}, {Mount: "/ref", CID: cidOf("reference"), Size: 7}}},
			{Index: 1, Label: "b/2.csv", Bytes: 27, Inputs: []perigee.PartInput{{Mount: "/in/b/2.csv", CID: cidOf("b/2.csv"), Size: 20}, {Mount: "/ref", CID: cidOf("reference"), Size: 7}}},
			{Index: 2, Label: "empty", Bytes: 7, Inputs: []perigee.PartInput{{Mount: "/in/empty", CID: cidOf("empty")}, {Mount: "/ref", CID: cidOf("reference"), Size: 7}}},
		}, got)
	}
}

func TestSplitOfOneFile(t *testing.T) {
	single := []File{file("", 25)}
	got, err := Split([]Input{{Mount: "/in", Split: spec(t, "file"), Files: single}})
	require.NoError(t, err)
	require.Equal(t, []PartSpec{{Label: "in", Bytes: 25, Inputs: []perigee.PartInput{{Mount: "/in", CID: cidOf(""), Size: 25}}}}, got)

	got, err = Split([]Input{{Mount: "/in", Split: spec(t, "bytes=10"), Files: single}})
	require.NoError(t, err)
	require.Len(t, got, 3)
	require.Equal(t, PartSpec{Index: 2, Label: "in 3/3", Bytes: 5, Inputs: []perigee.PartInput{{Mount: "/in", CID: cidOf(""), Size: 25, Offset: 20, Length: 5, Align: perigee.AlignLine}}}, got[2])
}

func TestSplitByBytesLeavesSmallFilesWhole(t *testing.T) {
	got, err := Split([]Input{{Mount: "/in", Split: spec(t, "bytes=10"), Files: []File{file("a", 10), file("b", 0), file("c", 11)}}})
	require.NoError(t, err)
	require.Len(t, got, 3)
	require.Equal(t, perigee.PartInput{Mount: "/in/a", CID: cidOf("a"), Size: 10}, got[0].Inputs[0])
	require.Equal(t, perigee.PartInput{Mount: "/in/c", CID: cidOf("c"), Size: 11, Offset: 10, Length: 1, Align: perigee.AlignLine}, got[2].Inputs[0])
}

func TestSplitByCount(t *testing.T) {
	got, err := Split([]Input{{Mount: "/in", Split: spec(t, "count=3"), CID: cidOf("data"), Size: 5}})
	require.NoError(t, err)
	require.Len(t, got, 3)
	require.Equal(t, PartSpec{Index: 1, Label: "2 of 3", Bytes: 5, Env: map[string]string{"PERIGEE_PART": "1", "PERIGEE_PARTS": "3"},
		Inputs: []perigee.PartInput{{Mount: "/in", CID: cidOf("data"), Size: 5}}}, got[1])

	got, err = Split([]Input{{Mount: "/in", Split: spec(t, "count=2")}})
	require.NoError(t, err)
	require.Empty(t, got[1].Inputs, "a count needs no data")
}

func TestSplitOfLooseFiles(t *testing.T) {
	got, err := Split([]Input{{Mount: "/in", Files: []File{file("b", 2), file("a/x", 1)}}})
	require.NoError(t, err)
	require.Equal(t, []PartSpec{{Bytes: 3, Inputs: []perigee.PartInput{{Mount: "/in/a/x", CID: cidOf("a/x"), Size: 1}, {Mount: "/in/b", CID: cidOf("b"), Size: 2}}}}, got)
}

func TestSplitFaults(t *testing.T) {
	files := func(mode string, fs ...File) []Input { return []Input{{Mount: "/in", Split: spec(t, mode), Files: fs}} }
	many := make([]File, MaxLooseFiles+1)
	for i := range many {
		many[i] = file(fmt.Sprint(i), 1)
	}
	for want, in := range map[string][]Input{
		"the input at /in holds no files; there is nothing to run on":                                        files("file"),
		"the input at /in holds no bytes to split; its files are all empty":                                  files("bytes=1", file("a", 0)),
		"the input at /in splits into more than 1048576 parts; split by more bytes than 1B":                  files("bytes=1", file("a", math.MaxInt64)),
		"the input at /in names a file \"../a\", which is no clean relative path":                            files("file", file("../a", 1)),
		"the input at /in names a file \"/a\", which is no clean relative path":                              files("file", file("/a", 1)),
		"the input at /in names a file \".\", which is no clean relative path":                               files("part", file(".", 1)),
		"the input at /in names a file \"\", which is no clean relative path":                                files("part", file("", 1), file("a", 1)),
		"the input at /in names a file \"a\\x00\", which is no clean relative path":                          files("part", file("a\x00", 1)),
		"the input at /in names the file \"a\" twice":                                                        files("file", file("a", 1), file("a", 1)),
		"the input at /in names no CID or a negative size for the file \"a\"":                                files("file", File{Path: "a", Size: 1}),
		"the input at /in names no CID or a negative size for the file \"b\"":                                files("file", file("b", -1)),
		"the input at /in names \"a\" as a file and as a directory":                                          files("", file("a", 1), file("a.b", 1), file("a/b/c", 1)),
		"the inputs at /a and /b both split; at most one may":                                                {{Mount: "/a", Split: spec(t, "count=2")}, {Mount: "/b", Split: spec(t, "file")}},
		"the input at /in has 4097 files under no common root":                                               files("", many...),
		"the input at /in has the unknown split \"lines\"":                                                   {{Mount: "/in", Split: SplitSpec{Mode: "lines"}}},
		"the input at /in splits by 0 bytes; it must be at least 1":                                          {{Mount: "/in", Split: SplitSpec{Mode: "bytes"}}},
		"a split by count=0 must make between 1 and 1048576 parts":                                           {{Mount: "/in", Split: SplitSpec{Mode: "count"}}},
		"the input at /in splits into more than 1048576 parts; split by more bytes than 4KiB":                files("bytes=4KiB", file("a", 8<<40)),
		"the input at /in names a file \"" + strings.Repeat("x/", 3) + "\", which is no clean relative path": files("file", file("x/x/x/", 1)),
	} {
		_, err := Split(in)
		require.ErrorIs(t, err, perigee.Invalid, want)
		require.ErrorContains(t, err, want)
	}
}

// TestSplitCoversEveryByteOnce checks splits of random inputs: the ranges of
// each file follow each other without gaps, whatever the order of files, and
// each part passes the checks of a provider.
func TestSplitCoversEveryByteOnce(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 3))
		var files []File
		total := int64(0)
		for i := range 1 + r.IntN(8) {
			size := r.Int64N(5000)
			files = append(files, file(fmt.Sprintf("d%d/%d", r.IntN(3), i), size))
			total += size
		}
		if total == 0 {
			continue
		}
		in := Input{Mount: "/in", Split: SplitSpec{Mode: perigee.SplitBytes, Bytes: 1 + r.Int64N(2000)}, Files: files}
		got, err := Split([]Input{in})
		require.NoError(t, err)
		r.Shuffle(len(files), func(i, j int) { files[i], files[j] = files[j], files[i] })
		again, err := Split([]Input{in})
		require.NoError(t, err)
		require.Equal(t, got, again, "the order of files matters")

		next, sum := map[perigee.CID]int64{}, int64(0)
		for i, p := range got {
			require.Equal(t, i, p.Index)
			require.Len(t, p.Inputs, 1)
			x := p.Inputs[0]
			require.Equal(t, next[x.CID], x.Offset)
			require.Positive(t, x.Bytes())
			require.LessOrEqual(t, x.Bytes(), in.Split.Bytes)
			next[x.CID] += x.Bytes()
			sum += p.Bytes
			part := perigee.Part{Engine: engine, Module: cidOf("module"), Workdir: "/", Inputs: p.Inputs, Limits: perigee.Limits{Memory: 1, Fuel: 1, Disk: 1, Files: 1}}
			require.NoError(t, part.Validate())
		}
		require.Equal(t, total, sum)
		for _, f := range files {
			require.Equal(t, f.Size, next[f.CID])
		}
	}
}

// lines are the bytes of text that a range stands for, straight from the words
// of perigee.AlignLine.
func lines(text string, in perigee.PartInput) string {
	if in.Length == 0 {
		return text
	}
	bound := func(o int64) int64 {
		switch {
		case o == 0:
			return 0
		case o >= int64(len(text)):
			return int64(len(text))
		}
		i := strings.IndexByte(text[o-1:], '\n')
		if i < 0 {
			return int64(len(text))
		}
		return o + int64(i)
	}
	return text[bound(in.Offset):bound(in.Offset+in.Length)]
}

// TestSplitKeepsLinesWhole checks what byte splits are for: the parts' lines are
// the file's lines, each in one part.
func TestSplitKeepsLinesWhole(t *testing.T) {
	for seed := range uint64(500) {
		r := rand.New(rand.NewPCG(seed, 4))
		var text strings.Builder
		for range 1 + r.IntN(50) {
			text.WriteString(strings.Repeat("x", r.IntN(30)) + "\n")
		}
		s := strings.TrimSuffix(text.String(), strings.Repeat("\n", r.IntN(2)))
		if s == "" {
			continue
		}
		got, err := Split([]Input{{Mount: "/in", Split: SplitSpec{Mode: perigee.SplitBytes, Bytes: 1 + r.Int64N(100)}, Files: []File{file("a", int64(len(s)))}}})
		require.NoError(t, err)
		var all []string
		for _, p := range got {
			share := lines(s, p.Inputs[0])
			all = append(all, share)
			if share != "" && !strings.HasSuffix(share, "\n") {
				require.True(t, strings.HasSuffix(s, share), "seed %d: a line is cut", seed)
			}
		}
		require.Equal(t, s, strings.Join(all, ""), "seed %d", seed)
	}
}

// FuzzSplit feeds manifests that a stranger wrote: no path leaves the mount.
func FuzzSplit(f *testing.F) {
	f.Add("file", "a", "b/c", int64(10), int64(0))
	f.Add("bytes=3", "../../etc", "/", int64(10), int64(math.MaxInt64))
	f.Add("", "a", "a/b", int64(-1), int64(1))
	f.Fuzz(func(t *testing.T, split, a, b string, m, n int64) {
		parsed, err := ParseSplit(split)
		if err != nil {
			return
		}
		parts, err := Split([]Input{{Mount: "/in", Split: parsed, Files: []File{file(a, m%(1<<30)), file(b, n%(1<<30))}}})
		if err != nil {
			require.ErrorIs(t, err, perigee.Invalid)
			return
		}
		for _, p := range parts[:min(len(parts), 100)] {
			require.True(t, slices.IsSortedFunc(p.Inputs, func(x, y perigee.PartInput) int { return strings.Compare(x.Mount, y.Mount) }))
			for _, in := range p.Inputs {
				require.True(t, strings.HasPrefix(in.Mount, "/in/"), in.Mount)
			}
		}
	})
}
