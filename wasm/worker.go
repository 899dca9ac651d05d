package wasm

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/bytecodealliance/wasmtime-go/v44"
	"github.com/perigee-network/perigee"
	"golang.org/x/sys/unix"
)

// What a worker process is for.
const (
	purposeRun     = "run"
	purposeCompile = "compile"
)

// workerSocket is the descriptor of the socket to the parent.
const workerSocket = 3

// IsWorker reports whether this process was started as a worker by an Engine.
func IsWorker() bool { return os.Getenv(envWorker) != "" }

// WorkerMain is what a worker process runs: a program that opens engines calls
// it first thing when its arguments ask for a worker, and exits with the code
// it returns.
func WorkerMain() int {
	purpose := os.Getenv(envWorker)
	if purpose != purposeRun && purpose != purposeCompile {
		fmt.Fprintln(os.Stderr, "worker is started by the node itself and does nothing by hand")
		return 2
	}
	roomForStack()
	// The parent holds the other end of stdin. When it is gone, so are we,
	// whatever the guest is doing.
	go func() {
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	w := &worker{wire: newWire(workerSocket), engine: newEngine()}
	ready := confine(os.Getenv(envCache), purpose)
	if err := w.wire.send(frameReady, ready); err != nil {
		return 1
	}
	if err := w.serve(); err != nil && !errors.Is(err, io.EOF) {
		fmt.Fprintln(os.Stderr, "worker:", err)
		return 1
	}
	return 0
}

// A guest runs on the stack of the thread that calls it. The main thread's is
// the one whose size can be seen to.
func init() {
	if IsWorker() {
		runtime.LockOSThread()
	}
}

// roomForStack raises the limit of the main thread's stack, as far as it may,
// above what a guest may use.
func roomForStack() {
	const room = StackLimit + 6<<20
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_STACK, &l) == nil && l.Cur < room {
		l.Cur = min(room, l.Max)
		unix.Setrlimit(unix.RLIMIT_STACK, &l)
	}
}

// worker serves one parent.
type worker struct {
	wire    *wire
	engine  *wasmtime.Engine
	linker  *wasmtime.Linker
	modules []loadedModule // the one used last at the end
	blocks  blockPool
	current *execution // the guest that runs
	store   *guestStore
}

// tidyAfter is how many bytes a guest read or wrote for its worker to give
// memory back afterwards.
const tidyAfter = 8 << 20

type loadedModule struct {
	path   string
	mark   fileMark
	module *wasmtime.Module
	floor  int64 // bytes of memory it begins with
	most   int64 // and allows itself
}

func (w *worker) serve() error {
	for {
		t, payload, err := w.wire.in.next()
		if err != nil {
			return err
		}
		switch t {
		case frameRun:
			var req runRequest
			if err := decodePayload(payload, &req); err != nil {
				return err
			}
			if err := w.run(&req); err != nil {
				return err
			}
		case frameCompile:
			var req compileRequest
			if err := decodePayload(payload, &req); err != nil {
				return err
			}
			if err := w.compile(req); err != nil {
				return err
			}
		default:
			return errFrame
		}
	}
}

// run runs one guest and sends what became of it.
func (w *worker) run(req *runRequest) error {
	x := newExecution(req, w.wire, &w.blocks)
	begin := cpuTime()
	result, fault := w.execute(x)
	x.live.end()
	x.inputs.close()
	w.blocks.trim()
	if x.scratch.spill != nil {
		defer x.scratch.spill.Close()
	}
	result.Fault, result.FaultPath, result.BytesRead = fault, x.stopFile, x.read
	result.CPU = int64(cpuTime() - begin)
	if result.Ran {
		if err := w.sendEntries(x, result); err != nil {
			return err
		}
	}
	w.current, w.store = nil, nil
	heavy := x.disk > tidyAfter || x.read > tidyAfter
	x = nil
	if err := w.wire.send(frameDone, result); err != nil {
		return err
	}
	if heavy { // while nobody waits
		debug.FreeOSMemory()
	}
	return nil
}

// sendEntries sends the outputs in pages.
func (w *worker) sendEntries(x *execution, result *runResult) error {
	entries, err := x.finish()
	if err != nil {
		result.Ran = false
		result.Fault = &perigee.Fault{Kind: perigee.Unavailable, Message: "the node cannot store what the program wrote: " + err.Error()}
		return nil
	}
	if result.Fault == nil {
		result.Fault = x.stop
	}
	const perPage, weight = 2048, 1 << 20
	for len(entries) > 0 {
		n, size := 0, 0
		for n < len(entries) && n < perPage && size < weight {
			size += len(entries[n].Path) + len(entries[n].Target) + len(entries[n].Data) + 24*len(entries[n].Runs)
			n++
		}
		if err := w.wire.send(frameEntries, entries[:n]); err != nil {
			return err
		}
		entries = entries[n:]
	}
	return nil
}

// execute runs the guest of x to its end.
func (w *worker) execute(x *execution) (*runResult, *perigee.Fault) {
	result := &runResult{}
	if w.linker == nil {
		w.linker = wasmtime.NewLinker(w.engine)
		if err := link(w.linker, &w.current, &w.store); err != nil {
			return result, internal("cannot define the host functions: %v", err)
		}
	}
	m, err := w.load(x.req.Compiled)
	if err != nil {
		result.Rebuild = true
		return result, &perigee.Fault{Kind: perigee.Unavailable, Message: "the compiled module cannot be used: " + compileReason(err)}
	}
	if m.floor > x.req.Memory {
		return result, &perigee.Fault{Kind: perigee.Exhausted,
			Message: sizeText("the module begins with %s of memory and the memory limit is %s; raise resources.memory", m.floor, x.req.Memory)}
	}
	if fault := x.build(); fault != nil {
		return result, fault
	}
	store := newGuestStore(w.engine, x.req)
	defer store.Close()
	x.guest, w.current, w.store = store, x, store
	result.Ran = true
	err = w.invoke(store, m.module)
	fault := x.verdict(err, store.refusedPages(), result)
	if x.starved(store.refusedPages(), m.most) {
		fault = &perigee.Fault{Kind: perigee.Unavailable, Message: "this node did not have the memory that the program may use"}
	}
	result.PeakMemory = int64(len(store.memory()))
	result.Fuel = x.fuelUsed()
	if result.Fuel > x.req.Fuel || result.Fuel < 0 {
		result.Fuel = x.req.Fuel
		if fault == nil {
			x.haltFuel()
			fault = x.stop
		}
	}
	return result, fault
}

func internal(format string, args ...any) *perigee.Fault {
	return &perigee.Fault{Kind: perigee.Internal, Message: fmt.Sprintf(format, args...)}
}

// invoke instantiates the module and calls _start.
func (w *worker) invoke(store *guestStore, module *wasmtime.Module) error {
	instance, err := w.linker.Instantiate(store.Store, module)
	if err != nil {
		return err
	}
	if e := instance.GetExport(store.Store, refusedGlobal); e != nil && e.Global() != nil {
		if e.Global().Type(store.Store).Content().Kind() == wasmtime.KindI32 { // ours, not the guest's
			store.refused = e.Global()
		}
	}
	if e := instance.GetExport(store.Store, "memory"); e != nil && store.mem == nil {
		store.mem = e.Memory()
	}
	start := instance.GetFunc(store.Store, "_start")
	if start == nil {
		return errors.New("the module exports no function _start")
	}
	_, err = start.Call(store.Store)
	return err
}

// load returns a compiled module, from memory if it was used lately.
func (w *worker) load(path string) (loadedModule, error) {
	mark, err := markOf(path)
	if err != nil {
		return loadedModule{}, err
	}
	for i, m := range w.modules {
		if m.path != path {
			continue
		}
		w.modules = append(w.modules[:i], w.modules[i+1:]...)
		if m.mark == mark {
			w.modules = append(w.modules, m)
			return m, nil
		}
		m.module.Close()
		break
	}
	module, err := wasmtime.NewModuleDeserializeFile(w.engine, path)
	if err != nil {
		return loadedModule{}, err
	}
	if len(w.modules) >= modulesKept {
		w.modules[0].module.Close()
		w.modules = append(w.modules[:0], w.modules[1:]...)
	}
	m := loadedModule{path: path, mark: mark, module: module}
	m.floor, m.most = memoryBounds(module)
	w.modules = append(w.modules, m)
	return m, nil
}

// compile compiles the module in the first descriptor into the second.
func (w *worker) compile(req compileRequest) error {
	in, err := w.wire.file("module")
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := w.wire.file("compiled module")
	if err != nil {
		return err
	}
	defer out.Close()
	fault := func() *perigee.Fault {
		if req.Size < 0 || req.Size > maxModule {
			return internal("a module of %d bytes was announced", req.Size)
		}
		binary := make([]byte, req.Size)
		if _, err := in.ReadAt(binary, 0); err != nil {
			return &perigee.Fault{Kind: perigee.Unavailable, Message: "cannot read the module: " + err.Error()}
		}
		compiled, fault := compileModule(w.engine, binary)
		if fault != nil {
			return fault
		}
		if _, err := out.Write(compiled); err != nil {
			return &perigee.Fault{Kind: perigee.Unavailable, Message: "cannot store the compiled module: " + err.Error()}
		}
		return nil
	}()
	return w.wire.send(frameDone, compileResult{Fault: fault})
}

// cpuTime returns the processor time this process has used.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
