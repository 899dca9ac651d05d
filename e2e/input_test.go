package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/client"
	"github.com/perigee-network/perigee/wasm/wasmtest"
)

// noStackTrace fails the test when output looks like a crash.
func noStackTrace(t *testing.T, what, s string) {
	t.Helper()
	for _, sign := range []string{"panic:", "goroutine ", "runtime error", ".go:"} {
		if strings.Contains(s, sign) {
			t.Errorf("%s shows a stack trace or panic: %s", what, s)
		}
	}
}

// TestBadInputOnTheCommandLine gives the real command wrong things.
func TestBadInputOnTheCommandLine(t *testing.T) {
	n := startNode(t)
	waitOffers(t, n, 1)
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	hello := wasmtest.C(t, "hello")
	cid := n.addPath(t, hello, false).CID.String()
	absent := perigee.SumCID(perigee.CodecRaw, []byte("nobody holds these bytes")).String()
	text := file("text.wasm", "this is no module")
	noStart := file("nostart.wasm", "\x00asm\x01\x00\x00\x00")
	// (module (import "env" "secret" (func)) (func (export "_start")))
	imports := file("imports.wasm", "\x00asm\x01\x00\x00\x00\x01\x04\x01\x60\x00\x00\x02\x0e\x01\x03env\x06secret\x00\x00\x03\x02\x01\x00\x07\x0a\x01\x06_start\x00\x01\x0a\x04\x01\x02\x00\x0b")
	for _, c := range []struct {
		name string
		args []string
		code int
		want []string
	}{
		{"unknown command", []string{"rum"}, 2, []string{"rum", "run"}},
		{"unknown flag", []string{"run", "--inputs", "x", hello}, 2, []string{"--inputs"}},
		{"missing module", []string{"run", filepath.Join(dir, "none.wasm")}, 0, []string{"none.wasm"}},
		{"no WebAssembly", []string{"run", text}, 2, []string{"WebAssembly"}},
		{"no _start", []string{"run", noStart}, 2, []string{"_start"}},
		{"missing imports", []string{"run", imports}, 2, []string{"env", "secret"}},
		{"unknown key", []string{"job", "submit", file("key.yaml", "wasm: {module: "+cid+"}\nresources:\n  memroy: 1GiB\n")}, 2, []string{"line 3", "memroy", "memory"}},
		{"wrong type", []string{"job", "submit", file("type.yaml", "wasm: {module: "+cid+"}\nresources:\n  cpu: many\n")}, 2, []string{"line 3", "many"}},
		{"not YAML", []string{"job", "submit", file("not.yaml", "wasm: [\n")}, 2, []string{"line"}},
		{"bad CID", []string{"data", "get", "bafynotacid"}, 2, []string{"bafynotacid"}},
		{"unknown job", []string{"job", "show", "jnone"}, 3, []string{"jnone"}},
		{"unknown receipt", []string{"receipt", "verify", filepath.Join(dir, "none")}, 0, []string{"none"}},
		{"bad split", []string{"run", "--input", dir, "--split", "lines=4", hello}, 2, []string{"lines=4"}},
		{"impossible memory", []string{"run", "--memory", "900GiB", hello}, 2, []string{"memory"}},
		{"more memory than any node has", []string{"run", "--cpu", "4096", hello}, 4, []string{"4096", "has 2", n.id.Short()}},
		{"unreachable node", []string{"--api", "http://127.0.0.1:1", "status"}, 5, []string{"127.0.0.1:1"}},
		{"no node", []string{"--home", filepath.Join(dir, "nohome"), "status"}, 5, []string{"perigee serve"}},
		{"wrong token", []string{"--api", n.url(t), "--home", dir, "status"}, 4, []string{"token"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := perigeeCmd(t, n.home, c.args...)
			noStackTrace(t, c.name, r.stderr+r.stdout)
			if c.code != 0 && r.code != c.code || r.code == 0 {
				t.Errorf("exit code %d, want %d; %s", r.code, c.code, r.stderr)
			}
			for _, w := range c.want {
				if !strings.Contains(r.stderr, w) {
					t.Errorf("the message does not say %q: %s", w, r.stderr)
				}
			}
		})
	}
	t.Run("absent CID names who was asked", func(t *testing.T) {
		other := startNode(t, peer(n))
		eventually(t, 10*time.Second, "they are connected", func() error {
			p, err := other.Peers(t.Context())
			if err == nil && len(p) == 0 {
				err = perigee.NotFound
			}
			return err
		})
		begun := time.Now()
		r := perigeeCmd(t, n.home, "run", "--input", absent, hello)
		if r.code == 0 || time.Since(begun) > 45*time.Second {
			t.Errorf("ended with %d after %s", r.code, time.Since(begun))
		}
		if !strings.Contains(r.stderr, absent) || !strings.Contains(r.stderr, other.id.Short()) {
			t.Errorf("the message names neither what was sought nor who was asked: %s", r.stderr)
		}
	})
}

// url is the node's API over TCP.
func (n *testNode) url(t *testing.T) string {
	t.Helper()
	st, err := n.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return st.API
}

// TestBadInputOverTheAPI gives the HTTP API wrong things.
func TestBadInputOverTheAPI(t *testing.T) {
	n := startNode(t)
	waitOffers(t, n, 1)
	base := n.url(t)
	token, err := os.ReadFile(filepath.Join(n.home, client.TokenFile))
	if err != nil {
		t.Fatal(err)
	}
	auth := "Bearer " + strings.TrimSpace(string(token))
	for _, c := range []struct {
		name, method, path, body, auth string
		status                         int
		want                           string
	}{
		{"no token", "GET", "/v1/status", "", "", 401, "token"},
		{"wrong token", "GET", "/v1/status", "", "Bearer wrong", 401, "token"},
		{"unknown route", "GET", "/v1/nothing", "", auth, 404, ""},
		{"wrong method", "DELETE", "/v1/status", "", auth, 405, ""},
		{"unknown key", "POST", "/v1/jobs", "wasm: {modul: x}", auth, 400, "module"},
		{"wrong type", "POST", "/v1/jobs", `{"wasm": 7}`, auth, 400, "wasm"},
		{"empty body", "POST", "/v1/jobs", "", auth, 400, ""},
		{"body too large", "POST", "/v1/jobs", strings.Repeat("#", perigee.MaxJobFile+1), auth, 413, ""},
		{"local path over TCP", "POST", "/v1/data/add", `{"path":"/etc/passwd"}`, auth, 403, "socket"},
		{"unknown job", "GET", "/v1/jobs/jnone", "", auth, 404, "jnone"},
		{"bad CID", "GET", "/v1/data/xyz/stat", "", auth, 400, "xyz"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			req, err := http.NewRequestWithContext(ctx, c.method, base+c.path, bytes.NewReader([]byte(c.body)))
			if err != nil {
				t.Fatal(err)
			}
			if c.auth != "" {
				req.Header.Set("Authorization", c.auth)
			}
			if strings.HasPrefix(c.body, "{") {
				req.Header.Set("Content-Type", "application/json")
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			b, _ := io.ReadAll(resp.Body)
			noStackTrace(t, c.name, string(b))
			var p client.Problem
			if err := json.Unmarshal(b, &p); err != nil || p.Kind == "" || p.Message == "" {
				t.Errorf("the answer is no problem document: %s", b)
			}
			if resp.StatusCode != c.status || !strings.Contains(string(b), c.want) {
				t.Errorf("status %d, want %d naming %q: %s", resp.StatusCode, c.status, c.want, b)
			}
		})
	}
	if _, err := n.Status(t.Context()); err != nil {
		t.Errorf("the node does not go on: %v", err)
	}
}
