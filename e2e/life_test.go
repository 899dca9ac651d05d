package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/wasm/wasmtest"
)

// tree writes files into a fresh directory and returns its path.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// program builds a C program and returns the module's path.
func program(t *testing.T, name string) string {
	t.Helper()
	return wasmtest.C(t, name)
}

// someFiles are n files of a few kilobytes, each of its own.
func someFiles(n int) map[string]string {
	files := map[string]string{}
	for i := range n {
		files[fmt.Sprintf("log-%02d.txt", i)] = strings.Repeat(fmt.Sprintf("line of file %d\n", i), 500+i)
	}
	return files
}

// TestJobRunsAtTheData is the thinnest whole path: data in place on one node, a
// job from another, the result back.
func TestJobRunsAtTheData(t *testing.T) {
	nodes := startNetwork(t, 2)
	asker, holder := nodes[0], nodes[1]
	data := holder.addPath(t, tree(t, someFiles(6)), true)
	module := asker.addPath(t, program(t, "spin"), false)
	st := asker.runJob(t, perigee.Job{
		Wasm:   &perigee.Wasm{Module: module.CID.String(), Args: []string{"/in"}},
		Inputs: []perigee.Input{{Source: data.CID.String(), Split: "file"}},
	})
	completed(t, st)
	if st.Parts != 6 || st.Done != 6 || len(st.Executions) != 6 {
		t.Fatalf("6 files made %d parts, %d done, %d executions", st.Parts, st.Done, len(st.Executions))
	}
	for _, x := range st.Executions {
		if x.Provider != holder.id || x.BytesFetched != 0 || x.BytesRead == 0 || x.Fuel == 0 {
			t.Errorf("part %d ran at %s with %d bytes fetched, %d read, fuel %d; the data lies at %s",
				x.Part, x.Provider, x.BytesFetched, x.BytesRead, x.Fuel, holder.id)
		}
		r, err := asker.Receipt(t.Context(), x.Receipt)
		if err != nil || !r.Valid {
			t.Errorf("receipt of part %d: %v %s", x.Part, err, r.Reason)
		}
		out := asker.read(t, x.Output.String()+"/stdout")
		if want := "/in/" + x.Label; !strings.HasPrefix(out, want) {
			t.Errorf("part %d printed %q, want %q first", x.Part, out, want)
		}
	}

	again := asker.runJob(t, perigee.Job{
		Wasm:   &perigee.Wasm{Module: module.CID.String(), Args: []string{"/in"}},
		Inputs: []perigee.Input{{Source: data.CID.String(), Split: "file"}},
	})
	completed(t, again)
	if again.Reused != 6 || again.Output != st.Output {
		t.Errorf("the same job again reused %d of 6 parts, output %s and %s", again.Reused, again.Output, st.Output)
	}
}

// TestMerge runs a merge over the parts' outputs.
func TestMerge(t *testing.T) {
	nodes := startNetwork(t, 3)
	data := nodes[1].addPath(t, tree(t, someFiles(5)), true)
	st := nodes[0].runJob(t, perigee.Job{
		Wasm:   &perigee.Wasm{Module: nodes[0].addPath(t, program(t, "spin"), false).CID.String(), Args: []string{"/in"}},
		Inputs: []perigee.Input{{Source: data.CID.String(), Split: "file"}},
		Merge:  &perigee.Wasm{Module: nodes[0].addPath(t, program(t, "concat"), false).CID.String()},
	})
	completed(t, st)
	out := nodes[0].read(t, st.Output.String()+"/stdout")
	if strings.Count(out, "done") != 5 || strings.Index(out, "log-00") > strings.Index(out, "log-04") {
		t.Errorf("the merge printed %q", out)
	}
}

// TestSplitByBytesSeesEveryLineOnce counts lines over ranges of one file.
func TestSplitByBytesSeesEveryLineOnce(t *testing.T) {
	n := startNode(t)
	waitOffers(t, n, 1)
	var b strings.Builder
	for i := range 20000 {
		fmt.Fprintf(&b, "%d %s\n", i, strings.Repeat("x", i%97))
	}
	dir := tree(t, map[string]string{"big.txt": b.String()})
	data := n.addPath(t, filepath.Join(dir, "big.txt"), true)
	st := n.runJob(t, perigee.Job{
		Wasm:   &perigee.Wasm{Module: n.addPath(t, wasmtest.C(t, "cat"), false).CID.String(), Args: []string{"/in"}},
		Inputs: []perigee.Input{{Source: data.CID.String(), Split: "bytes=64KiB"}},
	})
	completed(t, st)
	if st.Parts < 10 {
		t.Fatalf("%d parts of %d bytes", st.Parts, b.Len())
	}
	var all strings.Builder
	for i := range st.Parts {
		all.WriteString(n.read(t, fmt.Sprintf("%s/%d/stdout", st.Output, i)))
	}
	if all.String() != b.String() {
		t.Errorf("the parts together saw %d bytes, the file has %d", all.Len(), b.Len())
	}
}

// TestAlone runs a program in a fresh home without any set-up.
func TestAlone(t *testing.T) {
	home := filepath.Join(t.TempDir(), "fresh")
	dir := tree(t, someFiles(2))
	r := perigeeCmd(t, home, "run", "--input", dir, program(t, "spin"), "--", "/in")
	if r.code != 0 || strings.Count(r.stdout, "/in/log-") != 2 || !strings.Contains(r.stdout, "done ") {
		t.Errorf("ended with %d\nstdout: %s\nstderr: %s", r.code, r.stdout, r.stderr)
	}
	r = perigeeCmd(t, home, "run", "--input", dir, wasmtest.C(t, "exit"), "--", "7")
	if r.code != 17 {
		t.Errorf("a guest that exits with 7 gave %d, want 17: %s", r.code, r.stderr)
	}
}

// TestCopiesWithoutData runs copies of a program that differ by their index only.
func TestCopiesWithoutData(t *testing.T) {
	home := filepath.Join(t.TempDir(), "home")
	out := ok(t, home, "run", "--split", "count=3", program(t, "spin"))
	for _, part := range []string{"part 0 of 3", "part 1 of 3", "part 2 of 3"} {
		if strings.Count(out, part) != 1 {
			t.Errorf("%q is not there once: %s", part, out)
		}
	}
	file := filepath.Join(t.TempDir(), "job.yaml")
	if err := os.WriteFile(file, []byte("wasm: {module: "+program(t, "spin")+"}\ninputs: [{split: count=2}]\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	n := startNode(t)
	waitOffers(t, n, 1)
	id := strings.TrimSpace(ok(t, n.home, "job", "submit", file))
	if st := n.waitJob(t, id, time.Minute); st.Parts != 2 {
		t.Errorf("%d parts", st.Parts)
	}
}
