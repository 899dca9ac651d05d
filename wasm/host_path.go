package wasm

import (
	"unicode/utf8"

	"github.com/perigee-network/perigee"
)

const (
	followSymlink = 1
	openCreate    = 1
	openDirectory = 2
	openExclusive = 4
	openTruncate  = 8
)

// lookup follows the path argument at ptr from the directory fd.
func (x *execution) lookup(fd, ptr, n uint32, follow bool) (place, errno) {
	if x.charge(PathFuel); x.stopped() {
		return place{}, eIO
	}
	dir, e := x.dir(fd)
	if e != ok {
		return place{}, e
	}
	path, e := x.path(ptr, n)
	if e != ok {
		return place{}, e
	}
	return x.tree.find(dir, path, follow)
}

// there is lookup for a node that must exist.
func (x *execution) there(fd, ptr, n uint32, follow bool) (place, errno) {
	p, e := x.lookup(fd, ptr, n, follow)
	if e == ok && p.node == nil {
		e = eNOENT
	}
	return p, e
}

// makeAt makes a scratch node at a place where there is none.
func (x *execution) makeAt(p place, kind perigee.FileKind) (*node, errno) {
	switch {
	case p.node != nil:
		return nil, eEXIST
	case !p.dir.scratch:
		return nil, eROFS
	case p.dir.links == 0:
		return nil, eNOENT // the directory itself was removed
	case len(p.name) > 255:
		return nil, eNAMETOOLONG
	case !utf8.ValidString(p.name):
		return nil, eILSEQ
	}
	if !x.addNode() {
		return nil, eIO
	}
	n := x.tree.newNode(kind)
	n.scratch, n.listed = true, true
	switch kind {
	case perigee.KindDir:
		n.parent = p.dir
	case perigee.KindFile:
		n.content = &scratchFile{}
	}
	p.dir.children[p.name] = n
	return n, ok
}

// removable reports why a place cannot lose its name.
func removable(p place) errno {
	switch {
	case p.name == "":
		return eINVAL
	case !p.dir.scratch:
		return eROFS
	case !p.node.scratch || p.node.fixed:
		return eBUSY
	}
	return ok
}

// remove takes a name away.
func (x *execution) remove(p place) {
	delete(p.dir.children, p.name)
	x.files--
	if n := p.node; n.content != nil && n.links > 1 {
		x.disk -= n.content.size
	}
	p.node.links--
	x.free(p.node)
}

// free frees the content of a node that has neither names nor descriptors.
func (x *execution) free(n *node) {
	if n.links > 0 || n.opens > 0 || n.content == nil {
		return
	}
	x.resize(n.content, 1, 0)
}

func pathOpen(x *execution, a *arguments) errno {
	flags, fdflags, rights := a.u32(4), a.u32(7), a[5]
	if fdflags&^flagsKnown != 0 || flags&^15 != 0 {
		return eINVAL
	}
	if _, in := x.bytes(a.u32(8), 4); !in {
		return eFAULT
	}
	follow := a.u32(1)&followSymlink != 0 && flags&openExclusive == 0
	p, e := x.lookup(a.u32(0), a.u32(2), a.u32(3), follow)
	if e != ok {
		return e
	}
	// Go asks for the right to set the size even of what it only reads.
	writing := rights&(rightWrite|rightAllocate) != 0
	if p.node == nil {
		if flags&openCreate == 0 {
			return eNOENT
		}
		if flags&openDirectory != 0 {
			return eINVAL
		}
		if p.mustDir {
			return eISDIR
		}
		if p.node, e = x.makeAt(p, perigee.KindFile); e != ok {
			return e
		}
	} else if e := x.openable(p, flags, writing); e != ok {
		return e
	}
	d := &descriptor{node: p.node, std: -1, flags: uint16(fdflags), rights: rights & rightsFile}
	if p.node.isDir() {
		d.rights = rights & rightsDir
	}
	fd, e := x.install(d)
	if e != ok {
		return e
	}
	if p.node.scratch {
		p.node.opens++
	}
	return x.put32(a.u32(8), fd)
}

// openable checks whether an existing node may be opened so, and truncates it.
func (x *execution) openable(p place, flags uint32, writing bool) errno {
	n := p.node
	switch {
	case flags&openCreate != 0 && flags&openExclusive != 0:
		return eEXIST
	case n.kind == perigee.KindSymlink:
		return eLOOP // not followed, and there is nothing in it to read
	case n.isDir():
		// One who asks for a directory by name may ask for all rights there are.
		if flags&openTruncate != 0 || writing && flags&openDirectory == 0 {
			return eISDIR
		}
		return ok
	case flags&openDirectory != 0:
		return eNOTDIR
	case n.content == nil && (writing || flags&openTruncate != 0):
		return eROFS
	}
	if flags&openTruncate != 0 {
		return x.resize(n.content, n.links, 0)
	}
	return ok
}

func pathCreateDirectory(x *execution, a *arguments) errno {
	p, e := x.lookup(a.u32(0), a.u32(1), a.u32(2), false)
	if e != ok {
		return e
	}
	_, e = x.makeAt(p, perigee.KindDir)
	return e
}

func pathFilestatGet(x *execution, a *arguments) errno {
	p, e := x.there(a.u32(0), a.u32(2), a.u32(3), a.u32(1)&followSymlink != 0)
	if e != ok {
		return e
	}
	return x.putFilestat(p.node, a.u32(4))
}

func pathFilestatSetTimes(x *execution, a *arguments) errno {
	p, e := x.there(a.u32(0), a.u32(2), a.u32(3), a.u32(1)&followSymlink != 0)
	if e != ok {
		return e
	}
	return x.setTimes(p.node, a[4], a[5], a.u32(6))
}

func pathLink(x *execution, a *arguments) errno {
	from, e := x.there(a.u32(0), a.u32(2), a.u32(3), a.u32(1)&followSymlink != 0)
	if e != ok {
		return e
	}
	to, e := x.lookup(a.u32(4), a.u32(5), a.u32(6), false)
	switch {
	case e != ok:
		return e
	case to.node != nil:
		return eEXIST
	case to.mustDir:
		return eNOENT
	case from.node.isDir():
		return ePERM
	case !to.dir.scratch:
		return eROFS
	case to.dir.links == 0:
		return eNOENT
	case !from.node.scratch || from.node.content == nil:
		return eNOTSUP
	case len(to.name) > 255:
		return eNAMETOOLONG
	case !utf8.ValidString(to.name):
		return eILSEQ
	}
	// Each name is a file of its own in the result, so each counts.
	if !x.grow(from.node.content.size) || !x.addNode() {
		return eIO
	}
	from.node.links++
	to.dir.children[to.name] = from.node
	return ok
}

func pathReadlink(x *execution, a *arguments) errno {
	p, e := x.there(a.u32(0), a.u32(1), a.u32(2), false)
	if e != ok {
		return e
	}
	if p.node.kind != perigee.KindSymlink {
		return eINVAL
	}
	b, in := x.bytes(a.u32(3), a.u32(4))
	if !in {
		return eFAULT
	}
	n := copy(b, p.node.target)
	x.chargeBytes(n)
	return x.put32(a.u32(5), uint32(n))
}

func pathRemoveDirectory(x *execution, a *arguments) errno {
	p, e := x.there(a.u32(0), a.u32(1), a.u32(2), false)
	if e != ok {
		return e
	}
	if !p.node.isDir() {
		return eNOTDIR
	}
	if e := removable(p); e != ok {
		return e
	}
	if len(p.node.children) > 0 {
		return eNOTEMPTY
	}
	x.remove(p)
	return ok
}

func pathUnlinkFile(x *execution, a *arguments) errno {
	p, e := x.there(a.u32(0), a.u32(1), a.u32(2), false)
	if e != ok {
		return e
	}
	if p.node.isDir() {
		return eISDIR
	}
	if e := removable(p); e != ok {
		return e
	}
	x.remove(p)
	return ok
}

func pathSymlink(x *execution, a *arguments) errno {
	target, e := x.path(a.u32(0), a.u32(1))
	if e != ok {
		return e
	}
	if target == "" {
		return eNOENT
	}
	if !utf8.ValidString(target) {
		return eILSEQ
	}
	p, e := x.lookup(a.u32(2), a.u32(3), a.u32(4), false)
	if e != ok {
		return e
	}
	if p.node == nil && p.mustDir {
		return eNOENT
	}
	n, e := x.makeAt(p, perigee.KindSymlink)
	if e == ok {
		n.target = target
	}
	return e
}

func pathRename(x *execution, a *arguments) errno {
	from, e := x.there(a.u32(0), a.u32(1), a.u32(2), false)
	if e != ok {
		return e
	}
	to, e := x.lookup(a.u32(3), a.u32(4), a.u32(5), false)
	if e != ok {
		return e
	}
	if e := removable(from); e != ok {
		return e
	}
	switch {
	case to.node == from.node:
		return ok
	case !to.dir.scratch:
		return eROFS
	case to.dir.links == 0:
		return eNOENT
	case to.mustDir && !from.node.isDir():
		return eNOTDIR
	case from.node.isDir() && within(to.dir, from.node):
		return eINVAL
	case len(to.name) > 255:
		return eNAMETOOLONG
	case !utf8.ValidString(to.name):
		return eILSEQ
	}
	if to.node != nil {
		if e := replaceable(from, to); e != ok {
			return e
		}
		x.remove(to)
	}
	delete(from.dir.children, from.name)
	to.dir.children[to.name] = from.node
	if from.node.isDir() {
		from.node.parent = to.dir
	}
	return ok
}

// replaceable checks whether a rename may put from over what is at to.
func replaceable(from, to place) errno {
	if e := removable(to); e != ok {
		return e
	}
	switch {
	case from.node.isDir() && !to.node.isDir():
		return eNOTDIR
	case !from.node.isDir() && to.node.isDir():
		return eISDIR
	case len(to.node.children) > 0:
		return eNOTEMPTY
	}
	return ok
}
