// Package wasmtest builds WebAssembly programs for tests: C programs with
// clang and wasi-libc, Go programs with the go command. Results are kept in the
// user's cache directory by the hash of what they were made of, so that each is
// built once.
package wasmtest

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
)

var building sync.Mutex // one compiler at a time is enough

// C returns the path of the module built from wasm/testdata/src/NAME.c. It skips
// the test where there is no C compiler for WASI.
func C(tb testing.TB, name string) string {
	tb.Helper()
	return BuildC(tb, filepath.Join(sources(tb), name+".c"))
}

// Go returns the path of the module built from the directory
// wasm/testdata/src/NAME, a program in Go.
func Go(tb testing.TB, name string) string {
	tb.Helper()
	return BuildGo(tb, filepath.Join(sources(tb), name))
}

// sources returns the directory of the programs that come with this package.
func sources(tb testing.TB) string {
	_, file, _, ok := runtime.Caller(0)
	if !ok {
		tb.Fatal("wasmtest: cannot find its own source")
	}
	return filepath.Join(filepath.Dir(filepath.Dir(file)), "testdata", "src")
}

// BuildC builds one C file, with SIMD and at -O2; flags are added to the
// compiler's. It skips the test where there is no C compiler for WASI.
func BuildC(tb testing.TB, source string, flags ...string) string {
	tb.Helper()
	clang := ""
	for _, name := range []string{"clang-14", "clang"} {
		if path, err := exec.LookPath(name); err == nil {
			clang = path
			break
		}
	}
	if clang == "" {
		tb.Skip("wasmtest: no clang (on Debian: apt-get install clang-14 lld-14 wasi-libc libclang-rt-14-dev-wasm32)")
	}
	text, err := os.ReadFile(source)
	if err != nil {
		tb.Fatal(err)
	}
	args := append([]string{"--target=wasm32-wasi", "-O2", "-msimd128"}, flags...)
	return build(tb, hash("c", clang, args, text), func(out string) *exec.Cmd {
		return exec.Command(clang, append(args, "-o", out, source)...)
	})
}

// BuildGo builds the program in a directory for wasip1, without debug
// information.
func BuildGo(tb testing.TB, dir string) string {
	tb.Helper()
	parts := []any{"go", runtime.Version()}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		parts = append(parts, d.Name(), text)
		return err
	})
	if err != nil {
		tb.Fatal(err)
	}
	return build(tb, hash(parts...), func(out string) *exec.Cmd {
		cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", out, ".")
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0", "GOFLAGS=")
		return cmd
	})
}

func hash(parts ...any) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%q\n", p)
	}
	return hex.EncodeToString(h.Sum(nil)[:12])
}

// build returns the path of the module with a key, making it if need be.
func build(tb testing.TB, key string, command func(out string) *exec.Cmd) string {
	tb.Helper()
	base, err := os.UserCacheDir()
	if err != nil {
		base = os.TempDir()
	}
	dir := filepath.Join(base, "perigee-test")
	path := filepath.Join(dir, key+".wasm")
	building.Lock()
	defer building.Unlock()
	if _, err := os.Stat(path); err == nil {
		return path
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		tb.Fatal(err)
	}
	f, err := os.CreateTemp(dir, "building-*.wasm")
	if err != nil {
		tb.Fatal(err)
	}
	f.Close()
	defer os.Remove(f.Name())
	cmd := command(f.Name())
	if out, err := cmd.CombinedOutput(); err != nil {
		if strings.Contains(string(out), "wasi") && strings.Contains(string(out), "not found") {
			tb.Skipf("wasmtest: no C library for WASI: %s", out)
		}
		tb.Fatalf("wasmtest: %s: %v\n%s", strings.Join(cmd.Args, " "), err, out)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		tb.Fatal(err)
	}
	return path
}

// CacheDir returns a directory for the compiled modules of engines in tests
// that are not about compiling: shared and kept, so that each module is compiled
// once for each state of package wasm's source.
func CacheDir(tb testing.TB) string {
	tb.Helper()
	_, file, _, _ := runtime.Caller(0)
	sources, err := filepath.Glob(filepath.Join(filepath.Dir(filepath.Dir(file)), "*.go"))
	if err != nil || len(sources) == 0 {
		return tb.TempDir()
	}
	parts := []any{runtime.GOOS, runtime.GOARCH}
	for _, source := range sources {
		if strings.HasSuffix(source, "_test.go") {
			continue
		}
		text, err := os.ReadFile(source)
		if err != nil {
			tb.Fatal(err)
		}
		parts = append(parts, text)
	}
	base, err := os.UserCacheDir()
	if err != nil {
		base = os.TempDir()
	}
	return filepath.Join(base, "perigee-test", "compiled-"+hash(parts...))
}
