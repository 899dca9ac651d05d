// Package client is the Go client of a node's HTTP API. Its types are the wire
// format: package api answers with them and describes them in its OpenAPI
// document. The command line and the tests use nothing else to talk to a node.
//
// Errors are *perigee.Error with the kind that the node gave; a node that
// cannot be reached is Unavailable. Streams that break off are resumed a few
// times before they fail.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/perigee-network/perigee"
)

// Config says which node a Client talks to.
type Config struct {
	// URL is http://HOST:PORT, https://… or unix:///PATH/api.sock.
	URL string
	// Token is what the node asks for over TCP; it is not needed on a socket.
	Token string
}

// Client talks to one node. It is safe for concurrent use and keeps its
// connections open between calls; Close drops them.
type Client struct {
	base  string // http://host, without a slash at its end
	url   string // as configured, for messages
	token string
	local bool
	http  *http.Client
}

// The files of a node's home directory that lead to its API.
const (
	SocketFile = "api.sock" // Unix socket
	URLFile    = "api"      // URL of the TCP listener
	TokenFile  = "token"
)

// New returns a client of the node that cfg names, without connecting. The error
// is of kind Invalid.
func New(cfg Config) (*Client, error) {
	const op = "client.New"
	u, err := url.Parse(cfg.URL)
	if err != nil {
		return nil, perigee.E(op, perigee.Invalid, err, "the API address %q is not a URL", cfg.URL)
	}
	c := &Client{url: cfg.URL, token: cfg.Token}
	dialer := &net.Dialer{Timeout: 5 * time.Second, KeepAlive: 30 * time.Second}
	transport := &http.Transport{
		DialContext:           dialer.DialContext,
		MaxIdleConns:          256,
		MaxIdleConnsPerHost:   256,
		IdleConnTimeout:       time.Minute,
		DisableCompression:    true,
		TLSHandshakeTimeout:   10 * time.Second,
		ExpectContinueTimeout: time.Second,
	}
	switch u.Scheme {
	case "http", "https":
		if u.Host == "" {
			return nil, perigee.E(op, perigee.Invalid, "the API address %q names no host", cfg.URL)
		}
		c.base = u.Scheme + "://" + u.Host + strings.TrimSuffix(u.Path, "/")
	case "unix":
		if u.Path == "" {
			return nil, perigee.E(op, perigee.Invalid, "the API address %q names no socket; write unix:///PATH", cfg.URL)
		}
		c.base, c.local = "http://perigee", true
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) { return DialSocket(ctx, u.Path) }
	default:
		return nil, perigee.E(op, perigee.Invalid, "the API address %q begins with neither http://, https:// nor unix://", cfg.URL)
	}
	c.http = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return c, nil
}

// FromHome returns a client of the node that runs at a home directory: over its
// Unix socket if somebody listens there, else over its TCP address. The error is
// Unavailable when no node runs there.
func FromHome(home string) (*Client, error) {
	if abs, err := filepath.Abs(home); err == nil {
		home = abs // a URL has no relative paths
	}
	socket := filepath.Join(home, SocketFile)
	if conn, err := DialSocket(context.Background(), socket); err == nil {
		_ = conn.Close()
		return New(Config{URL: (&url.URL{Scheme: "unix", Path: socket}).String()})
	}
	down := perigee.E("client.FromHome", perigee.Unavailable, "no node is running at %s: start one with: perigee serve", home)
	address, err := readLine(filepath.Join(home, URLFile))
	if err != nil {
		return nil, down
	}
	token, err := readLine(filepath.Join(home, TokenFile))
	if err != nil {
		return nil, down
	}
	u, err := url.Parse(address)
	if err != nil {
		return nil, down
	}
	conn, err := net.DialTimeout("tcp", u.Host, time.Second)
	if err != nil { // left behind by a node that was killed
		return nil, down
	}
	_ = conn.Close()
	return New(Config{URL: address, Token: token})
}

// readLine returns the first line of a small file.
func readLine(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 4096))
	line, _, _ := strings.Cut(string(b), "\n")
	return strings.TrimSpace(line), err
}

// URL returns the address that the client was made with.
func (c *Client) URL() string { return c.url }

// Local reports whether the client talks over the node's Unix socket, where
// paths of this machine mean something to the node.
func (c *Client) Local() bool { return c.local }

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// call is one request.
type call struct {
	op     string // "client.Method"
	method string
	path   string
	query  url.Values
	header map[string]string
	body   io.Reader
	length int64 // of body; 0 when unknown
}

func get(op, path string) call  { return call{op: op, method: http.MethodGet, path: path} }
func post(op, path string) call { return call{op: op, method: http.MethodPost, path: path} }

// with sets a query parameter unless its value is empty.
func (k call) with(key, value string) call {
	if value != "" {
		q := url.Values{}
		for name, v := range k.query {
			q[name] = v
		}
		q.Set(key, value)
		k.query = q
	}
	return k
}

// set sets a header unless its value is empty.
func (k call) set(name, value string) call {
	if value != "" {
		h := map[string]string{name: value}
		for n, v := range k.header {
			if n != name {
				h[n] = v
			}
		}
		k.header = h
	}
	return k
}

// json makes v the body.
func (k call) json(v any) (call, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return k, perigee.E(k.op, perigee.Invalid, err, "cannot encode the request")
	}
	k.body, k.length = bytes.NewReader(b), int64(len(b))
	return k.set("Content-Type", "application/json"), nil
}

// send makes the request and returns its answer, or the problem it was.
func (c *Client) send(ctx context.Context, k call) (*http.Response, error) {
	target := c.base + k.path
	if len(k.query) > 0 {
		target += "?" + k.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, k.method, target, k.body)
	if err != nil {
		return nil, perigee.E(k.op, perigee.Invalid, err, "cannot make the request")
	}
	if k.length > 0 {
		req.ContentLength = k.length
	}
	for name, value := range k.header {
		req.Header.Set(name, value)
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.transportError(ctx, k.op, err)
	}
	if resp.StatusCode >= 300 {
		defer drain(resp)
		return nil, c.problemError(k.op, resp)
	}
	return resp, nil
}

// do makes a request whose answer is JSON, into out unless that is nil.
func (c *Client) do(ctx context.Context, k call, out any) error {
	resp, err := c.send(ctx, k)
	if err != nil {
		return err
	}
	defer drain(resp)
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		if ctx.Err() != nil {
			return c.transportError(ctx, k.op, err)
		}
		return perigee.E(k.op, perigee.Unavailable, err, "the answer of %s is not what a Perigee node says", c.url)
	}
	return nil
}

// drain lets the connection be used again.
func drain(resp *http.Response) {
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10)
	_ = resp.Body.Close()
}

// transportError says why no answer came.
func (c *Client) transportError(ctx context.Context, op string, err error) error {
	if cause := ctx.Err(); cause != nil {
		if errors.Is(cause, context.DeadlineExceeded) {
			return perigee.E(op, perigee.Timeout, "no answer from the node at %s in time", c.url)
		}
		return perigee.E(op, perigee.Cancelled, "interrupted while waiting for the node at %s", c.url)
	}
	var known *perigee.Error // a reader of the request's body failed
	if errors.As(err, &known) {
		return known
	}
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	return perigee.E(op, perigee.Unavailable, "no node answers at %s (%s); start one with: perigee serve", c.url, err)
}

// problemError makes an error of an answer that is one.
func (c *Client) problemError(op string, resp *http.Response) error {
	var p Problem
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if json.Unmarshal(b, &p) != nil || p.Kind == "" {
		return perigee.E(op, perigee.Unavailable, "%s answered %s, which no Perigee node does", c.url, resp.Status)
	}
	return (&perigee.Fault{Kind: p.Kind, Message: p.Message}).Err(op)
}

// segment escapes one element of a path.
func segment(s string) string { return url.PathEscape(s) }

func dataPath(c perigee.CID, verb string) string {
	return fmt.Sprintf("/v1/data/%s/%s", c, verb)
}
