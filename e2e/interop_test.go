package e2e

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// interopProfiles are the ways of making DAGs that both programs know: the
// present one and the older one with chunks of 256 KiB.
var interopProfiles = []string{"unixfs-v1-2025", "unixfs-v0-2015"}

// Both programs give the same root CIDs to the same data.
func TestInteropSameRoots(t *testing.T) {
	node := startNode(t)
	data := map[string]string{
		"file of 100 MB":      interopFile(t, 100_000_000),
		"tree of 1,000 files": interopTree(t, 1000, 0),
		// Long names make the directory too large for one block: it is sharded.
		"wide directory": interopTree(t, 1500, 200),
	}
	for _, profile := range interopProfiles {
		k := newKubo(t, profile)
		for name, path := range data {
			t.Run(profile+"/"+name, func(t *testing.T) {
				want := k.run("add", "--only-hash", "--quieter", "--recursive", path)
				require.Equal(t, want, interopAdd(t, node, path, "--profile", profile, "--in-place"), "indexed in place")
				require.Equal(t, want, interopAdd(t, node, path, "--profile", profile), "added as a copy")
			})
		}
	}
}

// Kubo fetches what a Perigee node has only indexed where it lies, and a
// Perigee node fetches what Kubo holds, over real sockets.
func TestInteropFetch(t *testing.T) {
	file, tree := interopFile(t, 100_000_000), interopTree(t, 1000, 0)
	// Kubo cannot fetch the empty block from anyone, another Kubo included.
	full := interopTree(t, 1000, 0)
	require.NoError(t, os.WriteFile(filepath.Join(full, interopEmpty), []byte("not empty"), 0o644))
	for _, profile := range interopProfiles {
		t.Run("Kubo from Perigee/"+profile, func(t *testing.T) {
			node, k := startNode(t), newKubo(t, profile)
			k.serve()
			k.run("swarm", "connect", node.addr)
			for _, path := range []string{file, full} {
				cid := interopAdd(t, node, path, "--profile", profile, "--in-place")
				got := filepath.Join(t.TempDir(), "got")
				start := time.Now()
				k.run("get", "--output", got, cid)
				t.Logf("Kubo fetched %s in %s", filepath.Base(path), time.Since(start).Round(time.Millisecond))
				requireSameTree(t, path, got)
			}
		})
		t.Run("Perigee from Kubo/"+profile, func(t *testing.T) {
			node, k := startNode(t), newKubo(t, profile)
			ok(t, node.home, "connect", k.serve())
			for _, path := range []string{file, tree} {
				cid := k.run("add", "--quieter", "--recursive", path)
				got := filepath.Join(t.TempDir(), "got")
				start := time.Now()
				ok(t, node.home, "data", "get", cid, "-o", got)
				t.Logf("Perigee fetched %s in %s", filepath.Base(path), time.Since(start).Round(time.Millisecond))
				requireSameTree(t, path, got)
			}
		})
	}
}

// interopAdd adds a path with the flags of `perigee data add` and returns the root.
func interopAdd(t *testing.T, n *testNode, path string, flags ...string) string {
	t.Helper()
	out := ok(t, n.home, append([]string{"data", "add", "--json", path}, flags...)...)
	return decode[struct{ CID string }](t, out).CID
}

// interopFile writes a file of n random bytes, always the same ones.
func interopFile(t *testing.T, n int) string {
	t.Helper()
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{1}).Read(b)
	path := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(path, b, 0o644))
	return path
}

// interopEmpty is the empty file of interopTree.
const interopEmpty = "0/0/file 0.bin"

// interopTree writes a tree of n files whose sizes meet every case of a chunker:
// empty, small, exactly a chunk, more than one. With pad, all lie in one
// directory under names that long.
func interopTree(t *testing.T, n, pad int) string {
	t.Helper()
	root := filepath.Join(t.TempDir(), "tree")
	random := rand.NewChaCha8([32]byte{2})
	for i := range n {
		name := fmt.Sprintf("%d/%d/file %d.bin", i%7, i%3, i)
		if pad > 0 {
			name = fmt.Sprintf("%04d%s", i, strings.Repeat("x", pad))
		}
		size := i * 13
		switch i {
		case 1, 2, 3:
			size = 256<<10 + i - 2
		case 4, 5, 6:
			size = 1<<20 + i - 5
		case 7:
			size = 3<<20 + 17
		}
		b := make([]byte, size)
		random.Read(b)
		path := filepath.Join(root, filepath.FromSlash(name))
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, b, 0o644))
	}
	return root
}

// requireSameTree compares two files or trees: names and contents.
func requireSameTree(t *testing.T, want, got string) {
	t.Helper()
	require.Equal(t, interopDigest(t, want), interopDigest(t, got))
}

// interopDigest is one line for each file below root.
func interopDigest(t *testing.T, root string) string {
	t.Helper()
	var out bytes.Buffer
	require.NoError(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		fmt.Fprintf(&out, "%x %s\n", sha256.Sum256(b), filepath.ToSlash(name))
		return err
	}))
	return out.String()
}
