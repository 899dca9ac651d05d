package data

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/db"
)

// packBytes returns how many bytes lie in packs.
func packBytes(t testing.TB, s *Store) int64 {
	var n int64
	names, err := os.ReadDir(filepath.Join(s.cfg.Dir, "packs"))
	require.NoError(t, err)
	for _, e := range names {
		fi, err := e.Info()
		require.NoError(t, err)
		n += fi.Size()
	}
	return n
}

func TestGC(t *testing.T) {
	ctx := context.Background()
	s := newStore(t)
	files := testFiles()
	dir := writeTree(t, files)
	kept, err := s.AddPath(ctx, dir, AddOptions{Pin: "job/1"})
	require.NoError(t, err)
	big := randBytes(11, 9<<20)
	gone := mustAdd(t, s, big)
	held := mustAdd(t, s, randBytes(12, 2<<20))
	inPlace, err := s.AddPath(ctx, dir+"/dir", AddOptions{InPlace: true, Pin: "job/2", Profile: "unixfs-v0-2015"})
	require.NoError(t, err)

	require.ErrorIs(t, s.Remove(ctx, kept.CID), perigee.Refused)
	require.NoError(t, s.Remove(ctx, gone))
	require.ErrorIs(t, s.Remove(ctx, gone), perigee.NotFound)
	require.NoError(t, s.Remove(ctx, held))
	require.NoError(t, s.Unpin(ctx, inPlace.CID, "job/2"))
	release := s.Hold(held)
	r, err := s.GC(ctx)
	require.NoError(t, err)
	require.Positive(t, r.Blocks)
	require.EqualValues(t, 3, r.Files)
	_, err = s.Tree(ctx, perigee.PartInput{CID: gone})
	require.ErrorIs(t, err, perigee.Unavailable)
	_, err = s.Tree(ctx, perigee.PartInput{CID: inPlace.CID})
	require.ErrorIs(t, err, perigee.Unavailable)
	checkFile(t, s, held, ".", randBytes(12, 2<<20))
	for name, b := range files {
		checkFile(t, s, kept.CID, name, b)
	}
	release()
	release()
	_, err = s.GC(ctx)
	require.NoError(t, err)
	require.Less(t, packBytes(t, s), int64(9<<20), "packs are rewritten")
	for name, b := range files {
		checkFile(t, s, kept.CID, name, b)
	}
	require.NoError(t, s.Unpin(ctx, kept.CID, "job/1"))
	r, err = s.GC(ctx)
	require.NoError(t, err)
	require.Zero(t, r.Kept)
	require.Zero(t, packBytes(t, s))
}

// TestGCRandom collects while others add, pin, unpin, hold and read: nothing
// that is pinned or held may ever be missing.
func TestGCRandom(t *testing.T) {
	ctx := context.Background()
	s := newStore(t)
	dir := t.TempDir()
	stop := time.Now().Add(1500 * time.Millisecond)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(g), 1))
			owner := fmt.Sprintf("job/%d", g)
			mine := map[perigee.CID][]byte{}
			for i := 0; time.Now().Before(stop); i++ {
				// Few seeds, so that goroutines share content.
				seed := uint64(rng.IntN(12))
				b := randBytes(seed, 1+int(seed)*40_000)
				switch rng.IntN(4) {
				case 0, 1:
					o := AddOptions{Pin: owner, Chunker: "size-65536"}
					var a Added
					var err error
					if rng.IntN(2) == 0 {
						a, err = s.AddReader(ctx, bytes.NewReader(b), o)
					} else {
						p := filepath.Join(dir, fmt.Sprint(seed, "-", g))
						if _, serr := os.Stat(p); serr != nil {
							os.WriteFile(p, b, 0o644)
						}
						o.InPlace = true
						a, err = s.AddPath(ctx, p, o)
					}
					if err != nil {
						t.Error(err)
						return
					}
					mine[a.CID] = b
				case 2:
					for c := range mine {
						release := s.Hold(c)
						if err := s.Unpin(ctx, c, owner); err != nil {
							t.Error(err)
						}
						checkLocal(t, s, c, mine[c])
						if rng.IntN(2) == 0 {
							if err := s.Pin(ctx, c, owner); err != nil {
								t.Error(err)
							}
						} else {
							delete(mine, c)
						}
						release()
						break
					}
				case 3:
					for c, b := range mine {
						checkLocal(t, s, c, b)
					}
				}
			}
			for c, b := range mine {
				checkLocal(t, s, c, b)
			}
		})
	}
	for time.Now().Before(stop) {
		if _, err := s.GC(ctx); err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
	_, err := s.GC(ctx)
	require.NoError(t, err)
	pins, err := s.Pins(ctx)
	require.NoError(t, err)
	for _, p := range pins {
		require.True(t, p.Complete)
		v, err := s.Verify(ctx, p.CID)
		require.NoError(t, err)
		require.True(t, v.OK(), "%+v", v)
	}
}

func checkLocal(t testing.TB, s *Store, c perigee.CID, want []byte) {
	f, err := s.OpenFile(context.Background(), c)
	if err != nil {
		t.Errorf("open %s: %v", c, err)
		return
	}
	got, err := io.ReadAll(f)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s: %v", c, err)
	}
}

func TestInPlaceChanges(t *testing.T) {
	ctx := context.Background()
	b := randBytes(20, 3<<20)
	for _, prof := range []string{"unixfs-v1-2025", "unixfs-v0-2015"} {
		for name, change := range map[string]func(p string){
			"overwritten": func(p string) {
				f, _ := os.OpenFile(p, os.O_WRONLY, 0)
				f.WriteAt([]byte("!!"), 1<<20+5)
				f.Close()
			},
			"same time": func(p string) { // as if nothing had happened
				fi, _ := os.Stat(p)
				f, _ := os.OpenFile(p, os.O_WRONLY, 0)
				f.WriteAt([]byte("!!"), 1<<20+5)
				f.Close()
				os.Chtimes(p, fi.ModTime(), fi.ModTime())
			},
			"cut":     func(p string) { os.Truncate(p, 100) },
			"removed": func(p string) { os.Remove(p) },
			"a pipe":  func(p string) { os.Remove(p); syscall.Mkfifo(p, 0o600) },
			"a link":  func(p string) { os.Rename(p, p+"2"); os.Symlink("/etc/passwd", p) },
		} {
			t.Run(prof+" "+name, func(t *testing.T) {
				s := newStore(t)
				dir := writeTree(t, map[string][]byte{"data.bin": b})
				p := filepath.Join(dir, "data.bin")
				a, err := s.AddPath(ctx, p, AddOptions{InPlace: true, Profile: prof})
				require.NoError(t, err)
				change(p)
				tr, err := s.Tree(ctx, perigee.PartInput{CID: a.CID})
				require.NoError(t, err)
				_, err = tr.Open(".")
				require.ErrorIs(t, err, perigee.Corrupt)
				require.ErrorContains(t, err, "data.bin")
				n, err := s.LocalBytes(ctx, perigee.PartInput{CID: a.CID, Size: a.Size})
				require.NoError(t, err)
				require.Less(t, n, a.Size)
				v, err := s.Verify(ctx, a.CID)
				require.NoError(t, err)
				require.False(t, v.OK())
				pins, err := s.Pins(ctx)
				require.NoError(t, err)
				require.False(t, pins[0].Complete)
			})
		}
	}
}

func TestInPlaceTouched(t *testing.T) {
	ctx := context.Background()
	s := newStore(t)
	b := randBytes(21, 3<<20)
	p := filepath.Join(writeTree(t, map[string][]byte{"f": b}), "f")
	a, err := s.AddPath(ctx, p, AddOptions{InPlace: true})
	require.NoError(t, err)
	later := time.Now().Add(time.Hour)
	require.NoError(t, os.Chtimes(p, later, later))
	checkFile(t, s, a.CID, ".", b)
	id, _, err := s.fileID(p)
	require.NoError(t, err)
	row, err := s.fileByID(id)
	require.NoError(t, err)
	require.Equal(t, later.UnixNano(), row.MTime, "found unchanged, the new status is kept")

	// A changed file is fetched anew from a node that has the old content.
	h, _ := holderWith(t, b, AddOptions{})
	to := newStore(t, onHost(t))
	_, err = to.AddPath(ctx, p, AddOptions{InPlace: true})
	require.NoError(t, err)
	require.NoError(t, os.Truncate(p, 1<<20))
	join(t, to, h)
	_, err = mustTree(t, to, perigee.PartInput{CID: a.CID}).Open(".")
	require.ErrorIs(t, err, perigee.Corrupt)
	_, err = to.Fetch(ctx, perigee.PartInput{CID: a.CID}, nil, nil)
	require.NoError(t, err)
	checkFile(t, to, a.CID, ".", b)

	// The same path with new content is a new root; the old one is not complete.
	again, err := s.AddPath(ctx, p, AddOptions{InPlace: true})
	require.NoError(t, err)
	require.NotEqual(t, a.CID, again.CID)
	checkFile(t, s, again.CID, ".", b[:1<<20])
}

func TestRefused(t *testing.T) {
	ctx := context.Background()
	s := newStore(t)
	dir := t.TempDir()
	_, err := s.AddPath(ctx, filepath.Join(dir, "absent"), AddOptions{})
	require.ErrorIs(t, err, perigee.NotFound)
	require.NoError(t, syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600))
	_, err = s.AddPath(ctx, dir, AddOptions{})
	require.ErrorIs(t, err, perigee.Invalid)
	require.ErrorContains(t, err, "named pipe")
	require.NoError(t, os.Remove(filepath.Join(dir, "pipe")))
	l, err := net.Listen("unix", filepath.Join(dir, "sock"))
	require.NoError(t, err)
	defer l.Close()
	_, err = s.AddPath(ctx, dir, AddOptions{InPlace: true})
	require.ErrorContains(t, err, "socket")
	_, err = s.AddPath(ctx, "/dev/null", AddOptions{})
	require.ErrorContains(t, err, "device")
	_, err = s.GetBlock(ctx, perigee.CID{})
	require.ErrorIs(t, err, perigee.Invalid)
	r, err := s.GC(ctx)
	require.NoError(t, err)
	require.Zero(t, r.Kept, "refused adds leave nothing")
}

func entriesOf(es ...Entry) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for _, e := range es {
			if !yield(e, nil) {
				return
			}
		}
	}
}

func fileEntry(path, content string) Entry {
	return Entry{Path: path, Kind: perigee.KindFile, Open: func() (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(content)), nil
	}}
}

func TestAddEntries(t *testing.T) {
	ctx := context.Background()
	s := newStore(t)
	a, err := s.AddEntries(ctx, entriesOf(fileEntry("z/b", "2"), fileEntry("a", "1"), Entry{Path: "empty", Kind: perigee.KindDir},
		Entry{Path: "l", Kind: perigee.KindSymlink, Target: "a"}, Entry{Path: "z", Kind: perigee.KindDir}), AddOptions{Pin: "job/x"})
	require.NoError(t, err)
	dir := writeTree(t, map[string][]byte{"z/b": []byte("2"), "a": []byte("1")})
	require.NoError(t, os.Mkdir(filepath.Join(dir, "empty"), 0o755))
	require.NoError(t, os.Symlink("a", filepath.Join(dir, "l")))
	b, err := s.AddPath(ctx, dir, AddOptions{})
	require.NoError(t, err)
	require.Equal(t, b.CID, a.CID)
	require.EqualValues(t, 3, a.Files)
	require.Zero(t, packBytes(t, s), "small results stay in the index")
	for _, bad := range []Entry{fileEntry("../x", ""), fileEntry("", ""), fileEntry("/x", ""), fileEntry("a//b", ""), fileEntry("a\x00", "")} {
		_, err := s.AddEntries(ctx, entriesOf(bad), AddOptions{})
		require.ErrorIs(t, err, perigee.Invalid, bad.Path)
	}
	_, err = s.AddEntries(ctx, entriesOf(fileEntry("a", "1"), fileEntry("a", "2")), AddOptions{})
	require.ErrorIs(t, err, perigee.Invalid)
	_, err = s.AddEntries(ctx, entriesOf(fileEntry("a", "1"), fileEntry("a/b", "2")), AddOptions{})
	require.ErrorIs(t, err, perigee.Invalid)

	absent := perigee.SumCID(perigee.CodecDagPB, []byte("elsewhere"))
	c, err := s.Combine(ctx, []Named{{"0", a.CID}, {"1", absent}}, "job/x")
	require.NoError(t, err)
	got, err := s.Resolve(ctx, "/ipfs/"+c.String()+"/0/z/b")
	require.NoError(t, err)
	require.Equal(t, perigee.SumCID(perigee.CodecRaw, []byte("2")), got)
	_, err = s.Resolve(ctx, c.String()+"/0/nope")
	require.ErrorIs(t, err, perigee.NotFound)
}

// TestInterrupted breaks adds off in every way and looks for debris.
func TestInterrupted(t *testing.T) {
	ctx := context.Background()
	index := db.Memory()
	dir := t.TempDir()
	open := func() *Store {
		s, err := Open(ctx, Config{Dir: dir, DB: index})
		require.NoError(t, err)
		return s
	}
	s := open()
	first := mustAdd(t, s, randBytes(30, 3<<20))
	before := packBytes(t, s)

	// The reader fails.
	_, err := s.AddReader(ctx, io.MultiReader(bytes.NewReader(randBytes(31, 3<<20)), errReader{}), AddOptions{})
	require.ErrorContains(t, err, "broken")
	// The caller gives up.
	cctx, cancel := context.WithCancel(ctx)
	_, err = s.AddReader(cctx, io.MultiReader(bytes.NewReader(randBytes(32, 3<<20)), cancelReader{cancel}), AddOptions{})
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, before, packBytes(t, s))

	// The process dies: bytes in the pack, nothing in the index.
	w := s.newSession()
	c := perigee.SumCID(perigee.CodecRaw, randBytes(33, 1<<20))
	require.NoError(t, w.put(c.Cid(), randBytes(33, 1<<20)))
	require.Greater(t, packBytes(t, s), before)
	s2 := open()
	require.Equal(t, before, packBytes(t, s2), "the tail is cut off")
	_, err = s2.LocalBlock(c)
	require.ErrorIs(t, err, perigee.NotFound)
	checkFile(t, s2, first, ".", randBytes(30, 3<<20))

	// It dies between the index and the pin.
	w = s2.newSession()
	require.NoError(t, w.put(c.Cid(), randBytes(33, 1<<20)))
	require.NoError(t, w.commit())
	s3 := open()
	_, err = s3.LocalBlock(c)
	require.NoError(t, err)
	_, err = s3.GC(ctx)
	require.NoError(t, err)
	_, err = s3.LocalBlock(c)
	require.ErrorIs(t, err, perigee.NotFound)
	checkFile(t, s3, first, ".", randBytes(30, 3<<20))
	require.NoError(t, s3.Close())
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, errors.New("broken") }

type cancelReader struct{ cancel func() }

func (r cancelReader) Read([]byte) (int, error) { r.cancel(); return 0, io.EOF }

func TestDiskFull(t *testing.T) {
	ctx := context.Background()
	s := newStore(t)
	first := mustAdd(t, s, randBytes(40, 3<<20))
	before := packBytes(t, s)
	real := s.packs.writeAt
	left := int64(5 << 20)
	var mu sync.Mutex
	s.packs.writeAt = func(f *os.File, b []byte, off int64) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		if left -= int64(len(b)); left < 0 {
			return 0, &os.PathError{Op: "write", Path: f.Name(), Err: syscall.ENOSPC}
		}
		return real(f, b, off)
	}
	dir := writeTree(t, map[string][]byte{"big": randBytes(41, 9<<20)})
	_, err := s.AddPath(ctx, dir, AddOptions{})
	require.ErrorIs(t, err, perigee.Exhausted)
	require.ErrorContains(t, err, s.packs.dir)
	require.Equal(t, before, packBytes(t, s))
	checkFile(t, s, first, ".", randBytes(40, 3<<20))
	mu.Lock()
	left = 100 << 20
	mu.Unlock()
	a, err := s.AddPath(ctx, dir, AddOptions{})
	require.NoError(t, err)
	checkFile(t, s, a.CID, "big", randBytes(41, 9<<20))
}

func TestCAR(t *testing.T) {
	ctx := context.Background()
	from, to := newStore(t), newStore(t)
	files := testFiles()
	a, err := from.AddPath(ctx, writeTree(t, files), AddOptions{InPlace: true})
	require.NoError(t, err)
	var car bytes.Buffer
	require.NoError(t, from.ExportCAR(ctx, a.CID, &car))
	roots, err := to.ImportCAR(ctx, bytes.NewReader(car.Bytes()), "job/1")
	require.NoError(t, err)
	require.Equal(t, []perigee.CID{a.CID}, roots)
	for name, b := range files {
		checkFile(t, to, a.CID, name, b)
	}
	var again bytes.Buffer
	require.NoError(t, to.ExportCAR(ctx, a.CID, &again))
	require.True(t, bytes.Equal(car.Bytes(), again.Bytes()), "an export is reproducible")

	v2 := append([]byte{0x0a}, carV2Pragma...)
	head := make([]byte, 40)
	head[16], head[24], head[25], head[26], head[27] = 60, byte(car.Len()), byte(car.Len()>>8), byte(car.Len()>>16), byte(car.Len()>>24)
	v2 = append(append(append(v2, head...), make([]byte, 9)...), car.Bytes()...)
	v2 = append(v2, "an index"...)
	_, err = newStore(t).ImportCAR(ctx, bytes.NewReader(v2), "")
	require.NoError(t, err)

	broken := bytes.Clone(car.Bytes())
	broken[len(broken)-1] ^= 1
	for name, c := range map[string]struct {
		car  []byte
		kind perigee.Kind
	}{
		"empty":        {nil, perigee.Corrupt},
		"text":         {[]byte("hello, this is not a CAR"), perigee.Corrupt},
		"cut":          {car.Bytes()[:car.Len()-10], perigee.Corrupt},
		"flipped":      {broken, perigee.Corrupt},
		"incomplete":   {car.Bytes()[:59+1], perigee.Corrupt},
		"only a head":  {car.Bytes()[:1+int(car.Bytes()[0])], perigee.Invalid},
		"huge section": {append(bytes.Clone(car.Bytes()[:1+int(car.Bytes()[0])]), 0xff, 0xff, 0xff, 0xff, 0x7f), perigee.Corrupt},
	} {
		s := newStore(t)
		_, err := s.ImportCAR(ctx, bytes.NewReader(c.car), "")
		require.ErrorIs(t, err, c.kind, name)
		pins, err := s.Pins(ctx)
		require.NoError(t, err)
		require.Empty(t, pins)
	}
}

func TestVerifyPack(t *testing.T) {
	ctx := context.Background()
	s := newStore(t)
	c := mustAdd(t, s, randBytes(50, 4<<20))
	v, err := s.Verify(ctx, c)
	require.NoError(t, err)
	require.True(t, v.OK())
	require.EqualValues(t, 5, v.Blocks)
	names, err := os.ReadDir(s.packs.dir)
	require.NoError(t, err)
	f, err := os.OpenFile(filepath.Join(s.packs.dir, names[0].Name()), os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = f.WriteAt([]byte("rotten"), 2<<20+100)
	require.NoError(t, err)
	f.Close()
	v, err = s.Verify(ctx, c)
	require.NoError(t, err)
	require.EqualValues(t, 1, v.BadCount)
	require.Equal(t, filepath.Join(s.packs.dir, names[0].Name()), v.Bad[0].Path)
	n, err := s.LocalBytes(ctx, perigee.PartInput{CID: c, Size: 4 << 20})
	require.NoError(t, err)
	require.EqualValues(t, 3<<20, n)
}
