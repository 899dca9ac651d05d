package wasm

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/wasm/wasmtest"
	"github.com/stretchr/testify/require"
)

func evilTree(t testing.TB) perigee.Tree {
	tree, _ := indexTree(t, 1<<20, map[string]string{
		"a.txt": "do not touch\n", "dir/b.txt": "b", "absolute@": "/etc/passwd",
		"relative@": "../../../../../../../../../etc/passwd", "loop@": "loop", "root@": "/",
	})
	return tree
}

// TestRefused runs what a program tries against the walls of its file system:
// every attempt must fail inside the guest.
func TestRefused(t *testing.T) {
	for what, lines := range map[string]string{
		"escape": `/etc/passwd: No such file or directory
etc/passwd: No such file or directory
../../../../../../../../etc/passwd: No such file or directory
/in/../../../../etc/passwd: No such file or directory
/in/dir/../../../../../../etc/passwd: No such file or directory
/in/absolute: No such file or directory
/in/relative: No such file or directory
/in/loop: Symbolic link loop
/in/root/etc/passwd: No such file or directory
/tmp/mine: No such file or directory
/tmp/up/passwd: No such file or directory
/proc/self/environ: No such file or directory
/dev/mem: No such file or directory
`,
		"truncate": `/in/a.txt: Read-only file system
/in/a.txt: Read-only file system
/in/a.txt: Read-only file system
/in/a.txt: Read-only file system
/in/a.txt: Read-only file system
/in/new.txt: Read-only file system
/new.txt: Read-only file system
truncate: Read-only file system
ftruncate: Read-only file system
write: Bad file descriptor
unlink: Read-only file system
rename: Read-only file system
mkdir: Read-only file system
rmdir: Read-only file system
`,
	} {
		task := taskOf(t, wasmtest.C(t, "evil"), what)
		task.Mounts, task.Outputs = []Mount{{"/in", evilTree(t)}}, []string{"/out"}
		o := mustRun(t, sharedEngine(t), task)
		require.Equal(t, lines, read(t, o, "stdout"))
		require.Zero(t, o.ExitCode)
	}
}

func TestLimits(t *testing.T) {
	e := sharedEngine(t)
	for _, c := range []struct {
		args   string
		limits func(l *perigee.Limits)
		kind   perigee.Kind
		text   string
	}{
		{"files 1000000", func(l *perigee.Limits) { l.Files = 1000 }, perigee.Exhausted,
			"file limit 1000 files and directories reached; raise resources.files"},
		{"write 5000000000", func(l *perigee.Limits) { l.Disk = 64 << 20 }, perigee.Exhausted,
			"disk limit 64 MiB reached: outputs, /tmp, stdout and stderr together would hold more; raise resources.disk"},
		{"print 5000000000", func(l *perigee.Limits) { l.Disk = 1 << 20 }, perigee.Exhausted,
			"disk limit 1 MiB reached: outputs, /tmp, stdout and stderr together would hold more; raise resources.disk"},
		{"sparse 5000000000", nil, perigee.Exhausted,
			"disk limit 1 GiB reached: outputs, /tmp, stdout and stderr together would hold more; raise resources.disk"},
		{"loop", func(l *perigee.Limits) { l.Fuel = 50_000_000 }, perigee.Exhausted,
			"fuel limit 50000000 operations reached; raise resources.fuel or give it less work"},
		{"hostcalls", func(l *perigee.Limits) { l.Fuel = 50_000_000 }, perigee.Exhausted,
			"fuel limit 50000000 operations reached; raise resources.fuel or give it less work"},
		{"recurse", nil, perigee.Exhausted, "stack limit 2 MiB reached: the program's calls are nested too deeply"},
		{"memory 5000000000", func(l *perigee.Limits) { l.Memory = 16 << 20 }, perigee.Exhausted,
			"memory limit 16 MiB reached: the program was refused more and then ended with exit code 3; raise resources.memory"},
		{"loop", func(l *perigee.Limits) { l.Memory = 65536 }, perigee.Exhausted,
			" KiB of memory and the memory limit is 64 KiB; raise resources.memory"},
		{"deep 1000", nil, perigee.Invalid, "the program left an output whose path is longer than 4096 bytes: out/directory/"},
		{"abort", nil, perigee.Invalid, "the program trapped: wasm `unreachable` instruction executed"},
		{"unreachable", nil, perigee.Invalid, "the program trapped: wasm `unreachable` instruction executed"},
		{"wild", nil, perigee.Invalid, "the program trapped: out of bounds memory access"},
	} {
		task := taskOf(t, wasmtest.C(t, "evil"), strings.Fields(c.args)...)
		task.Outputs = []string{"/out"}
		if c.limits != nil {
			c.limits(&task.Limits)
		}
		o, err := e.Run(context.Background(), task)
		require.ErrorIs(t, err, c.kind, c.args)
		require.Contains(t, err.Error(), c.text)
		if o != nil {
			require.LessOrEqual(t, o.Fuel, task.Limits.Fuel)
			require.NotNil(t, o.Entry("stdout"))
			o.Close()
		}
	}
	mustRun(t, e, taskOf(t, wasmtest.C(t, "hello"))) // the engine goes on
}

// TestHarmless runs what looks bad and is not.
func TestHarmless(t *testing.T) {
	for args, want := range map[string]string{
		"grow-ignored 1000000000": "refused\n", // it coped with it
		"sleep 100000000":         "slept\n",   // no time passes
		"fds 5000":                "1020: No file descriptors available\n",
	} {
		task := taskOf(t, wasmtest.C(t, "evil"), strings.Fields(args)...)
		task.Mounts = []Mount{{"/in", evilTree(t)}}
		begin := time.Now()
		o := mustRun(t, sharedEngine(t), task)
		require.Equal(t, want, read(t, o, "stdout"))
		require.Less(t, time.Since(begin), 30*time.Second)
	}
}

func TestFuelOfStoppedIsTheSame(t *testing.T) {
	var fuels []int64
	for range 3 {
		task := taskOf(t, wasmtest.C(t, "evil"), "print", "100000000")
		task.Limits.Disk = 1 << 20
		o, err := sharedEngine(t).Run(context.Background(), task)
		require.ErrorIs(t, err, perigee.Exhausted)
		fuels = append(fuels, o.Fuel)
		require.EqualValues(t, 1<<20, o.Entry("stdout").Size)
		o.Close()
	}
	require.Equal(t, fuels[0], fuels[1])
	require.Equal(t, fuels[0], fuels[2])
}

// TestChangedInput changes files under a running engine in every way.
func TestChangedInput(t *testing.T) {
	const size, extent = 10_000, 1000
	for name, c := range map[string]struct {
		change func(path string) error
		text   string
	}{
		"a byte": {func(path string) error {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err == nil {
				_, err = f.WriteAt([]byte("!"), 5500)
				f.Close()
			}
			return err
		}, "an input changed: bytes 5000 to 6000 of its file no longer have the hash they were indexed with (in "},
		"shorter": {func(path string) error { return os.Truncate(path, 5500) },
			"an input changed: its file ends at byte 5500, inside the block at bytes 5000 to 6000 (in "},
		"gone": {os.Remove, "an input changed: "},
	} {
		t.Run(name, func(t *testing.T) {
			tree, dir := indexTree(t, extent, map[string]string{"f": strings.Repeat("0123456789", size/10)})
			path := filepath.Join(dir, "f")
			require.NoError(t, c.change(path))
			task := taskOf(t, wasmtest.C(t, "cat"), "/in/f")
			task.Mounts = []Mount{{"/in", tree}}
			_, err := sharedEngine(t).Run(context.Background(), task)
			require.ErrorIs(t, err, perigee.Corrupt)
			require.Contains(t, err.Error(), c.text)
			require.Contains(t, err.Error(), path)
		})
	}
	tree, dir := indexTree(t, extent, map[string]string{"f.inline": strings.Repeat("0123456789", size/10)})
	tree.views["f.inline"].Extents[3].Data = bytes.Repeat([]byte("x"), extent)
	task := taskOf(t, wasmtest.C(t, "cat"), "/in/f.inline")
	task.Mounts = []Mount{{"/in", tree}}
	_, err := sharedEngine(t).Run(context.Background(), task)
	require.ErrorIs(t, err, perigee.Corrupt)

	// What is not read does not matter.
	require.NoError(t, os.Truncate(filepath.Join(dir, "f.inline"), 0))
	task = taskOf(t, wasmtest.C(t, "exit"), "0")
	task.Mounts = []Mount{{"/in", tree}}
	mustRun(t, sharedEngine(t), task)
}

func TestBadTasks(t *testing.T) {
	tree := evilTree(t)
	for name, change := range map[string]func(task *Task){
		"relative mount":   func(task *Task) { task.Mounts = []Mount{{"in", tree}} },
		"dots in mount":    func(task *Task) { task.Mounts = []Mount{{"/in/../x", tree}} },
		"mounted twice":    func(task *Task) { task.Mounts = []Mount{{"/in", tree}, {"/in", tree}} },
		"output is mount":  func(task *Task) { task.Mounts, task.Outputs = []Mount{{"/in", tree}}, []string{"/in"} },
		"output is root":   func(task *Task) { task.Outputs = []string{"/"} },
		"output is stdout": func(task *Task) { task.Outputs = []string{"/stdout"} },
		"NUL in argument":  func(task *Task) { task.Args = []string{"a\x00b"} },
		"= in a name":      func(task *Task) { task.Env = map[string]string{"A=B": "c"} },
		"relative workdir": func(task *Task) { task.Workdir = "in" },
		"mount below file": func(task *Task) { task.Mounts = []Mount{{"/f", fileTree(perigee.FileView{})}, {"/f/g", tree}} },
		"output below file": func(task *Task) {
			task.Mounts, task.Outputs = []Mount{{"/f", fileTree(perigee.FileView{})}}, []string{"/f/g"}
		},
		"workdir is file": func(task *Task) { task.Mounts, task.Workdir = []Mount{{"/f", fileTree(perigee.FileView{})}}, "/f" },
		"negative limit":  func(task *Task) { task.Limits.Disk = -1 },
		"no module":       func(task *Task) { task.Module = perigee.CID{} },
	} {
		task := taskOf(t, wasmtest.C(t, "exit"))
		change(&task)
		_, err := sharedEngine(t).Run(context.Background(), task)
		require.ErrorIs(t, err, perigee.Invalid, name)
	}
}

func TestBadModules(t *testing.T) {
	e := newEngineForTest(t, 1)
	for name, c := range map[string]struct{ binary, text string }{
		"empty":       {"", "the module is empty: it has no bytes"},
		"text":        {"  (module (func))", `the module is WebAssembly text (it begins with "(module (func))")`},
		"noise":       {"hello, world", "the module is not WebAssembly: its first bytes are 68 65 6c 6c 6f 2c 20 77, where 00 61 73 6d 01 00 00 00 is due"},
		"component":   {"\x00asm\x0d\x00\x01\x00", "the module is a WebAssembly component"},
		"ELF":         {"\x7fELF\x02\x01\x01\x00", "the module is an ELF program"},
		"script":      {"#!/bin/sh\n", "the module is a script"},
		"version":     {"\x00asm\x02\x00\x00\x00", "only version 1 is supported"},
		"cut short":   {"\x00asm\x01\x00\x00\x00\x01\x7f", "the module cannot be compiled: "},
		"no _start":   {"\x00asm\x01\x00\x00\x00", "the module exports no function _start"},
		"imports":     {importing("env", "launch", "wasi_snapshot_preview1", "sock_open"), "the module imports what does not exist here: env.launch, wasi_snapshot_preview1.sock_open"},
		"wrong type":  {importing("wasi_snapshot_preview1", "fd_read"), "the module imports functions with parameters or results that WASI preview 1 does not give them: wasi_snapshot_preview1.fd_read"},
		"old preview": {importing("wasi_unstable", "fd_read"), "the module imports what does not exist here: wasi_unstable.fd_read"},
	} {
		for range 2 { // the second time without compiling
			err := e.Check(context.Background(), perigee.SumCID(perigee.CodecRaw, []byte(c.binary)),
				func(context.Context) (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(c.binary)), nil })
			require.ErrorIs(t, err, perigee.Invalid, name)
			require.Contains(t, err.Error(), c.text)
			require.NotContains(t, err.Error(), "\n")
		}
	}
	err := e.Check(context.Background(), perigee.SumCID(perigee.CodecRaw, []byte("x")),
		func(context.Context) (io.ReadCloser, error) {
			return nil, perigee.E("test", perigee.NotFound, "nobody has it")
		})
	require.ErrorIs(t, err, perigee.NotFound)
}

// importing returns a module that imports functions without parameters and
// results, given as pairs of module and name.
func importing(names ...string) string {
	imports := []byte{byte(len(names) / 2)}
	for i := 0; i < len(names); i += 2 {
		for _, s := range names[i : i+2] {
			imports = append(append(imports, byte(len(s))), s...)
		}
		imports = append(imports, 0, 0)
	}
	return "\x00asm\x01\x00\x00\x00\x01\x04\x01\x60\x00\x00\x02" + string(rune(len(imports))) + string(imports)
}

func TestDamagedCache(t *testing.T) {
	dir := t.TempDir()
	path := wasmtest.C(t, "hello")
	run := func() {
		t.Helper()
		e, err := New(Config{CacheDir: dir, Workers: 1})
		require.NoError(t, err)
		defer e.Close()
		require.Equal(t, "hello\n", read(t, mustRun(t, e, taskOf(t, path)), "stdout"))
	}
	run()
	compiled, err := filepath.Glob(filepath.Join(dir, "*.cwasm"))
	require.NoError(t, err)
	require.Len(t, compiled, 1)
	whole, err := os.ReadFile(compiled[0])
	require.NoError(t, err)
	for _, damage := range [][]byte{whole[:len(whole)/2], nil, append([]byte("x"), whole...), bytes.Repeat([]byte{0xcc}, len(whole))} {
		require.NoError(t, os.Remove(compiled[0]))
		require.NoError(t, os.WriteFile(compiled[0], damage, 0o600))
		run()
		again, err := os.ReadFile(compiled[0])
		require.NoError(t, err)
		require.True(t, bytes.Equal(whole, again), "compiled anew to the same bytes")
	}
	// A file that is what its checksum says and still does not fit this machine.
	require.NoError(t, os.Remove(compiled[0]))
	require.NoError(t, os.WriteFile(compiled[0], []byte("not for this machine"), 0o600))
	sum, err := sumOf(compiled[0])
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(compiled[0]+checksum, []byte(sum), 0o600))
	run()
	require.NoError(t, os.Remove(compiled[0]+checksum))
	run()
	left, err := filepath.Glob(filepath.Join(dir, temporary+"*"))
	require.NoError(t, err)
	require.Empty(t, left)
}
