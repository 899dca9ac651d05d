package db

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/perigee-network/perigee"
)

// implementations are what must pass the suite. reopen closes and opens again
// where the store outlives its handle.
var implementations = []struct {
	name string
	open func(t *testing.T) DB
}{
	{"memory", func(*testing.T) DB { return Memory() }},
	{"pebble", func(t *testing.T) DB {
		d, err := Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		return d
	}},
}

func each(t *testing.T, fn func(t *testing.T, d DB)) {
	for _, im := range implementations {
		t.Run(im.name, func(t *testing.T) {
			d := im.open(t)
			defer d.Close()
			fn(t, d)
		})
	}
}

func put(t *testing.T, d DB, kv ...string) {
	t.Helper()
	var b Batch
	for i := 0; i < len(kv); i += 2 {
		b.Put([]byte(kv[i]), []byte(kv[i+1]))
	}
	if err := d.Write(&b); err != nil {
		t.Fatal(err)
	}
}

func list(t *testing.T, d DB, prefix, after string) []string {
	t.Helper()
	var a []byte
	if after != "" {
		a = []byte(after)
	}
	var got []string
	if err := d.Scan([]byte(prefix), a, func(k, v []byte) error {
		got = append(got, string(k)+"="+string(v))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return got
}

func want(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Fatalf("got %q, want %q", got, want)
	}
}

func TestGetPutDelete(t *testing.T) {
	each(t, func(t *testing.T, d DB) {
		if _, err := d.Get([]byte("a")); !errors.Is(err, perigee.NotFound) {
			t.Fatalf("missing key: %v", err)
		}
		put(t, d, "a", "1", "b", "", "a", "2")
		v, err := d.Get([]byte("a"))
		if err != nil || string(v) != "2" {
			t.Fatalf("%q, %v", v, err)
		}
		v[0] = 'x' // a copy
		want(t, list(t, d, "", ""), "a=2", "b=")
		var b Batch
		b.Delete([]byte("a"))
		b.Delete([]byte("nothing"))
		if err := d.Write(&b); err != nil {
			t.Fatal(err)
		}
		want(t, list(t, d, "", ""), "b=")
	})
}

func TestBatchOrderAndReuse(t *testing.T) {
	each(t, func(t *testing.T, d DB) {
		put(t, d, "p/1", "old", "q", "1")
		var b Batch
		key := []byte("p/2")
		b.Put(key, []byte("gone"))
		key[0] = 'z' // the batch has its own copy
		b.DeletePrefix([]byte("p/"))
		b.Put([]byte("p/3"), []byte("new"))
		if b.Len() != 3 {
			t.Fatal(b.Len())
		}
		for range 2 {
			if err := d.WriteLazy(&b); err != nil {
				t.Fatal(err)
			}
			want(t, list(t, d, "", ""), "p/3=new", "q=1")
		}
		if err := d.Write(&Batch{}); err != nil {
			t.Fatal(err)
		}
	})
}

func TestScan(t *testing.T) {
	each(t, func(t *testing.T, d DB) {
		put(t, d, "a", "1", "b/1", "2", "b/2", "3", "b/3", "4", "c", "5", "\xff\xff", "6")
		want(t, list(t, d, "b/", ""), "b/1=2", "b/2=3", "b/3=4")
		want(t, list(t, d, "b/", "b/1"), "b/2=3", "b/3=4")
		want(t, list(t, d, "b/", "b/15"), "b/2=3", "b/3=4")
		want(t, list(t, d, "b/", "b/3"))
		want(t, list(t, d, "b/", "a"), "b/1=2", "b/2=3", "b/3=4")
		want(t, list(t, d, "b/", "c"))
		want(t, list(t, d, "\xff", ""), "\xff\xff=6")
		want(t, list(t, d, "", "b/3"), "c=5", "\xff\xff=6")

		n := 0
		if err := d.Scan(nil, nil, func(_, _ []byte) error { n++; return fmt.Errorf("enough: %w", Stop) }); err != nil || n != 1 {
			t.Fatal(n, err)
		}
		boom := errors.New("boom")
		if err := d.Scan(nil, nil, func(_, _ []byte) error { return boom }); err != boom {
			t.Fatal(err)
		}
	})
}

func TestScanIsASnapshot(t *testing.T) {
	each(t, func(t *testing.T, d DB) {
		put(t, d, "k1", "1", "k2", "2")
		var got []string
		if err := d.Scan([]byte("k"), nil, func(k, v []byte) error {
			got = append(got, string(k)+"="+string(v))
			var b Batch
			b.Put([]byte("k3"), []byte("3"))
			b.Delete([]byte("k2"))
			return d.Write(&b)
		}); err != nil {
			t.Fatal(err)
		}
		want(t, got, "k1=1", "k2=2")
		want(t, list(t, d, "", ""), "k1=1", "k3=3")
	})
}

func TestBadBatches(t *testing.T) {
	var empty, prefix, all, long, big Batch
	empty.Put(nil, []byte("v"))
	prefix.DeletePrefix(nil)
	all.DeletePrefix([]byte("\xff"))
	long.Delete(make([]byte, MaxKey+1))
	big.Put([]byte("k"), make([]byte, MaxValue+1))
	each(t, func(t *testing.T, d DB) {
		for _, b := range []*Batch{&empty, &prefix, &all, &long, &big} {
			if err := d.Write(b); !errors.Is(err, perigee.Invalid) {
				t.Errorf("got %v", err)
			}
		}
	})
}

func TestClosed(t *testing.T) {
	each(t, func(t *testing.T, d DB) {
		for range 2 {
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
		}
		var b Batch
		b.Put([]byte("k"), nil)
		_, err := d.Get([]byte("k"))
		for _, err := range []error{err, d.Write(&b), d.WriteLazy(&b), d.Scan(nil, nil, nil)} {
			if !errors.Is(err, perigee.Unavailable) {
				t.Errorf("got %v", err)
			}
		}
	})
}

func TestConcurrent(t *testing.T) {
	each(t, func(t *testing.T, d DB) {
		var wg sync.WaitGroup
		for w := range 16 {
			wg.Go(func() {
				for i := range 20 {
					var b Batch
					k := fmt.Appendf(nil, "%02d/%03d", w, i)
					b.Put(k, k)
					write := d.Write
					if i%2 == 1 {
						write = d.WriteLazy
					}
					if err := write(&b); err != nil {
						t.Error(err)
						return
					}
					if v, err := d.Get(k); err != nil || !bytes.Equal(v, k) {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		if n := len(list(t, d, "", "")); n != 320 {
			t.Fatalf("%d records", n)
		}
	})
}

// TestTwins runs one random history on both stores; they must agree.
func TestTwins(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	m := Memory()
	p := implementations[1].open(t)
	defer p.Close()
	key := func() string { return string([]byte{byte(r.IntN(4)), byte(r.IntN(256))})[:1+r.IntN(2)] }
	for range 300 {
		var b Batch
		for range r.IntN(8) {
			switch k := []byte(key()); r.IntN(6) {
			case 0:
				b.Delete(k)
			case 1:
				b.DeletePrefix(k)
			default:
				b.Put(k, []byte(key()))
			}
		}
		if err := errors.Join(m.Write(&b), p.WriteLazy(&b)); err != nil {
			t.Fatal(err)
		}
		prefix, after := key(), key()
		want(t, list(t, m, prefix, after), list(t, p, prefix, after)...)
	}
	want(t, list(t, m, "", ""), list(t, p, "", "")...)
}
