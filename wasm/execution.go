package wasm

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"strings"

	"github.com/perigee-network/perigee"
)

// execution is one guest as its worker sees it: what the host functions work
// on. It belongs to one goroutine.
type execution struct {
	req   *runRequest
	wire  *wire
	guest guest // the engine's side: memory and fuel

	mem      []byte // the guest's memory as it was when last looked at
	pending  int64  // fuel charged by the host and not yet taken from the guest
	settleAt int64
	slept    int64 // nanoseconds of virtual sleep
	random   *rand.ChaCha8

	tree     *tree
	fds      []*descriptor // by number; nil is free
	inputs   inputs
	scratch  scratchStore
	disk     int64 // bytes of all scratch files
	files    int64 // scratch nodes that exist
	std      [3]*scratchFile
	live     *liveOutput
	read     int64 // input bytes the guest was given
	outputs  []*node
	exited   bool
	exitCode uint32
	stop     *perigee.Fault // why the host stopped the guest
	stopFile int64
}

// guest is what the host functions need of the engine.
type guest interface {
	memory() []byte // all of it; grows but never moves or shrinks
	fuel() uint64   // left
	setFuel(uint64)
}

const settleMost = 1 << 20

func newExecution(req *runRequest, w *wire, pool *blockPool) *execution {
	x := &execution{req: req, wire: w, tree: newTree(), stopFile: -1, live: &liveOutput{wire: w, on: req.Live}}
	x.settleAt = max(1, min(settleMost, req.Fuel/16))
	var seed [32]byte
	copy(seed[:], req.Seed)
	x.random = rand.NewChaCha8(seed)
	x.inputs = inputs{wire: w, pool: pool, files: map[int64]*os.File{}}
	x.scratch.open = x.openSpill
	x.tree.ask = x
	for i := range x.std {
		x.std[i] = &scratchFile{}
	}
	return x
}

// build makes the guest's file system.
func (x *execution) build() *perigee.Fault {
	clash := func(path string) *perigee.Fault {
		return &perigee.Fault{Kind: perigee.Invalid, Message: "the input or output at " + path + " collides with another: something on its way is a file"}
	}
	for i, m := range x.req.Mounts { // sorted, so that an outer mount comes first
		if !x.tree.attach(m.Path, func(n *node) {
			n.kind, n.mount, n.inner, n.size, n.fixed = perigee.FileKind(m.Kind), i, ".", m.Size, true
			n.listed = !n.isDir()
		}) {
			return clash(m.Path)
		}
	}
	writable := func(n *node) { n.scratch, n.listed, n.fixed, n.mount = true, true, true, -1 }
	for _, path := range append([]string{"/tmp"}, x.req.Outputs...) {
		if !x.tree.attach(path, writable) {
			return clash(path)
		}
	}
	for _, path := range x.req.Outputs {
		p, _ := x.tree.find(x.tree.root, path, false)
		x.outputs = append(x.outputs, p.node)
	}
	if !x.tree.attach(x.req.Workdir, func(*node) {}) {
		return &perigee.Fault{Kind: perigee.Invalid, Message: "the working directory " + x.req.Workdir + " is not a directory"}
	}
	if x.stop != nil {
		return x.stop
	}
	x.fds = []*descriptor{{std: 0, rights: rightRead}, {std: 1, rights: rightWrite}, {std: 2, rights: rightWrite},
		{node: x.tree.root, std: -1, preopen: true, rights: rightsDir}}
	return nil
}

// halt stops the guest with a reason; the first reason counts.
func (x *execution) halt(kind perigee.Kind, format string, args ...any) {
	if x.stop == nil {
		x.stop = &perigee.Fault{Kind: kind, Message: fmt.Sprintf(format, args...)}
	}
}

func (x *execution) haltInput(f *inputFault) {
	if x.stop == nil {
		x.stop, x.stopFile = &perigee.Fault{Kind: f.kind, Message: f.text}, f.file
	}
}

// stopped reports whether the guest must not go on.
func (x *execution) stopped() bool { return x.stop != nil || x.exited }

// charge adds fuel for the host's work and takes it from the guest's in pieces.
func (x *execution) charge(fuel int64) {
	if x.pending += fuel; x.pending < x.settleAt {
		return
	}
	left := x.guest.fuel()
	if uint64(x.pending) > left {
		x.haltFuel()
		return
	}
	x.guest.setFuel(left - uint64(x.pending))
	x.pending = 0
}

func (x *execution) haltFuel() {
	x.halt(perigee.Exhausted, "fuel limit %d operations reached; raise resources.fuel or give it less work", x.req.Fuel)
}

// chargeBytes charges for bytes that the host moved.
func (x *execution) chargeBytes(n int) { x.charge(int64(n) / HostBytesPerFuel) }

// fuelUsed returns the fuel used so far by the guest and for it.
func (x *execution) fuelUsed() int64 {
	return x.req.Fuel - int64(x.guest.fuel()) + x.pending
}

// now returns the virtual nanoseconds since the guest's start.
func (x *execution) now() int64 {
	t := x.fuelUsed() + x.slept
	if t < 0 {
		return math.MaxInt64
	}
	return t
}

// bytes returns n bytes of the guest's memory at ptr, false if they are not
// inside it.
func (x *execution) bytes(ptr, n uint32) ([]byte, bool) {
	end := uint64(ptr) + uint64(n)
	if end > uint64(len(x.mem)) {
		if x.mem = x.guest.memory(); end > uint64(len(x.mem)) {
			return nil, false
		}
	}
	return x.mem[ptr:end:end], true
}

// put32 and put64 store a number in the guest's memory.
func (x *execution) put32(ptr uint32, v uint32) errno {
	b, in := x.bytes(ptr, 4)
	if !in {
		return eFAULT
	}
	binary.LittleEndian.PutUint32(b, v)
	return ok
}

func (x *execution) put64(ptr uint32, v uint64) errno {
	b, in := x.bytes(ptr, 8)
	if !in {
		return eFAULT
	}
	binary.LittleEndian.PutUint64(b, v)
	return ok
}

// path reads a path argument.
func (x *execution) path(ptr, n uint32) (string, errno) {
	if n > MaxPath {
		return "", eNAMETOOLONG
	}
	b, in := x.bytes(ptr, n)
	if !in {
		return "", eFAULT
	}
	return string(b), ok
}

// grow accounts for delta more bytes of scratch files and stops the guest at
// the limit.
func (x *execution) grow(delta int64) bool {
	if delta > 0 && delta > x.req.Disk-x.disk {
		x.halt(perigee.Exhausted, "disk limit %s reached: outputs, /tmp, stdout and stderr together would hold more; raise resources.disk", sizeOf(x.req.Disk))
		return false
	}
	x.disk += delta
	return true
}

// addNode accounts for one more file, directory or symlink.
func (x *execution) addNode() bool {
	if x.files >= x.req.Files {
		x.halt(perigee.Exhausted, "file limit %d files and directories reached; raise resources.files", x.req.Files)
		return false
	}
	x.files++
	return true
}

func (x *execution) openSpill() *os.File {
	r, f := x.wire.query(query{Op: querySpill})
	if r.Fault != nil {
		x.halt(r.Fault.Kind, "%s", r.Fault.Message)
		return nil
	}
	return f
}

// scratchFailed stops the guest because the host's disk failed it.
func (x *execution) scratchFailed(err error) errno {
	x.halt(perigee.Unavailable, "the node cannot store what the program writes: %v", err)
	return eIO
}

// stat implements tree.ask.
func (x *execution) stat(mount int, name string) (*nodeMessage, bool) {
	r, _ := x.wire.query(query{Op: queryStat, Mount: mount, Name: name})
	switch {
	case r.Fault != nil && r.Fault.Kind == perigee.NotFound:
		return nil, true
	case r.Fault != nil:
		x.halt(r.Fault.Kind, "%s", r.Fault.Message)
		return nil, false
	case len(r.Entries) != 1 || !validNode(&r.Entries[0]):
		x.halt(perigee.Corrupt, "an input tree has a malformed entry %q", name)
		return nil, false
	}
	return &r.Entries[0], true
}

// list implements tree.ask.
func (x *execution) list(mount int, name string) ([]nodeMessage, bool) {
	var all []nodeMessage
	for {
		r, _ := x.wire.query(query{Op: queryReadDir, Mount: mount, Name: name, From: int64(len(all))})
		if r.Fault != nil {
			x.halt(r.Fault.Kind, "%s", r.Fault.Message)
			return nil, false
		}
		for i := range r.Entries {
			e := &r.Entries[i]
			if !validNode(e) || e.Name == "" || e.Name == "." || e.Name == ".." || strings.ContainsAny(e.Name, "/\x00") {
				x.halt(perigee.Corrupt, "an input tree has a malformed entry %q", e.Name)
				return nil, false
			}
		}
		all = append(all, r.Entries...)
		if !r.More || len(r.Entries) == 0 {
			return all, true
		}
	}
}

func validNode(e *nodeMessage) bool {
	switch perigee.FileKind(e.Kind) {
	case perigee.KindFile, perigee.KindDir, perigee.KindSymlink:
		return e.Size >= 0
	}
	return false
}
