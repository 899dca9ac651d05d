package client

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/perigee-network/perigee"
)

// Add adds a file or directory of this machine. Over a Unix socket the node
// reads it by its path, and with InPlace leaves it where it is; otherwise the
// bytes are sent, and InPlace is Refused. progress may be nil.
func (c *Client) Add(ctx context.Context, path string, o AddOptions, progress func(Progress)) (Added, error) {
	const op = "client.Add"
	abs, err := filepath.Abs(path)
	if err != nil {
		return Added{}, perigee.E(op, perigee.Invalid, err, "cannot make %s absolute", path)
	}
	info, err := os.Stat(abs)
	if err != nil {
		return Added{}, pathError(op, path, err)
	}
	if c.local {
		return c.AddPath(ctx, abs, o, progress)
	}
	if o.InPlace {
		return Added{}, perigee.E(op, perigee.Refused, "%s cannot be indexed in place through %s: only on the node's own machine, over its socket", path, c.url)
	}
	if info.IsDir() {
		return c.addDir(ctx, abs, o, progress)
	}
	f, err := os.Open(abs)
	if err != nil {
		return Added{}, pathError(op, path, err)
	}
	defer f.Close()
	return c.AddReader(ctx, &counted{r: f, total: info.Size(), progress: progress}, o)
}

// pathError says what is wrong with a path of this machine.
func pathError(op, path string, err error) error {
	switch {
	case errors.Is(err, os.ErrNotExist):
		return perigee.E(op, perigee.NotFound, "there is no file or directory %s", path)
	case errors.Is(err, os.ErrPermission):
		return perigee.E(op, perigee.Refused, "no permission to read %s", path)
	}
	return perigee.E(op, perigee.Internal, err, "cannot read %s", path)
}

// AddPath adds a file or directory of the node's machine by its absolute path.
// Over TCP it is Refused. progress may be nil.
func (c *Client) AddPath(ctx context.Context, path string, o AddOptions, progress func(Progress)) (Added, error) {
	var out Added
	k, err := post("client.AddPath", "/v1/data/add").json(struct {
		Path string `json:"path"`
		AddOptions
	}{path, o})
	if err != nil {
		return out, err
	}
	err = c.long(ctx, k, &out, progress)
	return out, err
}

// AddReader adds one file of the bytes of r.
func (c *Client) AddReader(ctx context.Context, r io.Reader, o AddOptions) (Added, error) {
	return c.upload(ctx, "application/octet-stream", r, o)
}

// AddTar adds a directory of the entries of a tar archive.
func (c *Client) AddTar(ctx context.Context, r io.Reader, o AddOptions) (Added, error) {
	return c.upload(ctx, "application/x-tar", r, o)
}

func (c *Client) upload(ctx context.Context, contentType string, r io.Reader, o AddOptions) (Added, error) {
	var out Added
	k := post("client.Upload", "/v1/data/upload").set("Content-Type", contentType).
		with("name", o.Name).with("chunker", o.Chunker).with("profile", o.Profile)
	k.body = io.NopCloser(r) // the caller's to close
	err := c.do(ctx, k, &out)
	return out, err
}

func (c *Client) addDir(ctx context.Context, dir string, o AddOptions, progress func(Progress)) (Added, error) {
	pr, pw := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = pw.CloseWithError(packTar(ctx, dir, &counted{w: pw, progress: progress}))
	}()
	added, err := c.AddTar(ctx, pr, o)
	_ = pr.CloseWithError(io.ErrClosedPipe) // ends the packer if the node refused early
	<-done
	return added, err
}

// counted reports the bytes that pass through it.
type counted struct {
	r           io.Reader
	w           io.Writer
	done, total int64
	progress    func(Progress) // may be nil
}

func (c *counted) add(n int) {
	if c.done += int64(n); c.progress != nil {
		c.progress(Progress{Done: c.done, Total: c.total})
	}
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.add(n)
	return n, err
}

func (c *counted) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.add(n)
	return n, err
}

// ImportCAR adds the blocks of a CAR and pins its roots.
func (c *Client) ImportCAR(ctx context.Context, r io.Reader) ([]perigee.CID, error) {
	var out Imported
	k := post("client.ImportCAR", "/v1/data/car").set("Content-Type", "application/vnd.ipld.car")
	k.body = io.NopCloser(r)
	err := c.do(ctx, k, &out)
	return out.Roots, err
}

// ExportCAR writes all blocks below a root to w.
func (c *Client) ExportCAR(ctx context.Context, root perigee.CID, w io.Writer) error {
	return c.download(ctx, get("client.ExportCAR", dataPath(root, "car")), func(r io.Reader) error {
		_, err := io.Copy(w, r)
		return err
	})
}

// Tar writes what lies at "CID" or "CID/path" to w as a tar archive.
func (c *Client) Tar(ctx context.Context, path string, w io.Writer) error {
	k, err := c.below(get("client.Tar", "tar"), path)
	if err != nil {
		return err
	}
	return c.download(ctx, k, func(r io.Reader) error { _, err := io.Copy(w, r); return err })
}

// download reads an answer whose failure half-way is told in a trailer.
func (c *Client) download(ctx context.Context, k call, read func(io.Reader) error) error {
	resp, err := c.send(ctx, k.set("TE", "trailers"))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body := &failingBody{r: resp.Body}
	rerr := read(body)
	if rerr == nil && body.err == nil {
		_, _ = io.Copy(io.Discard, body) // trailers come after the last byte
	}
	if text := resp.Trailer.Get(FailTrailer); text != "" {
		var f perigee.Fault
		if json.Unmarshal([]byte(text), &f) == nil {
			return f.Err(k.op)
		}
	}
	if body.err != nil {
		if ctx.Err() != nil {
			return c.transportError(ctx, k.op, body.err)
		}
		return perigee.E(k.op, perigee.Unavailable, body.err, "lost %s half-way", c.url)
	}
	return rerr
}

// failingBody tells the failures of a connection from those of what reads it.
type failingBody struct {
	r   io.Reader
	err error
}

func (b *failingBody) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		b.err = err
	}
	return n, err
}

// below makes k about "CID" or "CID/path"; its path is the last element.
func (c *Client) below(k call, path string) (call, error) {
	root, rest, _ := strings.Cut(strings.TrimPrefix(path, "/ipfs/"), "/")
	id, err := perigee.ParseCID(root)
	if err != nil {
		return k, err
	}
	k.path = dataPath(id, k.path)
	return k.with("path", rest), nil
}

// Stat tells what lies at "CID" or "CID/path" and how much of it the node has.
func (c *Client) Stat(ctx context.Context, path string) (DataInfo, error) {
	var out DataInfo
	k, err := c.below(get("client.Stat", "stat"), path)
	if err != nil {
		return out, err
	}
	err = c.do(ctx, k, &out)
	return out, err
}

// Ls lists the directory at "CID" or "CID/path".
func (c *Client) Ls(ctx context.Context, path string) ([]Entry, error) {
	var out []Entry
	k, err := c.below(get("client.Ls", "ls"), path)
	if err != nil {
		return nil, err
	}
	err = c.do(ctx, k, &out)
	return out, err
}

// Pins lists the roots that the node keeps.
func (c *Client) Pins(ctx context.Context) ([]Pin, error) {
	var out []Pin
	err := c.do(ctx, get("client.Pins", "/v1/data"), &out)
	return out, err
}

// Pin makes the node fetch what it lacks of a root and keep it. progress may be
// nil.
func (c *Client) Pin(ctx context.Context, root perigee.CID, progress func(Progress)) (DataInfo, error) {
	var out DataInfo
	err := c.long(ctx, post("client.Pin", dataPath(root, "pin")), &out, progress)
	return out, err
}

// Unpin keeps a root no longer for the user; garbage collection may take it.
func (c *Client) Unpin(ctx context.Context, root perigee.CID) error {
	return c.do(ctx, post("client.Unpin", dataPath(root, "unpin")), nil)
}

// Remove drops a root and what only it kept.
func (c *Client) Remove(ctx context.Context, root perigee.CID) error {
	return c.do(ctx, post("client.Remove", dataPath(root, "rm")), nil)
}

// Verify checks every byte below a root. Damage is told in the report and is no
// error. progress may be nil.
func (c *Client) Verify(ctx context.Context, root perigee.CID, progress func(Progress)) (VerifyReport, error) {
	var out VerifyReport
	err := c.long(ctx, post("client.Verify", dataPath(root, "verify")), &out, progress)
	return out, err
}

// Holders lists nodes that have a root.
func (c *Client) Holders(ctx context.Context, root perigee.CID) ([]Holder, error) {
	var out []Holder
	err := c.do(ctx, get("client.Holders", dataPath(root, "holders")), &out)
	return out, err
}

// GC removes what nothing keeps or uses.
func (c *Client) GC(ctx context.Context) (GCReport, error) {
	var out GCReport
	err := c.do(ctx, post("client.GC", "/v1/gc"), &out)
	return out, err
}
