package wasm

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"runtime"
	"sort"
	"strings"

	"github.com/bytecodealliance/wasmtime-go/v44"
	"github.com/perigee-network/perigee"
)

// engineSettings says what newEngine sets, for the names of cached files.
const engineSettings = "fuel simd relaxed-simd-deterministic no-threads no-memory64 no-multi-memory no-gc stack=2097152 speed grow-2"

// engineHash names everything a compiled module depends on besides its source.
func engineHash() string {
	h := sha256.Sum256([]byte(Version + "|" + runtime.GOOS + "|" + runtime.GOARCH + "|" + engineSettings))
	return hex.EncodeToString(h[:8])
}

// newEngine returns an engine whose results depend on nothing but Class.
func newEngine() *wasmtime.Engine {
	c := wasmtime.NewConfig()
	c.SetConsumeFuel(true)
	c.SetWasmSIMD(true)
	c.SetWasmRelaxedSIMD(true)
	c.SetWasmRelaxedSIMDDeterministic(true)
	c.SetWasmThreads(false)
	c.SetWasmMemory64(false)
	c.SetWasmMultiMemory(false)
	c.SetWasmGC(false)
	c.SetWasmFunctionReferences(false)
	c.SetMaxWasmStack(StackLimit)
	c.SetCraneliftOptLevel(wasmtime.OptLevelSpeed)
	return wasmtime.NewEngineWithConfig(c)
}

// guestStore is a wasmtime store with the memory of its guest.
type guestStore struct {
	*wasmtime.Store
	mem     *wasmtime.Memory
	refused *wasmtime.Global // see rewriteGrow; nil if there is none
}

// refusedPages returns how many pages of memory the guest was last refused.
func (s *guestStore) refusedPages() uint32 {
	if s.refused == nil {
		return 0
	}
	return uint32(s.refused.Get(s.Store).I32())
}

func newGuestStore(engine *wasmtime.Engine, req *runRequest) *guestStore {
	s := &guestStore{Store: wasmtime.NewStore(engine)}
	s.SetFuel(uint64(req.Fuel)) // cannot fail: fuel is on
	s.Limiter(req.Memory, maxTableElements, 1, 16, 1)
	return s
}

// caller learns the guest's memory at its first host call, which may come
// before its instance is known here.
func (s *guestStore) caller(c *wasmtime.Caller) {
	if s.mem == nil {
		if e := c.GetExport("memory"); e != nil {
			s.mem = e.Memory()
		}
	}
}

// memory implements guest. A 32-bit memory's whole address space is reserved
// when it is made, so that it grows in place.
func (s *guestStore) memory() []byte {
	if s.mem == nil {
		return nil
	}
	return s.mem.UnsafeData(s.Store)
}

// fuel implements guest.
func (s *guestStore) fuel() uint64 {
	n, err := s.GetFuel()
	if err != nil {
		return 0
	}
	return n
}

// setFuel implements guest.
func (s *guestStore) setFuel(n uint64) { s.SetFuel(n) }

// verdict says what the end of a guest means: nil when it ended by itself.
// Pages is how much memory it was last refused.
func (x *execution) verdict(err error, pages uint32, r *runResult) *perigee.Fault {
	switch {
	case x.stop != nil:
		return x.stop
	case x.exited:
		r.ExitCode = x.exitCode
		if x.exitCode != 0 && x.refused(pages) {
			x.haltMemory("ended with exit code %d", x.exitCode)
		}
		return x.stop
	case err == nil:
		return nil
	}
	var trap *wasmtime.Trap
	if !errors.As(err, &trap) {
		x.halt(perigee.Invalid, "the program could not be started: %s", firstLine(err.Error()))
		return x.stop
	}
	code := trap.Code()
	switch {
	case code != nil && *code == wasmtime.OutOfFuel:
		x.haltFuel()
	case code != nil && *code == wasmtime.StackOverflow:
		x.halt(perigee.Exhausted, "stack limit %s reached: the program's calls are nested too deeply%s", sizeOf(StackLimit), where(trap))
	case x.refused(pages):
		x.haltMemory("trapped: %s%s", reason(trap), where(trap))
	default:
		hint := ""
		if code != nil && *code == wasmtime.MemoryOutOfBounds {
			hint = "; if it recurses deeply, the stack it was linked with may be too small (-z stack-size)"
		}
		x.halt(perigee.Invalid, "the program trapped: %s%s%s", reason(trap), where(trap), hint)
	}
	return x.stop
}

// refused reports whether the memory limit, and not the module's own maximum,
// kept the guest from having so many pages.
func (x *execution) refused(pages uint32) bool {
	return int64(pages)*pageSize > x.req.Memory
}

// starved reports whether it was this machine that did not have the memory,
// which says nothing about the program.
func (x *execution) starved(pages uint32, ceiling int64) bool {
	return pages > 0 && int64(pages)*pageSize <= min(x.req.Memory, ceiling)
}

func (x *execution) haltMemory(format string, args ...any) {
	x.halt(perigee.Exhausted, "memory limit %s reached: the program was refused more and then %s; raise resources.memory",
		sizeOf(x.req.Memory), fmt.Sprintf(format, args...))
}

// pageSize is that of WebAssembly memories.
const pageSize = 64 << 10

// reason returns the cause of a trap, which stands last in its message.
func reason(t *wasmtime.Trap) string {
	msg := strings.TrimSpace(t.Message())
	if i := strings.LastIndex(msg, "wasm trap: "); i >= 0 {
		return firstLine(msg[i+len("wasm trap: "):])
	}
	return strings.TrimSpace(msg[strings.LastIndexByte(msg, '\n')+1:])
}

// where names the function that trapped, if the module says.
func where(t *wasmtime.Trap) string {
	frames := t.Frames()
	if len(frames) == 0 {
		return ""
	}
	name := frames[0].FuncName()
	if name == nil || *name == "" {
		return ""
	}
	return fmt.Sprintf(" (in %.200s)", *name)
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return line
}

// memoryBounds returns how many bytes of memory a module begins with, and how
// many it allows itself at most.
func memoryBounds(m *wasmtime.Module) (floor, ceiling int64) {
	for _, e := range m.Exports() {
		if t := e.Type().MemoryType(); t != nil {
			ceiling := int64(4 << 30)
			if has, most := t.Maximum(); has {
				ceiling = int64(most) * pageSize
			}
			return int64(t.Minimum()) * pageSize, ceiling
		}
	}
	return 0, 0
}

// compileModule checks and compiles a module's binary.
func compileModule(engine *wasmtime.Engine, binary []byte) ([]byte, *perigee.Fault) {
	var module *wasmtime.Module
	rewritten, err := rewriteGrow(binary)
	if err == nil {
		module, err = wasmtime.NewModule(engine, rewritten)
	}
	if err != nil { // nothing to rewrite, or an error that must speak of the original
		module, err = wasmtime.NewModule(engine, binary)
	}
	if err != nil {
		return nil, &perigee.Fault{Kind: perigee.Invalid, Message: "the module cannot be compiled: " + compileReason(err)}
	}
	defer module.Close()
	if fault := checkInterface(module); fault != nil {
		return nil, fault
	}
	compiled, err := module.Serialize()
	if err != nil {
		return nil, internal("cannot serialise the compiled module: %v", err)
	}
	return compiled, nil
}

// compileReason joins the lines of wasmtime's explanation.
func compileReason(err error) string {
	var parts []string
	for _, line := range strings.Split(err.Error(), "\n") {
		if line = strings.TrimSpace(line); line != "" && line != "Caused by:" {
			parts = append(parts, line)
		}
	}
	return strings.Join(parts, ": ")
}

// checkInterface checks that a module is a command of WASI preview 1 and that
// all it imports exists here.
func checkInterface(m *wasmtime.Module) *perigee.Fault {
	invalid := func(format string, args ...any) *perigee.Fault {
		return &perigee.Fault{Kind: perigee.Invalid, Message: fmt.Sprintf(format, args...)}
	}
	have := map[string]*hostFunction{}
	for i := range hostFunctions {
		have[hostFunctions[i].name] = &hostFunctions[i]
	}
	missing, wrong := []string{}, []string{}
	for _, im := range m.Imports() {
		name := "(unnamed)"
		if im.Name() != nil {
			name = *im.Name()
		}
		f := have[name]
		if im.Module() != hostModule || f == nil {
			missing = append(missing, im.Module()+"."+name)
			continue
		}
		if got := signature(im.Type().FuncType()); got != f.params+"→"+f.results() {
			wrong = append(wrong, im.Module()+"."+name)
		}
	}
	if len(missing) > 0 {
		sort.Strings(missing)
		more := ""
		if n := len(missing) - 20; n > 0 {
			missing, more = missing[:20], fmt.Sprintf(" and %d more", n)
		}
		return invalid("the module imports what does not exist here: %s%s; only %s is provided", strings.Join(missing, ", "), more, hostModule)
	}
	if len(wrong) > 0 {
		return invalid("the module imports functions with parameters or results that WASI preview 1 does not give them: %s", strings.Join(wrong, ", "))
	}
	start, memory, reactor := false, len(m.Imports()) == 0, false
	for _, e := range m.Exports() {
		switch ft := e.Type().FuncType(); {
		case e.Name() == "_start":
			if ft == nil || signature(ft) != "→" {
				return invalid("the module's export _start is no function without parameters and results")
			}
			start = true
		case e.Name() == "_initialize":
			reactor = true
		case e.Name() == "memory" && e.Type().MemoryType() != nil:
			memory = true
		}
	}
	switch {
	case !start && reactor:
		return invalid("the module exports no function _start: it is a library (it exports _initialize); build it as a program with a main function")
	case !start:
		return invalid("the module exports no function _start: it is no WASI program; build it with a main function for WASI preview 1")
	case !memory:
		return invalid("the module imports WASI functions but exports no memory named \"memory\" for them to use")
	}
	return nil
}

// signature writes a function's type in the letters of hostFunction.
func signature(t *wasmtime.FuncType) string {
	if t == nil {
		return "?"
	}
	letters := func(types []*wasmtime.ValType) string {
		var b strings.Builder
		for _, v := range types {
			switch v.Kind() {
			case wasmtime.KindI32:
				b.WriteByte('i')
			case wasmtime.KindI64:
				b.WriteByte('I')
			default:
				b.WriteByte('?')
			}
		}
		return b.String()
	}
	return letters(t.Params()) + "→" + letters(t.Results())
}
