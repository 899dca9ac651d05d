package wasm

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/perigee-network/perigee"
)

const (
	compileTimeout = 10 * time.Minute
	compilesAtOnce = 2
	refusalsKept   = 256
	temporary      = "tmp-" // prefix of files not yet complete
	checksum       = ".sha256"
)

// cache keeps compiled modules on disk, by module CID and everything the
// machine code depends on, each with its checksum beside it. A file is checked
// when this process first uses it and again when it looks different.
type cache struct {
	ctx   context.Context
	dir   string
	pool  *pool
	slots chan struct{}

	mu      sync.Mutex
	known   map[perigee.CID]fileMark // checked files
	flights map[perigee.CID]*flight  // compilations under way
	refused map[perigee.CID]error    // modules that can never run
}

// fileMark tells whether a file is still the one that was checked.
type fileMark struct {
	size    int64
	changed time.Time
}

// loadError is a failure to load a module, which says nothing about the module.
type loadError struct{ error }

func (e *loadError) Unwrap() error { return e.error }

type flight struct {
	done chan struct{}
	err  error
}

func newCache(ctx context.Context, dir string, p *pool) (*cache, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, perigee.E("wasm.New", perigee.Unavailable, err, "cannot use the module cache")
	}
	for _, e := range entries { // left by a process that died while compiling
		if info, err := e.Info(); err == nil && strings.HasPrefix(e.Name(), temporary) && time.Since(info.ModTime()) > time.Hour {
			os.Remove(filepath.Join(dir, e.Name()))
		}
	}
	return &cache{ctx: ctx, dir: dir, pool: p, slots: make(chan struct{}, compilesAtOnce),
		known: map[perigee.CID]fileMark{}, flights: map[perigee.CID]*flight{}, refused: map[perigee.CID]error{}}, nil
}

// path returns where the compiled form of a module belongs.
func (c *cache) path(module perigee.CID) string {
	return filepath.Join(c.dir, module.String()+"-"+engineHash()+".cwasm")
}

// compiled returns the path of the compiled module, compiling it first if need
// be. Concurrent calls for one module compile once. A caller that gives up does
// not stop the compilation, whose result is wanted again soon.
func (c *cache) compiled(ctx context.Context, module perigee.CID, load func(context.Context) (io.ReadCloser, error)) (string, error) {
	path := c.path(module)
	c.mu.Lock()
	if err := c.refused[module]; err != nil {
		c.mu.Unlock()
		return "", err
	}
	if mark, ok := c.known[module]; ok {
		if now, err := markOf(path); err == nil && now == mark {
			c.mu.Unlock()
			return path, nil
		}
		delete(c.known, module)
	}
	f := c.flights[module]
	if f == nil {
		f = &flight{done: make(chan struct{})}
		c.flights[module] = f
		go c.fly(f, context.WithoutCancel(ctx), module, load)
	}
	c.mu.Unlock()
	select {
	case <-f.done:
		return path, f.err
	case <-ctx.Done():
		return "", perigee.E("wasm.Check", contextKind(ctx), context.Cause(ctx), "stopped while the module was compiled")
	}
}

// forget removes a compiled module that turned out not to work.
func (c *cache) forget(module perigee.CID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.known, module)
	os.Remove(c.path(module) + checksum)
	os.Remove(c.path(module))
}

// fly finds or makes the compiled module and ends the flight.
func (c *cache) fly(f *flight, ctx context.Context, module perigee.CID, load func(context.Context) (io.ReadCloser, error)) {
	ctx, cancel := context.WithTimeout(ctx, compileTimeout)
	defer cancel()
	defer context.AfterFunc(c.ctx, cancel)()
	mark, err := c.verify(module)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			c.pool.log.Warn("a compiled module is damaged and is made anew", "module", module, "error", err)
		}
		mark, err = c.makeOnce(ctx, module, load)
	}
	if err != nil && c.ctx.Err() != nil {
		err = errClosed
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err == nil:
		c.known[module] = mark
	case errors.Is(err, perigee.Invalid) && !errors.As(err, new(*loadError)):
		if len(c.refused) >= refusalsKept {
			clear(c.refused)
		}
		c.refused[module] = err
	}
	f.err = err
	delete(c.flights, module)
	close(f.done)
}

// makeOnce makes a compiled module unless another process that shares the
// directory has just made it.
func (c *cache) makeOnce(ctx context.Context, module perigee.CID, load func(context.Context) (io.ReadCloser, error)) (fileMark, error) {
	unlock, err := c.lock(ctx, module)
	if err != nil {
		return fileMark{}, err
	}
	defer unlock()
	if mark, err := c.verify(module); err == nil {
		return mark, nil
	}
	return c.make(ctx, module, load)
}

// verify checks the file of a compiled module against its checksum.
func (c *cache) verify(module perigee.CID) (fileMark, error) {
	path := c.path(module)
	mark, err := markOf(path)
	if err != nil {
		return mark, err
	}
	want, err := os.ReadFile(path + checksum)
	if err != nil {
		return mark, fmt.Errorf("its checksum cannot be read: %v", err)
	}
	sum, err := sumOf(path)
	if err != nil {
		return mark, err
	}
	if string(want) != sum {
		return mark, errors.New("its bytes do not have the checksum they were written with")
	}
	return mark, nil
}

// make compiles a module in a worker process of its own and stores the result.
func (c *cache) make(ctx context.Context, module perigee.CID, load func(context.Context) (io.ReadCloser, error)) (fileMark, error) {
	select {
	case c.slots <- struct{}{}:
		defer func() { <-c.slots }()
	case <-ctx.Done():
		return fileMark{}, perigee.E("wasm.Check", contextKind(ctx), ctx.Err(), "stopped while waiting to compile")
	}
	binary, size, err := c.fetch(ctx, load)
	if err != nil {
		return fileMark{}, err
	}
	defer binary.Close()
	out, err := os.CreateTemp(c.dir, temporary)
	if err != nil {
		return fileMark{}, perigee.E("wasm.Check", perigee.Unavailable, err, "cannot write to the module cache")
	}
	defer os.Remove(out.Name())
	defer out.Close()
	if err := c.compile(ctx, binary, size, out); err != nil {
		return fileMark{}, err
	}
	return c.store(module, out)
}

// fetch copies a module's binary into a file without a name and looks at its
// first bytes.
func (c *cache) fetch(ctx context.Context, load func(context.Context) (io.ReadCloser, error)) (*os.File, int64, error) {
	if load == nil {
		return nil, 0, perigee.E("wasm.Check", perigee.NotFound, "the module is not compiled here and no way to load it is given")
	}
	r, err := load(ctx)
	if err != nil {
		return nil, 0, perigee.E("wasm.Check", perigee.KindOf(err), &loadError{err}, "cannot load the module")
	}
	defer r.Close()
	f, err := unnamedFile(c.dir)
	if err != nil {
		return nil, 0, perigee.E("wasm.Check", perigee.Unavailable, err, "cannot write to the module cache")
	}
	size, err := io.Copy(f, io.LimitReader(r, maxModule+1))
	if err == nil && size > maxModule {
		f.Close()
		return nil, 0, perigee.E("wasm.Check", perigee.Invalid, "the module has more than %s", sizeOf(maxModule))
	}
	if err != nil {
		f.Close()
		kind := perigee.KindOf(err)
		if kind == perigee.Internal {
			kind = perigee.Unavailable
		}
		return nil, 0, perigee.E("wasm.Check", kind, &loadError{err}, "cannot load the module")
	}
	head := make([]byte, 64)
	n, _ := f.ReadAt(head, 0)
	if err := checkHead(head[:n]); err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, size, nil
}

// compile runs the compile worker.
func (c *cache) compile(ctx context.Context, binary *os.File, size int64, out *os.File) error {
	w, err := c.pool.startProcess(purposeCompile)
	if err != nil {
		return perigee.E("wasm.Check", perigee.Unavailable, err, "no process to compile in")
	}
	defer c.pool.discard(w)
	defer context.AfterFunc(ctx, w.kill)()
	if _, err := binary.Seek(0, io.SeekStart); err != nil {
		return perigee.E("wasm.Check", perigee.Unavailable, err)
	}
	var result compileResult
	err = w.send(frameCompile, compileRequest{Size: size}, binary, out)
	if err == nil {
		var t frameType
		var payload []byte
		if t, payload, err = w.frames.next(); err == nil {
			if t != frameDone {
				err = errFrame
			} else {
				err = decodePayload(payload, &result)
			}
		}
	}
	switch {
	case ctx.Err() != nil:
		return perigee.E("wasm.Check", contextKind(ctx), ctx.Err(), "the compilation was stopped")
	case err != nil:
		return perigee.E("wasm.Check", perigee.Unavailable, "the module could not be compiled: %s", w.death(err))
	}
	return result.Fault.Err("wasm.Check")
}

// store gives a compiled module its checksum and its name, in this order.
func (c *cache) store(module perigee.CID, out *os.File) (fileMark, error) {
	path := c.path(module)
	fail := func(err error) (fileMark, error) {
		return fileMark{}, perigee.E("wasm.Check", perigee.Unavailable, err, "cannot store the compiled module")
	}
	sum, err := sumOf(out.Name())
	if err != nil {
		return fail(err)
	}
	if err := out.Chmod(0o400); err != nil {
		return fail(err)
	}
	side, err := os.CreateTemp(c.dir, temporary)
	if err != nil {
		return fail(err)
	}
	defer os.Remove(side.Name())
	_, err = side.WriteString(sum)
	if err := errors.Join(err, side.Close()); err != nil {
		return fail(err)
	}
	if err := os.Rename(side.Name(), path+checksum); err != nil {
		return fail(err)
	}
	if err := os.Rename(out.Name(), path); err != nil {
		return fail(err)
	}
	mark, err := markOf(path)
	if err != nil {
		return fail(err)
	}
	return mark, nil
}

func markOf(path string) (fileMark, error) {
	info, err := os.Stat(path)
	if err != nil {
		return fileMark{}, err
	}
	return fileMark{info.Size(), info.ModTime()}, nil
}

func sumOf(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// unlinkedFile makes a file and removes its name.
func unlinkedFile(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, temporary)
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// checkHead says in words what a file that is no module is instead.
func checkHead(head []byte) error {
	bad := func(format string, args ...any) error {
		return perigee.E("wasm.Check", perigee.Invalid, "%s", fmt.Sprintf(format, args...))
	}
	text := strings.TrimSpace(string(head))
	switch {
	case len(head) >= 8 && string(head[:8]) == "\x00asm\x01\x00\x00\x00":
		return nil
	case len(head) >= 8 && string(head[:4]) == "\x00asm" && head[6] == 1:
		return bad("the module is a WebAssembly component (its first bytes are % x); components are not supported: build a core module for WASI preview 1, such as --target wasm32-wasip1", head[:8])
	case len(head) >= 8 && string(head[:4]) == "\x00asm":
		return bad("the module has WebAssembly version % x; only version 1 is supported", head[4:8])
	case len(head) == 0:
		return bad("the module is empty: it has no bytes")
	case strings.HasPrefix(text, "(module") || strings.HasPrefix(text, "(component") || strings.HasPrefix(text, ";;"):
		return bad("the module is WebAssembly text (it begins with %.16q); translate it first, for example with wat2wasm", text)
	case strings.HasPrefix(text, "\x7fELF"):
		return bad("the module is an ELF program for this or another machine (its first bytes are % x), not WebAssembly: build it for WASI, for example with GOOS=wasip1 GOARCH=wasm or clang --target=wasm32-wasi", head[:min(len(head), 8)])
	case strings.HasPrefix(text, "#!"):
		return bad("the module is a script (it begins with %.24q), not WebAssembly", text)
	}
	return bad("the module is not WebAssembly: its first bytes are % x, where 00 61 73 6d 01 00 00 00 is due", head[:min(len(head), 8)])
}
