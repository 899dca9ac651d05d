package client

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perigee-network/perigee"
)

// against returns a client of a handler.
func against(t *testing.T, h http.HandlerFunc) *Client {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	c, err := New(Config{URL: srv.URL + "/"})
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

func TestNew(t *testing.T) {
	for _, bad := range []string{"", "localhost:1", "ftp://x", "http://", "unix://", "http://%zz"} {
		_, err := New(Config{URL: bad})
		require.ErrorIs(t, err, perigee.Invalid, bad)
	}
	c, err := New(Config{URL: "unix:///tmp/x.sock"})
	require.NoError(t, err)
	require.True(t, c.Local())
	_, err = c.Status(t.Context())
	require.ErrorIs(t, err, perigee.Unavailable)
	require.Contains(t, err.Error(), "perigee serve")
}

func TestContexts(t *testing.T) {
	block := make(chan struct{})
	c := against(t, func(http.ResponseWriter, *http.Request) { <-block })
	defer close(block)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := c.Status(ctx)
	require.ErrorIs(t, err, perigee.Timeout)
	ctx, cancel = context.WithCancel(t.Context())
	cancel()
	_, err = c.Status(ctx)
	require.ErrorIs(t, err, perigee.Cancelled)
}

func TestStrangers(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"HTML":      func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") },
		"plain 404": http.NotFound,
		"redirect":  func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/else", http.StatusFound) },
		"half an answer": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "99")
			fmt.Fprint(w, "{")
		},
	} {
		_, err := against(t, h).Status(t.Context())
		require.ErrorIs(t, err, perigee.Unavailable, name)
	}
}

func TestFromHome(t *testing.T) {
	home := t.TempDir()
	_, err := FromHome(home)
	require.ErrorIs(t, err, perigee.Unavailable)
	require.EqualError(t, err, "no node is running at "+home+": start one with: perigee serve")

	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewEncoder(w).Encode(Status{Version: r.Header.Get("Authorization")})
	}))
	require.NoError(t, os.WriteFile(filepath.Join(home, URLFile), []byte(srv.URL+"\n"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(home, TokenFile), []byte("secret\n"), 0o600))
	c, err := FromHome(home)
	require.NoError(t, err)
	require.False(t, c.Local())
	st, err := c.Status(t.Context())
	require.NoError(t, err)
	require.Equal(t, "Bearer secret", st.Version)
	c.Close()
	srv.Close()
	_, err = FromHome(home)
	require.ErrorIs(t, err, perigee.Unavailable, "what a killed node left behind is no node")
}

// TestSocket shows that a socket works under a path longer than its address may
// be, that only this user can open it, and that a dead one is replaced.
func TestSocket(t *testing.T) {
	home := filepath.Join(t.TempDir(), strings.Repeat("long/", 30))
	require.NoError(t, os.MkdirAll(home, 0o700))
	path := filepath.Join(home, SocketFile)
	if _, done, err := shortSocket(path); err != nil {
		t.Skip("this system has no /proc/self/fd")
	} else {
		done()
	}
	l, err := ListenSocket(path)
	require.NoError(t, err)
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	_, err = ListenSocket(path)
	require.ErrorIs(t, err, perigee.Refused)
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"version":"v"}`) }), ReadHeaderTimeout: time.Second}
	go func() { _ = srv.Serve(l) }()
	c, err := FromHome(home)
	require.NoError(t, err)
	st, err := c.Status(t.Context())
	require.NoError(t, err)
	require.Equal(t, "v", st.Version)
	require.NoError(t, srv.Close())
	_, err = FromHome(home)
	require.ErrorIs(t, err, perigee.Unavailable)

	dead, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	require.NoError(t, err)
	dead.(*net.UnixListener).SetUnlinkOnClose(false)
	require.NoError(t, dead.Close())
	l, err = ListenSocket(dead.Addr().String())
	require.NoError(t, err)
	require.NoError(t, l.Close())
}

// say writes one event.
func say(w http.ResponseWriter, event string, v any) {
	b, _ := json.Marshal(v)
	fmt.Fprintf(w, "event: %s\ndata: %s\n\n", event, b)
	_ = http.NewResponseController(w).Flush()
}

// TestResume breaks a log stream at every byte of it: what arrives is complete
// and nothing comes twice.
func TestResume(t *testing.T) {
	var calls atomic.Int32
	chunks := []LogChunk{
		{Part: 0, Stream: Stdout, Data: []byte("one ")}, {Part: 1, Stream: Stdout, Data: []byte("two ")},
		{Part: 0, Stream: Stderr, Data: []byte("three ")}, {Part: 0, Stream: Stdout, Data: []byte("four ")},
	}
	c := against(t, func(w http.ResponseWriter, _ *http.Request) {
		n := int(calls.Add(1))
		w.Header().Set("Content-Type", "text/event-stream")
		for i, ch := range chunks {
			if i == n {
				panic(http.ErrAbortHandler)
			}
			if i == 0 && n == 2 { // cut differently the second time
				say(w, "log", LogChunk{Part: 0, Stream: Stdout, Data: []byte("o")})
				ch.Data = ch.Data[1:]
			}
			say(w, "log", ch)
		}
		say(w, "end", nil)
	})
	var got bytes.Buffer
	require.NoError(t, c.Logs(t.Context(), "id", true, func(l LogChunk) error { got.Write(l.Data); return nil }))
	require.Equal(t, "one two three four ", got.String())
	require.EqualValues(t, 4, calls.Load())
}

func TestStreamsGiveUp(t *testing.T) {
	var calls atomic.Int32
	c := against(t, func(w http.ResponseWriter, _ *http.Request) {
		calls.Add(1)
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, ": hello\n\n")
	})
	_, err := c.Wait(t.Context(), "id")
	require.ErrorIs(t, err, perigee.Unavailable)
	require.EqualValues(t, maxRetries+1, calls.Load())

	c = against(t, func(w http.ResponseWriter, _ *http.Request) {
		say(w, "problem", Problem{Kind: perigee.Exhausted, Message: "full"})
	})
	_, err = c.Wait(t.Context(), "id")
	require.ErrorIs(t, err, perigee.Exhausted)
	require.EqualError(t, err, "full")

	mine := perigee.E("x", perigee.Internal, "mine")
	c = against(t, func(w http.ResponseWriter, r *http.Request) {
		say(w, "job", perigee.JobStatus{ID: "id", State: perigee.JobRunning})
		<-r.Context().Done()
	})
	require.ErrorIs(t, c.Watch(t.Context(), "id", func(perigee.JobStatus) error { return mine }), mine)
}

func TestReadEvents(t *testing.T) {
	long := strings.Repeat("x", 200_000)
	in := ": comment\r\n\r\nevent: a\r\ndata: 1\r\n\r\ndata:2\ndata: 3\nid: 7\n\nevent: none\n\nevent: b\ndata: " + long + "\n\ndata: cut"
	var got []string
	err := readEvents(strings.NewReader(in), func(event string, data []byte) error {
		got = append(got, event+"="+string(data))
		return nil
	})
	var broken *brokenStream
	require.ErrorAs(t, err, &broken)
	require.Equal(t, []string{"a=1", "=2\n3", "b=" + long}, got)
}

func FuzzReadEvents(f *testing.F) {
	f.Add([]byte("event: a\ndata: 1\n\n"))
	f.Add([]byte(":\r\n\r\ndata\ndata:\n\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		total := 0
		err := readEvents(bytes.NewReader(b), func(_ string, data []byte) error { total += len(data); return nil })
		if err == nil || total > len(b) {
			t.Fatalf("%v, %d bytes of %d", err, total, len(b))
		}
	})
}

// testReceipt returns a valid receipt and its bytes.
func testReceipt(t testing.TB) (*perigee.Receipt, []byte) {
	t.Helper()
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	peer := perigee.PeerIDOf(key.Public().(ed25519.PublicKey))
	id := perigee.SumCID(perigee.CodecRaw, []byte("x"))
	r := &perigee.Receipt{Version: 1, Provider: peer, Requester: peer, Class: "c", Price: 1 << 60,
		Part:   perigee.Part{Module: id, Engine: "e", Args: []string{"a", "/"}, Env: map[string]string{"K": "V"}, Inputs: []perigee.PartInput{{Mount: "/in", CID: id, Size: 9}}},
		Result: perigee.Result{Output: id, Fuel: 5}}
	var err error
	r.JobKey, err = r.Part.Key()
	require.NoError(t, err)
	require.NoError(t, perigee.Sign(r, func(b []byte) []byte { return ed25519.Sign(key, b) }))
	b, err := perigee.Encode(r)
	require.NoError(t, err)
	return r, b
}

// dagJSON rewrites plain JSON of a receipt as DAG-JSON does.
func dagJSON(t testing.TB, r *perigee.Receipt) []byte {
	t.Helper()
	plain, err := json.Marshal(r)
	require.NoError(t, err)
	text := string(plain)
	id := r.Part.Module.String()
	text = strings.ReplaceAll(text, `"`+id+`"`, `{"/":"`+id+`"}`)
	key := r.JobKey.String()
	text = strings.ReplaceAll(text, `"`+key+`"`, `{"/":"`+key+`"}`)
	padded := base64.StdEncoding.EncodeToString(r.Signature)
	return []byte(strings.ReplaceAll(text, `"`+padded+`"`, `{"/":{"bytes":"`+strings.TrimRight(padded, "=")+`"}}`))
}

func TestParseReceipt(t *testing.T) {
	r, raw := testReceipt(t)
	want := perigee.SumCID(perigee.CodecDagCBOR, raw)
	plain, err := json.Marshal(r)
	require.NoError(t, err)
	report, err := json.Marshal(ReceiptReport{CID: want, Valid: true, Receipt: r})
	require.NoError(t, err)
	for name, form := range map[string][]byte{"CBOR": raw, "JSON": plain, "report": report, "DAG-JSON": dagJSON(t, r), "spaced": append([]byte(" \n"), plain...)} {
		got, err := CheckReceipt(form)
		require.NoError(t, err, name)
		require.True(t, got.Valid, "%s: %s", name, got.Reason)
		require.Equal(t, want, got.CID, name)
	}
	for name, form := range map[string][]byte{
		"nothing": nil, "text": []byte("hello"), "unknown key": []byte(`{"versoin":1}`), "two": append(plain, plain...),
		"deep":    []byte(strings.Repeat(`{"a":`, 100) + "1" + strings.Repeat("}", 100)),
		"large":   make([]byte, MaxReceiptFile+1),
		"bytes":   []byte(`{"signature":{"/":{"bytes":"!"}}}`),
		"no link": []byte(`{"job_key":{"/":5}}`),
	} {
		_, _, err := ParseReceipt(form)
		require.ErrorIs(t, err, perigee.Invalid, name)
	}
}

func FuzzParseReceipt(f *testing.F) {
	r, raw := testReceipt(f)
	f.Add(raw)
	f.Add(dagJSON(f, r))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, id, err := ParseReceipt(b)
		if err != nil {
			return
		}
		again, err := perigee.Encode(got)
		if err != nil || perigee.SumCID(perigee.CodecDagCBOR, again) != id {
			t.Fatalf("a receipt that was read cannot be written: %v", err)
		}
	})
}

// TestUnpack shows that an archive from a node cannot write outside of where it
// is unpacked, not even through a symlink of its own.
func TestUnpack(t *testing.T) {
	for name, archive := range escapes(t) {
		dir := t.TempDir()
		inside := filepath.Join(dir, "in")
		require.NoError(t, os.Mkdir(inside, 0o755))
		root, err := os.OpenRoot(inside)
		require.NoError(t, err)
		require.Error(t, unpackTar(bytes.NewReader(archive), root), name)
		require.NoError(t, root.Close())
		left, err := os.ReadDir(dir)
		require.NoError(t, err)
		require.Len(t, left, 1, name)
	}
}

func TestOpenResumes(t *testing.T) {
	content := bytes.Repeat([]byte("0123456789"), 1000)
	var calls atomic.Int32
	c := against(t, func(w http.ResponseWriter, r *http.Request) {
		var from int
		if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from); err == nil {
			w.Header().Set("Content-Range", "bytes")
			w.Header().Set("Content-Length", fmt.Sprint(len(content)-from))
			w.WriteHeader(http.StatusPartialContent)
		} else {
			w.Header().Set("Content-Length", fmt.Sprint(len(content)))
		}
		end := min(from+3000, len(content))
		_, _ = w.Write(content[from:end])
		if calls.Add(1); end < len(content) {
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
	})
	r, err := c.Open(t.Context(), perigee.SumCID(perigee.CodecRaw, nil).String())
	require.NoError(t, err)
	got, err := io.ReadAll(r)
	require.NoError(t, err)
	require.Equal(t, content, got)
	require.EqualValues(t, 4, calls.Load())
	require.NoError(t, r.Close())
}
