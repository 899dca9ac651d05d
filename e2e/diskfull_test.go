package e2e

import (
	"bytes"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/client"
)

// smallDisk makes a file system of a few megabytes for a node's home. It needs
// root, which the continuous integration has.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("perigee-test", dir, "tmpfs", 0, "size="+size); err != nil {
		if errors.Is(err, syscall.EPERM) {
			t.Skip("mounting a small file system needs root")
		}
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

func home(path string) option { return func(n *testNode) { n.home = path } }

// randomFile writes n random bytes and returns the file's path.
func randomFile(t *testing.T, n int) string {
	t.Helper()
	b := make([]byte, n)
	_, _ = rand.Read(b)
	path := filepath.Join(t.TempDir(), "random")
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestDiskFull gives a node a disk that runs full: what does not fit is refused
// with a reason, what is there stays usable, and a job goes elsewhere.
func TestDiskFull(t *testing.T) {
	disk := smallDisk(t, "48m")
	tight := startNode(t, home(filepath.Join(disk, "home")))
	kept := tight.addPath(t, tree(t, someFiles(3)), false)
	big := randomFile(t, 64<<20)

	_, err := tight.Add(t.Context(), big, client.AddOptions{}, nil)
	if !errors.Is(err, perigee.Exhausted) || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("adding more than fits gave: %v", err)
	}
	if r := perigeeCmd(t, tight.home, "data", "verify", kept.CID.String()); r.code != 0 {
		t.Errorf("what was there before is no good: %s%s", r.stdout, r.stderr)
	}
	// The node goes on: a small job runs on what is left of its disk.
	waitOffers(t, tight, 1)
	exactlyOnce(t, tight, tight.runJob(t, slowJob(t, tight, kept.CID, "1")))

	// An input that the tight provider cannot take in runs where it can be.
	asker := startNode(t, peer(tight))
	waitOffers(t, asker, 2)
	input := asker.addPath(t, big, true)
	job := slowJob(t, asker, input.CID, "1")
	job.Placement.Exclude = []string{string(asker.id)}
	job.Attempts = 2
	st := asker.runJob(t, job)
	if st.State != perigee.JobFailed || !strings.Contains(st.Error.Message, "no space left") && !strings.Contains(st.Error.Message, "disk") {
		t.Errorf("the job that fits nowhere is %s: %+v", st.State, st.Error)
	}
	job.Placement.Exclude = nil
	out := exactlyOnce(t, asker, asker.runJob(t, job))
	if !bytes.Contains([]byte(out), []byte("67108864")) {
		t.Errorf("output: %s", out)
	}
	if _, err := tight.Status(t.Context()); err != nil {
		t.Errorf("the node with the full disk does not go on: %v", err)
	}
}
