package wasm

import "encoding/binary"

func fdFdstatGet(x *execution, a *arguments) errno {
	d, e := x.descriptor(a.u32(0))
	if e != ok {
		return e
	}
	b, in := x.bytes(a.u32(1), 24)
	if !in {
		return eFAULT
	}
	clear(b)
	if d.node == nil {
		// A character device that can be asked to seek is what a C library
		// takes for no terminal: it then gathers its output in large pieces.
		b[0] = typeCharDevice
		binary.LittleEndian.PutUint64(b[8:], d.rights|rightSeek|rightTell)
	} else {
		b[0] = fileTypes[d.node.kind]
		binary.LittleEndian.PutUint64(b[8:], d.rights)
	}
	binary.LittleEndian.PutUint16(b[2:], d.flags)
	if d.node != nil && d.node.isDir() {
		binary.LittleEndian.PutUint64(b[16:], rightsAll)
	}
	return ok
}

func fdFdstatSetFlags(x *execution, a *arguments) errno {
	d, e := x.descriptor(a.u32(0))
	if e != ok {
		return e
	}
	if a.u32(1)&^flagsKnown != 0 {
		return eINVAL
	}
	d.flags = uint16(a.u32(1))
	return ok
}

func fdFdstatSetRights(x *execution, a *arguments) errno {
	d, e := x.descriptor(a.u32(0))
	if e != ok {
		return e
	}
	if a[1]&^d.rights != 0 {
		return eNOTCAPABLE // rights can only be given up
	}
	d.rights = a[1]
	return ok
}

// putFilestat stores what is known of a node, or of a standard stream for nil.
func (x *execution) putFilestat(n *node, ptr uint32) errno {
	b, in := x.bytes(ptr, 64)
	if !in {
		return eFAULT
	}
	clear(b)
	times, links := [2]uint64{EpochSeconds * 1e9, EpochSeconds * 1e9}, 1
	b[16] = typeCharDevice
	if n != nil {
		binary.LittleEndian.PutUint64(b[8:], n.ino)
		b[16] = fileTypes[n.kind]
		binary.LittleEndian.PutUint64(b[32:], uint64(x.sizeOfNode(n)))
		times, links = n.times, n.links
	}
	binary.LittleEndian.PutUint64(b[24:], uint64(links))
	binary.LittleEndian.PutUint64(b[40:], times[0])
	binary.LittleEndian.PutUint64(b[48:], times[1])
	binary.LittleEndian.PutUint64(b[56:], times[1])
	return ok
}

func fdFilestatGet(x *execution, a *arguments) errno {
	d, e := x.descriptor(a.u32(0))
	if e != ok {
		return e
	}
	return x.putFilestat(d.node, a.u32(1))
}

func fdFilestatSetSize(x *execution, a *arguments) errno {
	d, e := x.descriptor(a.u32(0))
	switch {
	case e != ok:
		return e
	case d.node == nil || d.node.isDir():
		return eINVAL
	case d.node.content == nil:
		return eROFS
	case d.rights&rightWrite == 0:
		return eBADF
	case int64(a[1]) < 0:
		return eINVAL
	}
	return x.resize(d.node.content, d.node.links, int64(a[1]))
}

// setTimes sets a scratch node's timestamps.
func (x *execution) setTimes(n *node, atime, mtime uint64, which uint32) errno {
	if which&^15 != 0 || which&(setAtime|setAtimeNow) == setAtime|setAtimeNow || which&(setMtime|setMtimeNow) == setMtime|setMtimeNow {
		return eINVAL
	}
	if n == nil || !n.scratch {
		return eROFS
	}
	now := x.clock(clockRealtime)
	for i, t := range []struct{ given, isNow bool }{
		{which&setAtime != 0, which&setAtimeNow != 0}, {which&setMtime != 0, which&setMtimeNow != 0}} {
		switch {
		case t.given:
			n.times[i] = [2]uint64{atime, mtime}[i]
		case t.isNow:
			n.times[i] = now
		}
	}
	return ok
}

func fdFilestatSetTimes(x *execution, a *arguments) errno {
	d, e := x.descriptor(a.u32(0))
	if e != ok {
		return e
	}
	return x.setTimes(d.node, a[1], a[2], a.u32(3))
}

func fdPrestatGet(x *execution, a *arguments) errno {
	d, e := x.descriptor(a.u32(0))
	if e != ok || !d.preopen {
		return eBADF
	}
	return x.put64(a.u32(1), 1<<32) // a directory whose name has one byte: "/"
}

func fdPrestatDirName(x *execution, a *arguments) errno {
	d, e := x.descriptor(a.u32(0))
	if e != ok || !d.preopen {
		return eBADF
	}
	if a.u32(2) < 1 {
		return eNAMETOOLONG
	}
	b, in := x.bytes(a.u32(1), 1)
	if !in {
		return eFAULT
	}
	b[0] = '/'
	return ok
}

// fdReaddir lists a directory: ".", "..", then the names in bytewise order. The
// list is made when a guest begins at cookie 0.
func fdReaddir(x *execution, a *arguments) errno {
	dir, e := x.dir(a.u32(0))
	if e != ok {
		return e
	}
	d := x.fds[a.u32(0)]
	buf, in := x.bytes(a.u32(1), a.u32(2))
	if !in {
		return eFAULT
	}
	if a[3] == 0 || d.names == nil {
		if !x.tree.fill(dir) {
			return eIO
		}
		d.names = append([]string{".", ".."}, dir.names()...)
	}
	used := 0
	for i := a[3]; i < uint64(len(d.names)) && used < len(buf); i++ {
		name := d.names[i]
		n := dir
		switch name {
		case ".":
		case "..":
			n = dir.parent
		default:
			if n = dir.children[name]; n == nil {
				continue // removed since
			}
		}
		var head [direntSize]byte
		binary.LittleEndian.PutUint64(head[:], i+1)
		binary.LittleEndian.PutUint64(head[8:], n.ino)
		binary.LittleEndian.PutUint32(head[16:], uint32(len(name)))
		head[20] = fileTypes[n.kind]
		used += copy(buf[used:], head[:])
		used += copy(buf[used:], name)
	}
	x.chargeBytes(used)
	return x.put32(a.u32(4), uint32(used))
}
