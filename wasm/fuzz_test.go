package wasm

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"net"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/bytecodealliance/wasmtime-go/v44"
	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/wasm/wasmtest"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// fakeGuest is a guest with a fixed memory and no program.
type fakeGuest struct {
	mem  []byte
	left uint64
}

func (g *fakeGuest) memory() []byte   { return g.mem }
func (g *fakeGuest) fuel() uint64     { return g.left }
func (g *fakeGuest) setFuel(n uint64) { g.left = n }

// fakeInputs answers for an input tree with one file, one link and one directory.
type fakeInputs struct{}

func (fakeInputs) stat(_ int, name string) (*nodeMessage, bool) {
	switch name {
	case "f":
		return &nodeMessage{Name: "f", Kind: uint8(perigee.KindFile), Size: 5}, true
	case "l":
		return &nodeMessage{Name: "l", Kind: uint8(perigee.KindSymlink), Target: "../in/d/../f"}, true
	case "d":
		return &nodeMessage{Name: "d", Kind: uint8(perigee.KindDir)}, true
	}
	return nil, true
}

func (f fakeInputs) list(_ int, name string) ([]nodeMessage, bool) {
	if name != "." {
		return nil, true
	}
	var all []nodeMessage
	for _, name := range []string{"d", "f", "l"} {
		e, _ := f.stat(0, name)
		all = append(all, *e)
	}
	return all, true
}

func fuzzExecution(t *testing.T, mem []byte) *execution {
	req := &runRequest{Args: []string{"main", "x"}, Env: []string{"A=B"}, Workdir: "/", Memory: 1 << 20,
		Fuel: 10_000_000, Disk: 1 << 20, Files: 20, Outputs: []string{"/out"},
		Mounts: []mountMessage{{Path: "/in", Kind: uint8(perigee.KindDir)}}}
	x := newExecution(req, nil, &blockPool{})
	x.guest = &fakeGuest{mem: mem, left: uint64(req.Fuel)}
	x.tree.ask = fakeInputs{}
	require.Nil(t, x.build())
	in := x.tree.root.children["in"]
	f, _ := x.tree.child(in, "f")
	sum := sha256.Sum256([]byte("hello"))
	f.input = &inputFile{size: 5, ends: []int64{5}, extents: []extentMessage{{Length: 5, Sum: sum[:], File: -1, Data: []byte("hello")}}}
	return x
}

// FuzzHostCalls makes host calls with arbitrary arguments over arbitrary memory.
func FuzzHostCalls(f *testing.F) {
	call := func(name string, args ...uint64) []byte {
		for i, h := range hostFunctions {
			if h.name == name {
				b := []byte{byte(i)}
				for _, a := range args {
					b = binary.LittleEndian.AppendUint32(b, uint32(a))
				}
				return b
			}
		}
		panic(name)
	}
	image := append(make([]byte, 64), "/tmp/file\x00../in/f\x00/out/d"...)
	open := call("path_open", 3, 1, 64, 9, 1, 0xffffffff, 0xffffffff, 0, 512)
	f.Add(image, append(open, call("fd_write", 4, 0, 1, 512)...))
	f.Add(image, append(open, call("fd_filestat_set_size", 4, 1<<19)...))
	f.Add(image, append(call("path_open", 3, 1, 74, 7, 0, 2, 2, 0, 512), call("fd_read", 4, 0, 2, 512)...))
	f.Add(image, append(call("path_create_directory", 3, 82, 6), call("fd_readdir", 3, 100, 400, 0, 96)...))
	f.Add(image, append(open, call("path_rename", 3, 64, 9, 3, 82, 6)...))
	f.Add(image, call("poll_oneoff", 0, 256, 3, 500))
	f.Add(image, append(open, call("path_link", 3, 0, 64, 9, 3, 82, 6)...))
	f.Fuzz(func(t *testing.T, image, calls []byte) {
		mem := make([]byte, 4096)
		copy(mem, image)
		x := fuzzExecution(t, mem)
		for n := 0; len(calls) > 0 && n < 200 && !x.stopped(); n++ {
			h := &hostFunctions[int(calls[0])%len(hostFunctions)]
			calls = calls[1:]
			var a arguments
			for i, kind := range h.params {
				var v [4]byte
				calls = calls[copy(v[:], calls):]
				a[i] = uint64(binary.LittleEndian.Uint32(v[:]))
				if kind == 'I' && a[i]&1 != 0 {
					a[i] |= a[i] << 32
				}
			}
			if e := x.call(h, &a); e >= errnoCount {
				t.Fatalf("%s returned %d", h.name, e)
			}
		}
		if x.stop != nil && x.stop.Kind != perigee.Exhausted {
			t.Fatalf("%+v", x.stop)
		}
		checkBooks(t, x)
	})
}

// checkBooks checks that the disk and file counts are those of what exists.
func checkBooks(t *testing.T, x *execution) {
	var names, size int64
	var walk func(n *node)
	walk = func(n *node) {
		for _, c := range n.children {
			if c.scratch && !c.fixed {
				names++
				if c.content != nil {
					size += c.content.size
				}
			}
			walk(c)
		}
	}
	walk(x.tree.root)
	seen := map[*node]bool{}
	for _, d := range x.fds {
		if d != nil && d.node != nil && d.node.content != nil && d.node.links == 0 && !seen[d.node] {
			seen[d.node] = true
			size += d.node.content.size
		}
	}
	size += x.std[1].size + x.std[2].size
	if names != x.files || size != x.disk || size > x.req.Disk || names > x.req.Files {
		t.Fatalf("%d names and %d bytes exist, %d and %d are counted", names, size, x.files, x.disk)
	}
	if _, err := x.finish(); err != nil {
		t.Fatal(err)
	}
}

// FuzzFrames reads arbitrary bytes as frames and their payloads as each message.
func FuzzFrames(f *testing.F) {
	for _, m := range []any{runRequest{Args: []string{"main"}}, query{Op: queryOpen, Name: "x"}, reply{Extents: []extentMessage{{Length: 1}}},
		runResult{Fuel: 5}, []entryMessage{{Path: "stdout", Kind: 1, Data: []byte("x"), Size: 1}}, compileResult{Fault: &perigee.Fault{Kind: "invalid"}}} {
		payload, err := encMode.Marshal(m)
		require.NoError(f, err)
		frame, err := appendFrame(nil, frameDone, payload)
		require.NoError(f, err)
		f.Add(frame)
	}
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 'R'})
	f.Fuzz(func(t *testing.T, data []byte) {
		r := frameReader{r: bytes.NewReader(data)}
		for {
			_, payload, err := r.next()
			if err != nil {
				return
			}
			for _, v := range []any{&runRequest{}, &runResult{}, &query{}, &reply{}, &[]entryMessage{}, &compileRequest{}, &compileResult{}, &readyMessage{}} {
				if decodePayload(payload, v) == nil {
					if _, err := encMode.Marshal(v); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
	})
}

// FuzzHostileWorker lets a worker say anything while it runs a guest.
func FuzzHostileWorker(f *testing.F) {
	frame := func(t frameType, v any) []byte {
		payload, err := encMode.Marshal(v)
		require.NoError(f, err)
		b, err := appendFrame(nil, t, payload)
		require.NoError(f, err)
		return b
	}
	done := frame(frameDone, runResult{Ran: true, Fuel: 1})
	page := []entryMessage{{Path: "stderr", Kind: 1}, {Path: "stdout", Kind: 1, Size: 2, Data: []byte("hi")}}
	f.Add(append(frame(frameEntries, page), done...))
	f.Add(append(frame(frameQuery, query{Op: queryReadDir, Name: "."}), done...))
	f.Add(append(frame(frameQuery, query{Op: queryOpen, Name: "a"}), frame(frameQuery, query{Op: queryFile})...))
	f.Add(frame(frameQuery, query{Op: queryOpen, Name: "../a"}))
	f.Add(frame(frameQuery, query{Op: querySpill}))
	f.Add(append(frame(frameEntries, []entryMessage{{Path: "out/../../x", Kind: 1}}), done...))
	f.Add(append(frame(frameEntries, []entryMessage{{Path: "x", Kind: 1, Size: 1 << 60, Runs: []spillRun{{Offset: -1, Length: 1 << 60}}}}), done...))
	dir := f.TempDir()
	require.NoError(f, os.WriteFile(dir+"/a", []byte("hello"), 0o600))
	tree := &diskTree{entries: map[string]perigee.TreeEntry{".": {Kind: perigee.KindDir}, "a": {Name: "a", Kind: perigee.KindFile, Size: 5}},
		views: map[string]perigee.FileView{"a": viewOf(dir+"/a", []byte("hello"), 3)}}
	f.Fuzz(func(t *testing.T, said []byte) {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
		require.NoError(t, err)
		far := os.NewFile(uintptr(fds[1]), "worker")
		near := os.NewFile(uintptr(fds[0]), "node")
		conn, err := net.FileConn(near)
		require.NoError(t, err)
		near.Close()
		defer conn.Close()
		go func() {
			far.SetDeadline(time.Now().Add(5 * time.Second))
			far.Write(said)
			unix.Shutdown(fds[1], unix.SHUT_WR)
			buf := make([]byte, 4096)
			for {
				if _, err := far.Read(buf); err != nil {
					break
				}
			}
			far.Close()
		}()
		task := &Task{Mounts: []Mount{{"/in", tree}}, Limits: perigee.Limits{Files: 10}}
		p := &process{conn: conn.(*net.UnixConn), cmd: &exec.Cmd{}}
		p.frames.r = conn
		s := &session{task: task, worker: p, source: newSource(task.Mounts), scratchDir: dir}
		result, err := s.converse(&runRequest{})
		if err == nil {
			o, err := s.finish(result, 0)
			if err == nil {
				for _, e := range o.Entries {
					if e.Kind == perigee.KindFile && e.Size < 1<<20 {
						if r, err := e.Open(); err == nil {
							n, err := new(bytes.Buffer).ReadFrom(r)
							if err == nil && n != e.Size {
								t.Fatalf("%s has %d bytes, not %d", e.Path, n, e.Size)
							}
						}
					}
				}
			}
			o.Close()
		}
		if s.spill != nil {
			s.spill.Close()
		}
	})
}

// FuzzRewriteGrow rewrites arbitrary modules: what was valid stays valid.
func FuzzRewriteGrow(f *testing.F) {
	f.Add([]byte(importing("a", "b")))
	f.Add([]byte("\x00asm\x01\x00\x00\x00\x01\x06\x01\x60\x01\x7f\x01\x7f\x03\x02\x01\x00\x05\x03\x01\x00\x01\x07\x05\x01\x01f\x00\x00\x0a\x08\x01\x06\x00\x20\x00\x40\x00\x0b"))
	f.Fuzz(func(t *testing.T, module []byte) {
		out, err := rewriteGrow(module)
		if err == nil && len(out) < len("\x00asm0000") {
			t.Fatal("nothing came out")
		}
	})
}

// TestRewriteGrow rewrites real modules, which stay valid.
func TestRewriteGrow(t *testing.T) {
	engine := newEngine()
	defer engine.Close()
	for _, path := range []string{wasmtest.C(t, "evil"), wasmtest.C(t, "scratch"), wasmtest.Go(t, "hello")} {
		module, err := os.ReadFile(path)
		require.NoError(t, err)
		out, err := rewriteGrow(module)
		require.NoError(t, err)
		require.True(t, bytes.Contains(out, []byte(refusedGlobal)))
		require.NoError(t, wasmtime.ModuleValidate(engine, out))
	}
}

// TestHostFunctions holds the host to the interface's 46 functions.
func TestHostFunctions(t *testing.T) {
	require.Len(t, hostFunctions, 46)
	seen := map[string]bool{}
	for _, h := range hostFunctions {
		require.False(t, seen[h.name])
		seen[h.name] = true
		require.LessOrEqual(t, len(h.params), len(arguments{}))
	}
}

// TestHostileEntries checks what a worker says about its outputs.
func TestHostileEntries(t *testing.T) {
	for name, m := range map[string]entryMessage{
		"escaping path":     {Path: "../x", Kind: 1},
		"absolute path":     {Path: "/x", Kind: 1},
		"empty path":        {Path: "", Kind: 1},
		"unknown kind":      {Path: "x", Kind: 9},
		"size without data": {Path: "x", Kind: 1, Size: 5},
		"negative size":     {Path: "x", Kind: 1, Size: -5},
		"data without size": {Path: "x", Kind: 1, Data: []byte("x")},
		"directory of data": {Path: "x", Kind: 2, Size: 1, Data: []byte("x")},
		"link to nothing":   {Path: "x", Kind: 3},
		"no spill file":     {Path: "x", Kind: 1, Size: 1, Runs: []spillRun{{Offset: 0, Length: 1}}},
		"negative run":      {Path: "x", Kind: 1, Size: 1, Runs: []spillRun{{Offset: -1, Length: 2}, {Offset: -1, Length: -1}}},
	} {
		_, err := outEntry(m, nil)
		require.ErrorIs(t, err, errFrame, name)
	}
}

// TestQueue checks that who waits for a worker is served in order.
func TestQueue(t *testing.T) {
	p := newPool(1, nil, "", nil)
	defer p.close()
	require.NoError(t, p.enter(context.Background()))
	order := make(chan int, 10)
	for i := range 10 {
		go func() {
			if p.enter(context.Background()) == nil {
				order <- i
				p.leave()
			}
		}()
		require.Eventually(t, func() bool {
			p.mu.Lock()
			defer p.mu.Unlock()
			return p.queue.Len() == i+1
		}, 5*time.Second, time.Millisecond)
	}
	p.leave()
	for i := range 10 {
		require.Equal(t, i, <-order)
	}
}
