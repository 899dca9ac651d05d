package api_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/api"
	"github.com/perigee-network/perigee/client"
)

var (
	testKey     = ed25519.NewKeyFromSeed(make([]byte, 32))
	testAccount = perigee.AccountIDOf(testKey.Public().(ed25519.PublicKey))
	testPeer    = perigee.PeerIDOf(testKey.Public().(ed25519.PublicKey))
	someCID     = perigee.SumCID(perigee.CodecRaw, []byte("some"))
)

// ask makes a request as a stranger would, and returns the answer and its body.
func ask(t *testing.T, method, url, body string, header ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+testToken)
	for i := 0; i+1 < len(header); i += 2 {
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp, string(b)
}

// requireProblem checks an answer that is an error.
func requireProblem(t *testing.T, resp *http.Response, body string, status int, kind perigee.Kind, parts ...string) client.Problem {
	t.Helper()
	var p client.Problem
	require.Equal(t, status, resp.StatusCode, body)
	require.Equal(t, "application/problem+json", resp.Header.Get("Content-Type"))
	require.NoError(t, json.Unmarshal([]byte(body), &p), body)
	require.Equal(t, kind, p.Kind)
	require.Equal(t, status, p.Status)
	for _, part := range parts {
		require.Contains(t, p.Message, part)
	}
	return p
}

func TestNodeRoutes(t *testing.T) {
	m := newMemory()
	m.offers = []perigee.Offer{{Provider: testPeer, Region: "EU/DE"}, {Provider: "x", Region: "EUX"}}
	c, _ := overTCP(t, m)
	ctx := t.Context()
	st, err := c.Status(ctx)
	require.NoError(t, err)
	require.Equal(t, perigee.PeerID("12D3KooWfake"), st.PeerID)
	peers, err := c.Peers(ctx)
	require.NoError(t, err)
	require.Len(t, peers, 1)
	require.NoError(t, c.Connect(ctx, "/ip4/127.0.0.1/tcp/1/p2p/x"))
	require.Equal(t, []string{"/ip4/127.0.0.1/tcp/1/p2p/x"}, m.connected)
	offers, err := c.Providers(ctx, "EU")
	require.NoError(t, err)
	require.Len(t, offers, 1)
	o, err := c.Provider(ctx, string(testPeer))
	require.NoError(t, err)
	require.Equal(t, "EU/DE", o.Region)
	_, err = c.Provider(ctx, "self")
	require.NoError(t, err)
	_, err = c.Provider(ctx, "nonsense")
	require.ErrorIs(t, err, perigee.Invalid)
	m.offers = nil
	_, err = c.Provider(ctx, string(testPeer))
	require.ErrorIs(t, err, perigee.NotFound)
}

// TestKinds shows that every kind of error arrives as it left.
func TestKinds(t *testing.T) {
	m := newMemory()
	c, url := overTCP(t, m)
	for kind, status := range map[perigee.Kind]int{
		perigee.Invalid: 400, perigee.NotFound: 404, perigee.Refused: 403, perigee.Unavailable: 503, perigee.Busy: 429,
		perigee.Timeout: 504, perigee.Exhausted: 507, perigee.Corrupt: 422, perigee.Cancelled: 409,
		perigee.Unsupported: 501, perigee.Internal: 500,
	} {
		m.fail = perigee.E("x", kind, "what %s was", kind)
		resp, body := ask(t, "GET", url+"/v1/status", "")
		requireProblem(t, resp, body, status, kind, "what "+string(kind)+" was")
		_, err := c.Status(t.Context())
		require.ErrorIs(t, err, kind)
		require.EqualError(t, err, "what "+string(kind)+" was")
	}
	m.fail = io.ErrUnexpectedEOF
	resp, body := ask(t, "GET", url+"/v1/status", "")
	requireProblem(t, resp, body, 500, perigee.Internal)
}

func TestGuard(t *testing.T) {
	m := newMemory()
	_, url := overTCP(t, m, func(c *api.Config) { c.Hosts = []string{"node.example"} })
	for _, tc := range []struct {
		name   string
		header []string
		status int
		says   string
	}{
		{"right", nil, 200, ""},
		{"no token", []string{"Authorization", ""}, 401, "/home/x/.perigee/token"},
		{"wrong token", []string{"Authorization", "Bearer nope"}, 401, "the token is wrong"},
		{"basic", []string{"Authorization", "Basic " + testToken}, 401, "the token is wrong"},
		{"lower case scheme", []string{"Authorization", "bearer " + testToken}, 200, ""},
		{"rebound host", []string{"Host", "evil.example:80"}, 403, "evil.example"},
		{"localhost", []string{"Host", "localhost:1"}, 200, ""},
		{"IPv6", []string{"Host", "[::1]:1"}, 200, ""},
		{"configured host", []string{"Host", "Node.example:4"}, 200, ""},
		{"foreign page", []string{"Origin", "https://evil.example"}, 403, "evil.example"},
		{"null origin", []string{"Origin", "null"}, 403, "null"},
		{"own page", []string{"Origin", url}, 200, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			resp, body := ask(t, "GET", url+"/v1/status", "", tc.header...)
			if tc.status == 200 {
				require.Equal(t, 200, resp.StatusCode, body)
				require.Empty(t, resp.Header.Get("Access-Control-Allow-Origin"))
				return
			}
			requireProblem(t, resp, body, tc.status, perigee.Refused, tc.says)
			require.Equal(t, tc.status == 401, resp.Header.Get("WWW-Authenticate") != "")
		})
	}
	for _, p := range []string{"/metrics", "/v1/nonsense", "/"} {
		resp, body := ask(t, "GET", url+p, "", "Authorization", "")
		requireProblem(t, resp, body, 401, perigee.Refused)
	}
	resp, _ := ask(t, "GET", url+"/openapi.json", "", "Authorization", "")
	require.Equal(t, 200, resp.StatusCode)
	resp, body := ask(t, "GET", url+"/metrics", "")
	require.Equal(t, 200, resp.StatusCode)
	require.Contains(t, body, "go_goroutines")

	_, url = overTCP(t, m, func(c *api.Config) { c.Token = "" })
	resp, body = ask(t, "GET", url+"/v1/status", "", "Authorization", "Bearer ")
	requireProblem(t, resp, body, 401, perigee.Refused)
}

func TestUnknownRoutes(t *testing.T) {
	_, url := overTCP(t, newMemory())
	resp, body := ask(t, "GET", url+"/v1/nonsense", "")
	requireProblem(t, resp, body, 404, perigee.NotFound, "/v1/nonsense", "openapi.json")
	resp, body = ask(t, "DELETE", url+"/v1/status", "")
	requireProblem(t, resp, body, 405, perigee.Unsupported, "DELETE", "GET")
	require.Contains(t, resp.Header.Get("Allow"), "GET")
}

func TestBadRequests(t *testing.T) {
	_, url := overTCP(t, newMemory())
	for _, tc := range []struct {
		name, method, path, body string
		status                   int
		says                     []string
	}{
		{"limit", "GET", "/v1/jobs?limit=many", "", 400, []string{"query.limit", "integer"}},
		{"limit range", "GET", "/v1/jobs?limit=0", "", 400, []string{"query.limit", ">= 1"}},
		{"no JSON", "POST", "/v1/peers/connect", "{", 400, []string{""}},
		{"missing field", "POST", "/v1/peers/connect", "{}", 400, []string{"body", "addr"}},
		{"unknown field", "POST", "/v1/peers/connect", `{"addr":"x","adr":1}`, 400, []string{"body.adr"}},
		{"wrong type", "POST", "/v1/peers/connect", `{"addr":5}`, 400, []string{"body.addr", "string"}},
		{"CID", "GET", "/v1/data/nonsense/stat", "", 400, []string{"nonsense", "CID"}},
		{"wait", "POST", "/v1/jobs?wait=soon", "wasm: {module: x}", 400, []string{"query.wait", "soon"}},
		{"job key", "POST", "/v1/jobs", "wasm: {module: x}\ninptus: []", 400, []string{"inptus", "line 2", "inputs"}},
		{"empty job", "POST", "/v1/jobs", "", 400, []string{""}},
		{"dataset CID", "POST", "/v1/datasets", `{"name":"a","parts":[{"path":"x","cid":""}]}`, 400, []string{"body.parts[0].cid"}},
		{"dataset owner", "GET", "/v1/datasets/nobody/name", "", 400, []string{"me"}},
		{"receipt", "POST", "/v1/receipts/verify", "rubbish", 400, []string{"receipt"}},
		{"no receipt", "GET", "/v1/receipts/" + someCID.String(), "", 400, []string{"receipt"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			resp, body := ask(t, tc.method, url+tc.path, tc.body, "Content-Type", "application/json")
			requireProblem(t, resp, body, tc.status, perigee.Invalid, tc.says...)
			require.NotContains(t, body, "goroutine")
		})
	}
}

func TestBodyLimits(t *testing.T) {
	_, url := overTCP(t, newMemory())
	resp, body := ask(t, "POST", url+"/v1/jobs", strings.Repeat("#", perigee.MaxJobFile+1))
	requireProblem(t, resp, body, 413, perigee.Invalid, "1048576 bytes")
	job := "wasm: {module: " + someCID.String() + "}\n#"
	resp, body = ask(t, "POST", url+"/v1/jobs", job+strings.Repeat("x", perigee.MaxJobFile-len(job)))
	require.Equal(t, 202, resp.StatusCode, body)
	resp, body = ask(t, "POST", url+"/v1/peers/connect", `{"addr":"`+strings.Repeat("x", 1<<20)+`"}`, "Content-Type", "application/json")
	requireProblem(t, resp, body, 413, perigee.Invalid)
}

func TestPanic(t *testing.T) {
	m := newMemory()
	m.panics = true
	_, url := overTCP(t, m)
	resp, body := ask(t, "GET", url+"/v1/status", "")
	requireProblem(t, resp, body, 500, perigee.Internal)
	require.NotContains(t, body, "secret")
	require.NotContains(t, body, "goroutine")
}

func TestAddPath(t *testing.T) {
	m := newMemory()
	remote, _ := overTCP(t, m)
	_, err := remote.AddPath(t.Context(), "/etc/passwd", client.AddOptions{}, nil)
	require.ErrorIs(t, err, perigee.Refused)
	require.Contains(t, err.Error(), "/v1/data/upload")
	file := filepath.Join(t.TempDir(), "f")
	require.NoError(t, os.WriteFile(file, []byte("bytes"), 0o600))
	_, err = remote.Add(t.Context(), file, client.AddOptions{InPlace: true}, nil)
	require.ErrorIs(t, err, perigee.Refused)

	local := overSocket(t, m)
	_, err = local.AddPath(t.Context(), "relative", client.AddOptions{}, nil)
	require.ErrorIs(t, err, perigee.Invalid)
	added, err := local.Add(t.Context(), file, client.AddOptions{InPlace: true, Name: "n"}, nil)
	require.NoError(t, err)
	require.Equal(t, perigee.SumCID(perigee.CodecRaw, []byte(file)), added.CID)
	require.Equal(t, client.AddOptions{InPlace: true, Name: "n"}, m.lastAdd)

	var told []client.Progress
	again, err := local.Add(t.Context(), file, client.AddOptions{}, func(p client.Progress) { told = append(told, p) })
	require.NoError(t, err)
	require.Equal(t, added.CID, again.CID)
	require.Equal(t, client.Progress{Done: 2, Total: 2}, told[len(told)-1])

	m.fail = perigee.E("x", perigee.Exhausted, "the disk is full")
	_, err = local.Add(t.Context(), file, client.AddOptions{}, func(client.Progress) {})
	require.ErrorIs(t, err, perigee.Exhausted)
	_, err = local.Add(t.Context(), "/nonexistent", client.AddOptions{}, nil)
	require.ErrorIs(t, err, perigee.NotFound)
}

// TestTrees sends a directory, reads it back in every way there is, and writes
// it to disk again.
func TestTrees(t *testing.T) {
	m := newMemory()
	c, url := overTCP(t, m)
	ctx := t.Context()
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "a", "b"), 0o755))
	big := bytes.Repeat([]byte("0123456789"), 50_000)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "a", "b", "deep"), big, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "top"), []byte("top"), 0o600))
	require.NoError(t, os.Symlink("a/b/deep", filepath.Join(dir, "link")))
	var last client.Progress
	added, err := c.Add(ctx, dir, client.AddOptions{Name: "tree"}, func(p client.Progress) { last = p })
	require.NoError(t, err)
	require.EqualValues(t, 2, added.Files)
	require.EqualValues(t, len(big)+3, added.Size)
	require.Greater(t, last.Done, added.Size)
	require.Equal(t, "tree", m.lastAdd.Name)

	list, err := c.Ls(ctx, added.CID.String())
	require.NoError(t, err)
	require.Len(t, list, 3)
	require.Equal(t, client.Entry{Name: "link", Kind: client.KindSymlink, Target: "a/b/deep"}, list[1])
	info, err := c.Stat(ctx, added.CID.String()+"/a/b/deep")
	require.NoError(t, err)
	require.EqualValues(t, len(big), info.Size)
	_, err = c.Stat(ctx, added.CID.String()+"/a/nope")
	require.ErrorIs(t, err, perigee.NotFound)
	r, err := c.Open(ctx, added.CID.String()+"/top")
	require.NoError(t, err)
	b, err := io.ReadAll(r)
	require.NoError(t, err)
	require.Equal(t, "top", string(b))
	require.NoError(t, r.Close())

	dest := filepath.Join(t.TempDir(), "out")
	for range 2 { // a second time over what is there
		require.NoError(t, c.Get(ctx, added.CID.String(), dest, nil))
		b, err = os.ReadFile(filepath.Join(dest, "link"))
		require.NoError(t, err)
		require.Equal(t, big, b)
	}
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, c.Get(ctx, added.CID.String()+"/a/b/deep", file, nil))
	b, err = os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, big, b)
	left, err := os.ReadDir(filepath.Dir(file))
	require.NoError(t, err)
	require.Len(t, left, 1, "no temporary files stay")

	resp, body := ask(t, "GET", url+"/v1/data/"+added.CID.String()+"/file?path=a/b/deep", "", "Range", "bytes=10-19")
	require.Equal(t, 206, resp.StatusCode)
	require.Equal(t, "0123456789", body)
	require.Contains(t, resp.Header.Get("Cache-Control"), "immutable")
	resp, _ = ask(t, "GET", url+"/v1/data/"+added.CID.String()+"/file?path=top", "", "If-None-Match", resp.Header.Get("Etag"))
	require.Equal(t, 200, resp.StatusCode, "another file has another tag")
}

func TestTransferFailures(t *testing.T) {
	m := newMemory()
	c, url := overTCP(t, m)
	ctx := t.Context()
	big := bytes.Repeat([]byte("x"), 300_000)
	added, err := c.AddReader(ctx, bytes.NewReader(big), client.AddOptions{})
	require.NoError(t, err)

	// A file whose holder goes away for a while is read to its end.
	m.slow = make(chan struct{})
	r, err := c.Open(ctx, added.CID.String())
	require.NoError(t, err)
	first := make([]byte, 50_000)
	_, err = io.ReadFull(r, first)
	require.NoError(t, err)
	close(m.slow)
	rest, err := io.ReadAll(r)
	require.NoError(t, err)
	require.Len(t, rest, len(big)-len(first))

	// One that stays away gives the reason.
	m.slow = make(chan struct{})
	m.files[added.CID] = big
	r, err = c.Open(ctx, added.CID.String())
	require.NoError(t, err)
	delete(m.files, added.CID)
	_, err = io.ReadAll(r)
	require.ErrorIs(t, err, perigee.NotFound)

	// A failure before the first byte is a problem, one half-way never looks whole.
	_, err = c.Open(ctx, someCID.String())
	require.ErrorIs(t, err, perigee.NotFound)
	err = c.ExportCAR(ctx, someCID, io.Discard)
	require.ErrorIs(t, err, perigee.NotFound)
	m.slow = nil
	m.files[added.CID] = big
	var car bytes.Buffer
	require.NoError(t, c.ExportCAR(ctx, added.CID, &car))
	require.Equal(t, big, car.Bytes())
	m.fail = perigee.E("x", perigee.Corrupt, "a block is bad")
	require.ErrorIs(t, c.ExportCAR(ctx, added.CID, io.Discard), perigee.Corrupt)
	req, err := http.NewRequest("GET", url+"/v1/data/"+added.CID.String()+"/car", nil)
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+testToken)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	_, err = io.ReadAll(resp.Body)
	require.Error(t, err, "without trailers the connection breaks")
	require.NoError(t, resp.Body.Close())
}

func TestHostileArchives(t *testing.T) {
	c, _ := overTCP(t, newMemory())
	for name, archive := range hostileArchives(t) {
		_, err := c.AddTar(t.Context(), bytes.NewReader(archive), client.AddOptions{})
		require.ErrorIs(t, err, perigee.Invalid, name)
	}
}

func TestKeeping(t *testing.T) {
	m := newMemory()
	c, _ := overTCP(t, m)
	ctx := t.Context()
	added, err := c.AddReader(ctx, strings.NewReader("abc"), client.AddOptions{Chunker: "size-1", Profile: "unixfs-v1-2025"})
	require.NoError(t, err)
	require.Equal(t, client.AddOptions{Chunker: "size-1", Profile: "unixfs-v1-2025"}, m.lastAdd)
	pins, err := c.Pins(ctx)
	require.NoError(t, err)
	require.Len(t, pins, 1)
	require.NoError(t, c.Unpin(ctx, added.CID))
	require.ErrorIs(t, c.Remove(ctx, added.CID), perigee.NotFound)
	var told int
	info, err := c.Pin(ctx, added.CID, func(client.Progress) { told++ })
	require.NoError(t, err)
	require.EqualValues(t, 3, info.Size)
	require.Positive(t, told)
	info, err = c.Pin(ctx, added.CID, nil)
	require.NoError(t, err)
	require.Equal(t, client.KindFile, info.Kind)
	v, err := c.Verify(ctx, added.CID, nil)
	require.NoError(t, err)
	require.True(t, v.OK)
	h, err := c.Holders(ctx, added.CID)
	require.NoError(t, err)
	require.True(t, h[0].Local)
	g, err := c.GC(ctx)
	require.NoError(t, err)
	require.EqualValues(t, 20, g.Bytes)
	roots, err := c.ImportCAR(ctx, strings.NewReader("car"))
	require.NoError(t, err)
	require.Len(t, roots, 1)
}

func TestDatasets(t *testing.T) {
	c, _ := overTCP(t, newMemory())
	ctx := t.Context()
	d, err := c.Publish(ctx, client.PublishRequest{Name: "logs", Parts: []client.DatasetRoot{{Path: "a", CID: someCID}}, Join: "any"})
	require.NoError(t, err)
	require.Equal(t, testAccount, d.Owner)
	list, err := c.Datasets(ctx)
	require.NoError(t, err)
	require.Equal(t, 1, list[0].Parts)
	d, err = c.Join(ctx, string(testAccount), "logs", client.JoinRequest{Parts: []client.DatasetRoot{{Path: "b", CID: someCID}}})
	require.NoError(t, err)
	require.Len(t, d.Parts, 2)
	_, err = c.Dataset(ctx, string(testAccount), "other")
	require.ErrorIs(t, err, perigee.NotFound)
	_, err = c.Publish(ctx, client.PublishRequest{Name: "logs", Join: "some", Parts: []client.DatasetRoot{{Path: "a", CID: someCID}}})
	require.ErrorIs(t, err, perigee.Invalid)
	require.Contains(t, err.Error(), "body.join")
}

func TestReceipts(t *testing.T) {
	m := newMemory()
	c, _ := overTCP(t, m)
	ctx := t.Context()
	receipt := &perigee.Receipt{Version: 1, Provider: testPeer, Requester: testPeer, Result: perigee.Result{Output: someCID}}
	receipt.Part.Module = someCID
	var err error
	receipt.JobKey, err = receipt.Part.Key()
	require.NoError(t, err)
	require.NoError(t, perigee.Sign(receipt, func(b []byte) []byte { return ed25519.Sign(testKey, b) }))
	id, raw, err := perigee.LinkTo(receipt)
	require.NoError(t, err)
	m.blocks[id] = raw

	r, err := c.Receipt(ctx, id)
	require.NoError(t, err)
	require.True(t, r.Valid, r.Reason)
	require.Equal(t, testPeer, r.Receipt.Provider)
	plain, err := json.Marshal(r.Receipt)
	require.NoError(t, err)
	for _, form := range [][]byte{raw, plain, []byte(`{"cid":"` + id.String() + `"}`)} {
		v, err := c.VerifyReceipt(ctx, form)
		require.NoError(t, err)
		require.True(t, v.Valid, v.Reason)
		require.Equal(t, id, v.CID)
	}
	forged := *r.Receipt
	forged.Result.Fuel++
	plain, err = json.Marshal(forged)
	require.NoError(t, err)
	v, err := c.VerifyReceipt(ctx, plain)
	require.NoError(t, err)
	require.False(t, v.Valid)
	require.Contains(t, v.Reason, "signature")

	other, _, err := perigee.LinkTo(&forged)
	require.NoError(t, err)
	m.blocks[other] = raw
	_, err = c.Receipt(ctx, other)
	require.ErrorIs(t, err, perigee.Corrupt)
}

// TestServe shows that a server ends although a stream is open, and that a
// client that leaves frees its stream.
func TestServe(t *testing.T) {
	m := newMemory()
	m.hold = true
	srv := httptest.NewUnstartedServer(nil)
	defer srv.Close()
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- serve(m).Serve(ctx, srv.Listener, false) }()
	c, err := client.New(client.Config{URL: "http://" + srv.Listener.Addr().String(), Token: testToken})
	require.NoError(t, err)
	id, err := c.Submit(ctx, perigee.Job{Wasm: &perigee.Wasm{Module: someCID.String()}}, "")
	require.NoError(t, err)
	watching := make(chan struct{}, 1)
	wctx, leave := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- c.Watch(wctx, id, func(perigee.JobStatus) error { watching <- struct{}{}; return nil })
	}()
	select {
	case <-watching:
	case err := <-ended:
		t.Fatalf("the stream ended at once: %v", err)
	}
	stop()
	select {
	case err := <-done:
		require.NoError(t, err)
	case <-time.After(10 * time.Second):
		t.Fatal("an open stream held the server up")
	}
	leave()
	require.Error(t, <-ended)
}
