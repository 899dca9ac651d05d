package db

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/perigee-network/perigee"
)

const crashEnv = "PERIGEE_DB_CRASH_DIR"

// TestMain lets this program be its own child: a writer to be killed.
func TestMain(m *testing.M) {
	if dir := os.Getenv(crashEnv); dir != "" {
		crashWriter(dir)
	}
	os.Exit(m.Run())
}

// crashWriter writes records for ever and prints each once Write returned.
func crashWriter(dir string) {
	d, err := Open(dir)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	for i := 0; ; i++ {
		var b Batch
		b.Put(fmt.Appendf(nil, "a/%06d", i), fmt.Append(nil, i))
		b.Put(fmt.Appendf(nil, "b/%06d", i), fmt.Append(nil, i))
		if err := d.Write(&b); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(i)
	}
}

func TestCrash(t *testing.T) {
	dir := t.TempDir()
	for round := range 3 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), crashEnv+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		last, n := "", 0
		for lines := bufio.NewScanner(out); lines.Scan(); n++ {
			last = lines.Text()
			if n == 20+30*round {
				if _, err := Open(dir); !errors.Is(err, perigee.Busy) || !strings.Contains(err.Error(), "another perigee") {
					t.Errorf("opened twice: %v", err)
				}
				_ = cmd.Process.Kill()
			}
		}
		_ = cmd.Wait()
		d, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		var acknowledged int
		if _, err := fmt.Sscan(last, &acknowledged); err != nil {
			t.Fatalf("the writer said %q", last)
		}
		a, b := list(t, d, "a/", ""), list(t, d, "b/", "")
		if len(a) <= acknowledged || len(a) != len(b) {
			t.Fatalf("%d were acknowledged; %d and %d are there", acknowledged+1, len(a), len(b))
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestReopen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "deep", "db")
	d, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	put(t, d, "k", "v")
	var b Batch
	b.Put([]byte("lazy"), []byte("v"))
	if err := d.WriteLazy(&b); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); !errors.Is(err, perigee.Busy) {
		t.Errorf("opened twice: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if d, err = Open(dir); err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	want(t, list(t, d, "", ""), "k=v", "lazy=v")
}

func TestLazyIsSynced(t *testing.T) {
	mem := vfs.NewCrashableMem()
	s, err := open("/db", mem)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var b Batch
	b.Put([]byte("k"), []byte("v"))
	if err := s.WriteLazy(&b); err != nil {
		t.Fatal(err)
	}
	time.Sleep(lazyDelay + 300*time.Millisecond)
	after, err := open("/db", mem.CrashClone(vfs.CrashCloneCfg{})) // without what was not synced
	if err != nil {
		t.Fatal(err)
	}
	defer after.Close()
	want(t, list(t, after, "", ""), "k=v")
}

func TestOpenErrors(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(file); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("a file as directory: %v", err)
	}

	dir := t.TempDir()
	d, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	put(t, d, "k", "v")
	d.Close()
	manifests, _ := filepath.Glob(filepath.Join(dir, "MANIFEST-*"))
	for _, m := range manifests {
		if err := os.WriteFile(m, []byte("not a manifest at all, but long enough to be read as one"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Open(dir); !errors.Is(err, perigee.Corrupt) || !strings.Contains(err.Error(), dir) {
		t.Errorf("a damaged store: %v", err)
	}
}

// TestBrokenDisk lets the disk fail under concurrent writers: all get an error
// that names the directory, reads go on, the process lives, Close returns, and
// what was acknowledged is there afterwards.
func TestBrokenDisk(t *testing.T) {
	for _, c := range []struct {
		name  string
		cause error
		kind  perigee.Kind
		size  int
	}{
		{"full", &os.PathError{Op: "write", Path: "log", Err: syscall.ENOSPC}, perigee.Exhausted, 100},
		{"full, large values", &os.PathError{Op: "write", Path: "log", Err: syscall.ENOSPC}, perigee.Exhausted, 3 << 20},
		{"input/output error", &os.PathError{Op: "sync", Path: "log", Err: syscall.EIO}, perigee.Internal, 100},
		{"input/output error, large values", &os.PathError{Op: "sync", Path: "log", Err: syscall.EIO}, perigee.Internal, 3 << 20},
	} {
		t.Run(c.name, func(t *testing.T) {
			mem := vfs.NewMem()
			var broken atomic.Bool
			fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
				if broken.Load() && op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
					return c.cause
				}
				return nil
			}))
			s, err := open("/db", fs)
			if err != nil {
				t.Fatal(err)
			}
			put(t, s, "kept", "v")
			broken.Store(true)
			var wg sync.WaitGroup
			for w := range 8 {
				wg.Go(func() {
					for i := range 8 {
						var b Batch
						b.Put(fmt.Appendf(nil, "x%d/%d", w, i), make([]byte, c.size))
						if err := s.Write(&b); !errors.Is(err, c.kind) || !strings.Contains(err.Error(), "/db") {
							t.Errorf("write on a broken disk: %v", err)
						}
					}
				})
			}
			wg.Wait()
			if v, err := s.Get([]byte("kept")); err != nil || string(v) != "v" {
				t.Errorf("read on a broken disk: %q, %v", v, err)
			}
			_ = s.Close()
			broken.Store(false)

			again, err := open("/db", cloneOf(t, mem))
			if err != nil {
				t.Fatal(err)
			}
			defer again.Close()
			if v, err := again.Get([]byte("kept")); err != nil || string(v) != "v" {
				t.Errorf("after restart: %q, %v", v, err)
			}
		})
	}
}

// TestDiskFullForAWhile refuses space for tables, not for the log: writes fail
// while that lasts and work again afterwards.
func TestDiskFullForAWhile(t *testing.T) {
	var full atomic.Bool
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if full.Load() && op.Kind.ReadOrWrite() == errorfs.OpIsWrite && strings.HasSuffix(op.Path, ".sst") {
			return &os.PathError{Op: "write", Path: op.Path, Err: syscall.ENOSPC}
		}
		return nil
	}))
	s, err := open("/db", fs)
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, "kept", "v")
	full.Store(true)
	var b Batch
	b.Put([]byte("big"), make([]byte, 3<<20))
	failed := false
	for range 20 {
		if err := s.Write(&b); errors.Is(err, perigee.Exhausted) && strings.Contains(err.Error(), "/db") {
			failed = true
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if !failed {
		t.Error("no write failed")
	}
	if v, err := s.Get([]byte("kept")); err != nil || string(v) != "v" {
		t.Errorf("read on a full disk: %q, %v", v, err)
	}
	full.Store(false)
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if err = s.Write(&b); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("still failing with space again: %v", err)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// cloneOf copies the store's files, since a failed store may keep its lock.
func cloneOf(t *testing.T, mem *vfs.MemFS) vfs.FS {
	t.Helper()
	to := vfs.NewMem()
	if _, err := vfs.Clone(mem, to, "/db", "/db"); err != nil && err != io.EOF {
		t.Fatal(err)
	}
	return to
}
