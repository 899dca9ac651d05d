package wasm

import (
	"encoding/binary"
	"math"

	"github.com/perigee-network/perigee"
)

// Rights of descriptors that the host cares about; the others are reported but
// not asked for, because what a guest may do follows from where a file lies.
const (
	rightRead      = 1 << 1
	rightSeek      = 1 << 2
	rightTell      = 1 << 5
	rightWrite     = 1 << 6
	rightAllocate  = 1 << 8
	rightReaddir   = 1 << 14
	rightSetSize   = 1 << 22
	rightsAll      = 1<<30 - 1
	rightsFile     = rightsAll &^ (rightReaddir | 0x3f<<9 | 0x7<<15 | 0x7<<24 | 3<<28)
	rightsDir      = rightsAll &^ (rightRead | rightWrite | rightSeek | rightTell | rightAllocate | rightSetSize | 3<<28)
	flagAppend     = 1
	flagsKnown     = 31
	whenceSet      = 0
	whenceCur      = 1
	whenceEnd      = 2
	setAtime       = 1
	setAtimeNow    = 2
	setMtime       = 4
	setMtimeNow    = 8
	typeCharDevice = 2
	direntSize     = 24
)

// fileTypes are the numbers of perigee's kinds in WASI.
var fileTypes = map[perigee.FileKind]byte{perigee.KindDir: 3, perigee.KindFile: 4, perigee.KindSymlink: 7}

// descriptor is an open file, directory or standard stream.
type descriptor struct {
	node    *node
	std     int // 0, 1, 2 for a standard stream, -1 else
	offset  int64
	flags   uint16
	rights  uint64
	preopen bool
	names   []string // of a directory that is being read
}

func (x *execution) descriptor(fd uint32) (*descriptor, errno) {
	if uint64(fd) >= uint64(len(x.fds)) || x.fds[fd] == nil {
		return nil, eBADF
	}
	return x.fds[fd], ok
}

// file returns a descriptor of a file that allows right.
func (x *execution) file(fd uint32, right uint64) (*descriptor, errno) {
	d, e := x.descriptor(fd)
	switch {
	case e != ok:
		return nil, e
	case d.node != nil && d.node.isDir():
		return nil, eISDIR
	case d.rights&right != right:
		return nil, eBADF // as POSIX says of a descriptor open for something else
	}
	return d, ok
}

// dir returns the directory that a path function starts from.
func (x *execution) dir(fd uint32) (*node, errno) {
	d, e := x.descriptor(fd)
	switch {
	case e != ok:
		return nil, e
	case d.node == nil || !d.node.isDir():
		return nil, eNOTDIR
	}
	return d.node, ok
}

// install gives a descriptor the lowest free number.
func (x *execution) install(d *descriptor) (uint32, errno) {
	for i, old := range x.fds {
		if old == nil {
			x.fds[i] = d
			return uint32(i), ok
		}
	}
	if len(x.fds) >= MaxOpenFiles {
		return 0, eMFILE
	}
	x.fds = append(x.fds, d)
	return uint32(len(x.fds) - 1), ok
}

// closeDescriptor frees what only this descriptor held.
func (x *execution) closeDescriptor(d *descriptor) {
	if d.node != nil && d.node.scratch && !d.preopen {
		d.node.opens--
		x.free(d.node)
	}
}

func fdClose(x *execution, a *arguments) errno {
	d, e := x.descriptor(a.u32(0))
	if e != ok {
		return e
	}
	x.fds[a.u32(0)] = nil
	x.closeDescriptor(d)
	return ok
}

func fdRenumber(x *execution, a *arguments) errno {
	from, to := a.u32(0), a.u32(1)
	d, e := x.descriptor(from)
	if e != ok {
		return e
	}
	old, e := x.descriptor(to)
	if e != ok {
		return e
	}
	if from == to {
		return ok
	}
	x.fds[to], x.fds[from] = d, nil
	x.closeDescriptor(old)
	return ok
}

// sizeOfNode returns the size a guest sees of a node.
func (x *execution) sizeOfNode(n *node) int64 {
	switch {
	case n.content != nil:
		return n.content.size
	case n.kind == perigee.KindSymlink:
		return int64(len(n.target))
	case n.kind == perigee.KindFile:
		return n.size
	}
	return 0
}

// contentOf opens the content of an input file when it is first read.
func (x *execution) contentOf(n *node) *inputFile {
	if n.input == nil {
		f, fault := x.inputs.open(n.mount, n.inner)
		if fault == nil && f.size != n.size {
			fault = &inputFault{kind: perigee.Corrupt, text: "an input file does not have the size its directory says", file: -1}
		}
		if fault != nil {
			x.haltInput(fault)
			return nil
		}
		n.input = f
	}
	return n.input
}

// readAt reads a descriptor's file.
func (x *execution) readAt(d *descriptor, p []byte, off int64) (int, errno) {
	if d.node == nil {
		return 0, ok // stdin is empty
	}
	if d.node.content != nil {
		n, err := x.scratch.readAt(d.node.content, p, off)
		if err != nil {
			return 0, x.scratchFailed(err)
		}
		return n, ok
	}
	f := x.contentOf(d.node)
	if f == nil {
		return 0, eIO
	}
	n, fault := x.inputs.readAt(f, p, off)
	if fault != nil {
		x.haltInput(fault)
		return 0, eIO
	}
	x.read += int64(n)
	return n, ok
}

// resize changes the size of a scratch file that has copies names, within the
// disk limit.
func (x *execution) resize(f *scratchFile, copies int, size int64) errno {
	delta, times := size-f.size, int64(max(copies, 1))
	if delta > 0 && delta > (x.req.Disk-x.disk)/times {
		x.grow(math.MaxInt64)
		return eIO
	}
	x.grow(delta * times)
	if err := x.scratch.resize(f, size); err != nil {
		return x.scratchFailed(err)
	}
	return ok
}

// writeAt writes to a descriptor's file.
func (x *execution) writeAt(d *descriptor, p []byte, off int64) errno {
	f, copies := (*scratchFile)(nil), 1
	if d.node != nil {
		f, copies = d.node.content, d.node.links
	} else {
		f = x.std[d.std]
		off = f.size
	}
	if f == nil {
		return eROFS
	}
	if int64(len(p)) > math.MaxInt64-off {
		return eFBIG
	}
	if end := off + int64(len(p)); len(p) > 0 && end > f.size {
		if e := x.resize(f, copies, end); e != ok {
			return e
		}
	}
	if err := x.scratch.writeAt(f, p, off); err != nil {
		return x.scratchFailed(err)
	}
	if d.node == nil {
		x.live.add(d.std, p)
	}
	return ok
}

// vectors calls fn for each buffer of a list of them until fn returns false or
// an error, and stores how many bytes fn moved.
func (x *execution) vectors(list, n, result uint32, fn func(p []byte) (int, errno)) errno {
	if n > maxIovecs {
		return eINVAL
	}
	if _, in := x.bytes(result, 4); !in {
		return eFAULT
	}
	total := uint32(0)
	for i := uint32(0); i < n; i++ {
		v, in := x.bytes(list+8*i, 8)
		if !in || list+8*i < list {
			return eFAULT
		}
		ptr, size := binary.LittleEndian.Uint32(v), binary.LittleEndian.Uint32(v[4:])
		p, in := x.bytes(ptr, size)
		if !in {
			return eFAULT
		}
		if uint64(total)+uint64(size) > math.MaxUint32 {
			return eINVAL
		}
		if size == 0 {
			continue
		}
		moved, e := fn(p)
		if e != ok {
			return e
		}
		x.chargeBytes(moved)
		total += uint32(moved)
		if moved < len(p) || x.stopped() {
			break
		}
	}
	return x.put32(result, total)
}

func fdRead(x *execution, a *arguments) errno {
	d, e := x.file(a.u32(0), rightRead)
	if e != ok {
		return e
	}
	return x.vectors(a.u32(1), a.u32(2), a.u32(3), func(p []byte) (int, errno) {
		n, e := x.readAt(d, p, d.offset)
		d.offset += int64(n)
		return n, e
	})
}

func fdPread(x *execution, a *arguments) errno {
	d, e := x.file(a.u32(0), rightRead)
	if e != ok {
		return e
	}
	if d.node == nil {
		return eSPIPE
	}
	off := int64(a[3])
	if off < 0 {
		return eINVAL
	}
	return x.vectors(a.u32(1), a.u32(2), a.u32(4), func(p []byte) (int, errno) {
		n, e := x.readAt(d, p, off)
		off += int64(n)
		return n, e
	})
}

func fdWrite(x *execution, a *arguments) errno {
	d, e := x.file(a.u32(0), rightWrite)
	if e != ok {
		return e
	}
	return x.vectors(a.u32(1), a.u32(2), a.u32(3), func(p []byte) (int, errno) {
		if d.flags&flagAppend != 0 && d.node != nil {
			d.offset = x.sizeOfNode(d.node)
		}
		if e := x.writeAt(d, p, d.offset); e != ok {
			return 0, e
		}
		d.offset += int64(len(p))
		return len(p), ok
	})
}

func fdPwrite(x *execution, a *arguments) errno {
	d, e := x.file(a.u32(0), rightWrite)
	if e != ok {
		return e
	}
	if d.node == nil {
		return eSPIPE
	}
	off := int64(a[3])
	if off < 0 {
		return eINVAL
	}
	return x.vectors(a.u32(1), a.u32(2), a.u32(4), func(p []byte) (int, errno) {
		if e := x.writeAt(d, p, off); e != ok {
			return 0, e
		}
		off += int64(len(p))
		return len(p), ok
	})
}

func fdSeek(x *execution, a *arguments) errno {
	d, e := x.descriptor(a.u32(0))
	switch {
	case e != ok:
		return e
	case d.node == nil:
		return eSPIPE
	case d.node.isDir():
		return eISDIR
	}
	var base int64
	switch a.u32(2) {
	case whenceSet:
	case whenceCur:
		base = d.offset
	case whenceEnd:
		base = x.sizeOfNode(d.node)
	default:
		return eINVAL
	}
	delta := int64(a[1])
	if delta > 0 && base > math.MaxInt64-delta {
		return eOVERFLOW
	}
	if base+delta < 0 {
		return eINVAL
	}
	if e := x.put64(a.u32(3), uint64(base+delta)); e != ok {
		return e
	}
	d.offset = base + delta
	return ok
}

func fdTell(x *execution, a *arguments) errno {
	d, e := x.descriptor(a.u32(0))
	switch {
	case e != ok:
		return e
	case d.node == nil:
		return eSPIPE
	case d.node.isDir():
		return eISDIR
	}
	return x.put64(a.u32(1), uint64(d.offset))
}

func fdAdvise(x *execution, a *arguments) errno {
	d, e := x.descriptor(a.u32(0))
	switch {
	case e != ok:
		return e
	case d.node == nil:
		return eSPIPE
	case a.u32(3) > 5 || int64(a[1]) < 0 || int64(a[2]) < 0:
		return eINVAL
	}
	return ok
}

func fdAllocate(x *execution, a *arguments) errno {
	d, e := x.file(a.u32(0), rightWrite)
	switch {
	case e != ok:
		return e
	case d.node == nil || d.node.content == nil:
		return eNOTSUP
	}
	off, n := int64(a[1]), int64(a[2])
	if off < 0 || n <= 0 {
		return eINVAL
	}
	if n > math.MaxInt64-off {
		return eFBIG
	}
	if off+n > d.node.content.size {
		return x.resize(d.node.content, d.node.links, off+n)
	}
	return ok
}

// fdSync has nothing to do: what a guest writes is kept when it ends.
func fdSync(x *execution, a *arguments) errno {
	_, e := x.descriptor(a.u32(0))
	return e
}
