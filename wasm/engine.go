package wasm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/perigee-network/perigee"
)

// Config configures an Engine.
type Config struct {
	// CacheDir holds compiled modules. It is made with mode 0700: whoever can
	// write to it chooses what runs. Engines of one user may share it.
	CacheDir string
	// ScratchDir holds what guests write beyond what fits into memory, in files
	// without names. Default: CacheDir.
	ScratchDir string
	// Workers is how many guests run at once. Default: the number of CPUs.
	Workers int
	// Command is the argv of a worker process, which must call WorkerMain.
	// Default: this executable with the argument "worker".
	Command []string
	// Log receives warnings and the workers' stderr. Default: slog.Default.
	Log *slog.Logger
}

// Engine runs WebAssembly programs. It is safe for concurrent use.
type Engine struct {
	config Config
	pool   *pool
	cache  *cache
	cancel context.CancelFunc
}

// Mount shows a tree to a guest, read-only, at an absolute clean Path. A tree
// whose root is a file is a file at Path.
type Mount struct {
	Path string
	Tree perigee.Tree
}

// Task is one execution.
type Task struct {
	Module perigee.CID
	// Load opens the module's binary. It is called only if the module has not
	// been compiled on this machine before.
	Load    func(ctx context.Context) (io.ReadCloser, error)
	Args    []string // after the program's name, which is always "main"
	Env     map[string]string
	Workdir string   // absolute; "" is "/"
	Seed    [32]byte // of everything the guest takes for random
	Mounts  []Mount
	Outputs []string // absolute directories, created empty, whose content is kept
	Limits  perigee.Limits
	Timeout time.Duration // wall clock, from the start of the guest; 0 is none
	// Stdout and Stderr receive what the guest prints while it runs, in pieces,
	// from one goroutine, and all of it before Run returns. They may be nil.
	Stdout, Stderr func(p []byte)
}

// New opens an engine. The first worker process is started in the background.
func New(config Config) (*Engine, error) {
	if config.Log == nil {
		config.Log = slog.Default()
	}
	if config.Workers <= 0 {
		config.Workers = runtime.NumCPU()
	}
	if config.ScratchDir == "" {
		config.ScratchDir = config.CacheDir
	}
	if len(config.Command) == 0 {
		self, err := os.Executable()
		if err != nil {
			return nil, perigee.E("wasm.New", perigee.Internal, err, "cannot find the executable of worker processes")
		}
		if runtime.GOOS == "linux" {
			self = "/proc/self/exe" // still this build after the file was replaced
		}
		config.Command = []string{self, "worker"}
	}
	for _, dir := range []*string{&config.CacheDir, &config.ScratchDir} {
		abs, err := filepath.Abs(*dir)
		if err == nil {
			err = os.MkdirAll(abs, 0o700)
		}
		if err != nil {
			return nil, perigee.E("wasm.New", perigee.Unavailable, err, "cannot use the directory %s", *dir)
		}
		*dir = abs
	}
	ctx, cancel := context.WithCancel(context.Background())
	e := &Engine{config: config, cancel: cancel}
	e.pool = newPool(config.Workers, config.Command, config.CacheDir, config.Log)
	cache, err := newCache(ctx, config.CacheDir, e.pool)
	if err != nil {
		cancel()
		e.pool.close()
		return nil, err
	}
	e.cache = cache
	go e.pool.warm()
	return e, nil
}

// Close kills all workers; executions under way fail with perigee.Unavailable.
func (e *Engine) Close() error {
	e.cancel()
	e.pool.close()
	return nil
}

// Sandbox says how worker processes are confined on this machine, such as
// "landlock, seccomp, rlimits, no_new_privs". It is "" until the first worker
// has started.
func (e *Engine) Sandbox() string {
	e.pool.mu.Lock()
	defer e.pool.mu.Unlock()
	return e.pool.ready.Sandbox
}

// Pids returns the process IDs of the workers that exist now.
func (e *Engine) Pids() []int { return e.pool.pids() }

// Check compiles a module, or finds that it is compiled, and says in an error
// of kind Invalid why it cannot run here: it is no WebAssembly module, has no
// _start, or imports what there is not.
func (e *Engine) Check(ctx context.Context, module perigee.CID, load func(ctx context.Context) (io.ReadCloser, error)) error {
	_, err := e.cache.compiled(ctx, module, load)
	return err
}

// Run executes a task and waits for its end. An exit code other than zero is no
// error. The kinds of errors are:
//
//   - Invalid: the task or module is bad, or the program trapped
//   - Exhausted: a limit was reached, and the text names it
//   - Timeout, Cancelled: the wall-clock limit or the context stopped it
//   - Corrupt: an input is not, or no longer, what its CID says
//   - Unavailable: the worker died, an input could not be read; may be retried
//
// If the guest ran and ended in an Invalid or Exhausted error, the outcome is
// not nil: it holds the fuel used and what the guest printed, and is to be
// closed too.
func (e *Engine) Run(ctx context.Context, task Task) (*Outcome, error) {
	req, err := request(&task)
	if err != nil {
		return nil, err
	}
	for attempt := 0; ; attempt++ {
		compiled, err := e.cache.compiled(ctx, task.Module, task.Load)
		if err != nil {
			return nil, err
		}
		req.Compiled = compiled
		w, err := e.pool.acquire(ctx)
		if err != nil {
			return nil, err
		}
		s := &session{task: &task, worker: w, source: newSource(task.Mounts), scratchDir: e.config.ScratchDir}
		outcome, err := s.run(ctx, req)
		e.pool.release(w, s.healthy)
		if s.rebuild && attempt == 0 {
			e.config.Log.Warn("a compiled module cannot be used and is compiled again", "module", task.Module, "error", err)
			e.cache.forget(task.Module)
			continue
		}
		return outcome, err
	}
}

// request checks a task and makes the worker's request of it. It sorts the
// task's mounts.
func request(t *Task) (*runRequest, error) {
	req := &runRequest{Args: append([]string{"main"}, t.Args...), Workdir: t.Workdir, Seed: t.Seed[:],
		Memory: t.Limits.Memory, Fuel: t.Limits.Fuel, Disk: t.Limits.Disk, Files: t.Limits.Files,
		Live: t.Stdout != nil || t.Stderr != nil}
	if t.Limits.Memory < 0 || t.Limits.Fuel < 0 || t.Limits.Disk < 0 || t.Limits.Files < 0 {
		return nil, badTask("limits cannot be negative")
	}
	if !t.Module.Defined() {
		return nil, badTask("no module is given")
	}
	if req.Workdir == "" {
		req.Workdir = "/"
	}
	if !validGuestPath(req.Workdir) {
		return nil, badTask("the working directory %q is not an absolute clean path", t.Workdir)
	}
	if err := req.strings(t); err != nil {
		return nil, err
	}
	if err := req.paths(t); err != nil {
		return nil, err
	}
	return req, nil
}

func badTask(format string, args ...any) error {
	return perigee.E("wasm.Run", perigee.Invalid, "%s", fmt.Sprintf(format, args...))
}

// strings checks the arguments and fills in the environment.
func (req *runRequest) strings(t *Task) error {
	total := 0
	for _, a := range t.Args {
		if strings.ContainsRune(a, 0) {
			return badTask("an argument contains a NUL byte: %q", a)
		}
		total += len(a) + 1
	}
	for k, v := range t.Env {
		if k == "" || strings.ContainsAny(k, "=\x00") || strings.ContainsRune(v, 0) {
			return badTask("%q is no name of an environment variable, or its value contains a NUL byte", k)
		}
		req.Env = append(req.Env, k+"="+v)
		total += len(k) + len(v) + 2
	}
	if total > maxStrings {
		return badTask("arguments and environment together have %d bytes, the most is %s; put the data into an input", total, sizeOf(maxStrings))
	}
	if _, given := t.Env["PWD"]; req.Workdir != "/" && !given {
		req.Env = append(req.Env, "PWD="+req.Workdir)
	}
	sort.Strings(req.Env)
	return nil
}

// paths checks the mounts and outputs and fills them in.
func (req *runRequest) paths(t *Task) error {
	seen := map[string]bool{}
	t.Mounts = slices.Clone(t.Mounts)
	// An outer mount comes before what lies inside it, in whatever order given.
	sort.Slice(t.Mounts, func(i, j int) bool { return t.Mounts[i].Path < t.Mounts[j].Path })
	for _, m := range t.Mounts {
		if !validGuestPath(m.Path) || seen[m.Path] {
			return badTask("the mount %q is not an absolute clean path, or is there twice", m.Path)
		}
		seen[m.Path] = true
		root, err := m.Tree.Stat(".")
		if err != nil {
			return perigee.E("wasm.Run", perigee.KindOf(err), err, "cannot open the input at %s", m.Path)
		}
		if root.Kind != perigee.KindFile && root.Kind != perigee.KindDir || root.Kind == perigee.KindFile && m.Path == "/" {
			return badTask("the input at %s is neither a directory nor a file that can lie there", m.Path)
		}
		req.Mounts = append(req.Mounts, mountMessage{Path: m.Path, Kind: uint8(root.Kind), Size: root.Size})
	}
	for _, dir := range t.Outputs {
		if !validGuestPath(dir) || dir == "/" || seen[dir] {
			return badTask("the output %q is not an absolute clean path below /, or is there twice", dir)
		}
		if first, _, _ := strings.Cut(dir[1:], "/"); first == "stdout" || first == "stderr" {
			return badTask("the output %s would collide with the standard streams; choose another directory", dir)
		}
		seen[dir] = true
		req.Outputs = append(req.Outputs, dir)
	}
	sort.Strings(req.Outputs)
	return nil
}

// validGuestPath reports whether p is absolute, clean and without NUL.
func validGuestPath(p string) bool {
	return len(p) <= MaxPath && strings.HasPrefix(p, "/") && path.Clean(p) == p && !strings.ContainsRune(p, 0)
}

// contextKind is the kind of a context that is done.
func contextKind(ctx context.Context) perigee.Kind {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return perigee.Timeout
	}
	return perigee.Cancelled
}

// sizeText formats numbers of bytes, each as %s, the way people say them.
func sizeText(format string, bytes ...int64) string {
	args := make([]any, len(bytes))
	for i, n := range bytes {
		args[i] = sizeOf(n)
	}
	return fmt.Sprintf(format, args...)
}

// sizeOf prints a number of bytes: exactly, in the largest fitting unit.
func sizeOf(n int64) string {
	for _, u := range []struct {
		size int64
		name string
	}{{1 << 40, "TiB"}, {1 << 30, "GiB"}, {1 << 20, "MiB"}, {1 << 10, "KiB"}} {
		if n >= u.size && n%u.size == 0 {
			return fmt.Sprintf("%d %s", n/u.size, u.name)
		}
	}
	return fmt.Sprintf("%d bytes", n)
}
