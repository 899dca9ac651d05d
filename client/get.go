package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/perigee-network/perigee"
)

// Open reads the file at "CID" or "CID/path". A connection that breaks is
// resumed where it was. The caller closes the reader.
func (c *Client) Open(ctx context.Context, path string) (io.ReadCloser, error) {
	k, err := c.below(get("client.Open", "file"), path)
	if err != nil {
		return nil, err
	}
	f := &remoteFile{ctx: ctx, c: c, call: k}
	if err := f.open(); err != nil {
		return nil, err
	}
	return f, nil
}

// remoteFile reads a file of the node, over more than one connection if it must.
type remoteFile struct {
	ctx      context.Context
	c        *Client
	call     call
	body     io.ReadCloser
	offset   int64
	failures int
}

func (f *remoteFile) open() error {
	k := f.call
	if f.offset > 0 {
		k = k.set("Range", fmt.Sprintf("bytes=%d-", f.offset))
	}
	resp, err := f.c.send(f.ctx, k)
	if err != nil {
		return err
	}
	if f.offset > 0 && resp.StatusCode != http.StatusPartialContent {
		_ = resp.Body.Close()
		return perigee.E(k.op, perigee.Unavailable, "%s does not resume files", f.c.url)
	}
	f.body = resp.Body
	return nil
}

func (f *remoteFile) Read(p []byte) (int, error) {
	for {
		n, err := f.body.Read(p)
		f.offset += int64(n)
		if n > 0 {
			f.failures = 0
			if !errors.Is(err, io.EOF) {
				err = nil // it comes again
			}
			return n, err
		}
		if err == nil || errors.Is(err, io.EOF) {
			return n, err
		}
		if err := f.resume(err); err != nil {
			return 0, err
		}
	}
}

// resume connects again after a failure. The node answers with the reason when
// it was the file, not the connection, that failed.
func (f *remoteFile) resume(cause error) error {
	_ = f.body.Close()
	if f.failures++; f.failures > maxRetries || f.ctx.Err() != nil {
		return f.c.transportError(f.ctx, f.call.op, cause)
	}
	select {
	case <-f.ctx.Done():
		return f.c.transportError(f.ctx, f.call.op, cause)
	case <-time.After(25 * time.Millisecond << f.failures):
	}
	if err := f.open(); err != nil {
		f.body = io.NopCloser(failedReader{err})
		return err
	}
	return nil
}

// failedReader keeps giving the error that ended a file.
type failedReader struct{ err error }

func (r failedReader) Read([]byte) (int, error) { return 0, r.err }

func (f *remoteFile) Close() error { return f.body.Close() }

// Get writes what lies at "CID" or "CID/path" to dest of this machine: a file as
// a file, a directory as a directory. A new dest appears complete or not at all;
// into a directory that exists, files are written over those of the same name.
// progress may be nil.
func (c *Client) Get(ctx context.Context, path, dest string, progress func(Progress)) error {
	info, err := c.Stat(ctx, path)
	if err != nil {
		return err
	}
	switch info.Kind {
	case KindDir:
		return c.getDir(ctx, path, dest, info.Size, progress)
	case KindFile:
		if st, err := os.Stat(dest); err == nil && st.IsDir() {
			return perigee.E("client.Get", perigee.Invalid, "%s is a directory; name a file to write", dest)
		}
		return c.getFile(ctx, path, dest, info.Size, progress)
	}
	return perigee.E("client.Get", perigee.Unsupported, "%s is a %s; only files and directories can be written here", path, info.Kind)
}

func (c *Client) getFile(ctx context.Context, path, dest string, size int64, progress func(Progress)) error {
	const op = "client.Get"
	r, err := c.Open(ctx, path)
	if err != nil {
		return err
	}
	defer r.Close()
	tmp, err := os.CreateTemp(filepath.Dir(dest), ".perigee-get-*")
	if err != nil {
		return perigee.E(op, perigee.Internal, err, "cannot write %s", dest)
	}
	defer os.Remove(tmp.Name()) // gone already once it was renamed
	_, err = io.Copy(tmp, &counted{r: r, total: size, progress: progress})
	if cerr := tmp.Close(); err == nil && cerr != nil {
		err = cerr
	}
	if err == nil {
		err = os.Chmod(tmp.Name(), 0o644)
	}
	if err == nil {
		err = os.Rename(tmp.Name(), dest)
	}
	if err != nil {
		var known *perigee.Error
		if errors.As(err, &known) {
			return known
		}
		return perigee.E(op, perigee.Internal, err, "cannot write %s", dest)
	}
	return nil
}

func (c *Client) getDir(ctx context.Context, path, dest string, size int64, progress func(Progress)) error {
	const op = "client.Get"
	into := dest
	if st, err := os.Stat(dest); err == nil {
		if !st.IsDir() {
			return perigee.E(op, perigee.Invalid, "%s is a file, %s a directory", dest, path)
		}
	} else {
		if err := os.MkdirAll(filepath.Dir(dest), 0o755); err != nil {
			return perigee.E(op, perigee.Internal, err, "cannot make %s", filepath.Dir(dest))
		}
		if into, err = os.MkdirTemp(filepath.Dir(dest), ".perigee-get-*"); err != nil {
			return perigee.E(op, perigee.Internal, err, "cannot write beside %s", dest)
		}
		defer os.RemoveAll(into) // gone already once it was renamed
	}
	if err := c.unpack(ctx, path, into, size, progress); err != nil {
		return err
	}
	if into == dest {
		return nil
	}
	if err := os.Chmod(into, 0o755); err != nil {
		return perigee.E(op, perigee.Internal, err, "cannot write %s", dest)
	}
	if err := os.Rename(into, dest); err != nil {
		return perigee.E(op, perigee.Internal, err, "cannot write %s", dest)
	}
	return nil
}

func (c *Client) unpack(ctx context.Context, path, into string, size int64, progress func(Progress)) error {
	root, err := os.OpenRoot(into)
	if err != nil {
		return perigee.E("client.Get", perigee.Internal, err, "cannot write %s", into)
	}
	defer root.Close()
	k, err := c.below(get("client.Get", "tar"), path)
	if err != nil {
		return err
	}
	return c.download(ctx, k, func(r io.Reader) error { return unpackTar(&counted{r: r, total: size, progress: progress}, root) })
}
