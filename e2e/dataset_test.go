package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/client"
)

// TestDatasetOverSeveralNodes publishes a dataset on one node, joins it from
// another, both through the command line, and runs a job over it by name.
func TestDatasetOverSeveralNodes(t *testing.T) {
	nodes := startNetwork(t, 3)
	ok(t, nodes[1].home, "dataset", "publish", "logs", tree(t, map[string]string{"a.txt": "from the first\n"}))
	owner := decode[client.Status](t, ok(t, nodes[1].home, "status", "--json")).Account
	name := string(owner) + "/logs"
	ok(t, nodes[2].home, "dataset", "join", name, tree(t, map[string]string{"b.txt": "from the second\n"}))

	eventually(t, 20*time.Second, "the asker knows both parts", func() error {
		set := decode[perigee.Dataset](t, ok(t, nodes[0].home, "dataset", "show", name, "--json"))
		if len(set.Parts) != 2 {
			return perigee.NotFound
		}
		return nil
	})
	if out := ok(t, nodes[1].home, "dataset", "show", "me/logs"); !strings.Contains(out, "b.txt") {
		t.Errorf("the owner sees: %s", out)
	}
	r := perigeeCmd(t, nodes[0].home, "run", "--json", "--input", name, "--split", "part", program(t, "spin"), "--", "/in")
	if r.code != 0 {
		t.Fatalf("the job ended with %d: %s", r.code, r.stderr)
	}
	st, err := nodes[0].Jobs(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	full, err := nodes[0].Job(t.Context(), st[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	ran := map[perigee.PeerID]int{}
	for _, x := range full.Executions {
		ran[x.Provider]++
		if x.BytesFetched > 0 {
			t.Errorf("part %d fetched %d bytes", x.Part, x.BytesFetched)
		}
	}
	if ran[nodes[1].id] != 1 || ran[nodes[2].id] != 1 {
		t.Errorf("the parts ran at %v; they lie on %s and %s", ran, nodes[1].id, nodes[2].id)
	}
}

// TestUploadOverTCP adds a directory through the API's TCP listener, where no
// path means anything to the node, and gets it back.
func TestUploadOverTCP(t *testing.T) {
	n := startNode(t)
	files := someFiles(20)
	files["deep/er/file"] = strings.Repeat("deep", 300_000)
	files["empty"] = ""
	dir := tree(t, files)
	remote := []string{"--api", n.url(t)}
	sent := decode[client.Added](t, ok(t, n.home, append(remote, "data", "add", dir, "--json")...))
	if here := n.addPath(t, dir, true); here.CID != sent.CID {
		t.Errorf("the same directory is %s when sent and %s in place", sent.CID, here.CID)
	}
	dest := filepath.Join(t.TempDir(), "back")
	ok(t, n.home, append(remote, "data", "get", sent.CID.String(), "-o", dest)...)
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join(dest, name))
		if err != nil || string(got) != want {
			t.Errorf("%s came back with %d bytes, want %d (%v)", name, len(got), len(want), err)
		}
	}
}
