package wasm

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"sort"
	"sync"

	"github.com/perigee-network/perigee"
)

// inputFile is an open file of an input tree.
type inputFile struct {
	mount   int
	name    string
	size    int64
	skip    int64
	extents []extentMessage
	ends    []int64 // ends[i] is where extent i ends, from the first extent's begin
	next    int     // the extent after the one read last
}

// inputs reads and checks extents for one execution. Only the guest's goroutine
// calls it; read-ahead goroutines work on blocks of their own.
type inputs struct {
	wire  *wire
	pool  *blockPool
	mu    sync.Mutex // guards files
	files map[int64]*os.File
	used  []*block // checked blocks, the one used last at the end
	ahead []*block // blocks that are being read before they are wanted
}

const (
	blocksKept  = 8
	blocksAhead = 2
	filesOpen   = 128
)

// block is one extent in memory.
type block struct {
	file  *inputFile
	index int
	buf   []byte
	done  chan struct{} // closed when buf or fault is there
	fault *inputFault
}

// inputFault is why an input cannot be read, and the number of the local file
// that is to blame.
type inputFault struct {
	kind perigee.Kind
	text string
	file int64
}

// blockPool keeps buffers for blocks from one execution to the next.
type blockPool struct {
	mu   sync.Mutex
	free [][]byte
}

func (p *blockPool) get(n int64) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := len(p.free) - 1; i >= 0; i-- {
		if b := p.free[i]; int64(cap(b)) >= n {
			p.free = append(p.free[:i], p.free[i+1:]...)
			return b[:n]
		}
	}
	size := int64(4 << 10)
	for size < n {
		size *= 2
	}
	return make([]byte, n, size)
}

func (p *blockPool) put(b []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.free) < blocksKept+blocksAhead && cap(b) > 0 {
		p.free = append(p.free, b)
	}
}

// trim leaves a few buffers for the next execution.
func (p *blockPool) trim() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.free) > blocksAhead+2 {
		clear(p.free[blocksAhead+2:])
		p.free = p.free[:blocksAhead+2]
	}
}

// open asks for the extents of a file.
func (in *inputs) open(mount int, name string) (*inputFile, *inputFault) {
	f := &inputFile{mount: mount, name: name}
	for {
		r, fd := in.wire.query(query{Op: queryOpen, Mount: mount, Name: name, From: int64(len(f.extents))})
		if fd != nil {
			in.keep(r.FileID, fd)
		}
		if r.Fault != nil {
			return nil, &inputFault{kind: r.Fault.Kind, text: r.Fault.Message, file: -1}
		}
		if r.Count > maxExtents || r.Size < 0 || r.Skip < 0 {
			return nil, &inputFault{kind: perigee.Unsupported, text: fmt.Sprintf("an input file has %d blocks, more than the %d that can be handled", r.Count, maxExtents), file: -1}
		}
		f.size, f.skip = r.Size, r.Skip
		f.extents = append(f.extents, r.Extents...)
		if !r.More || len(r.Extents) == 0 {
			break
		}
	}
	f.ends = make([]int64, len(f.extents))
	var end int64
	for i := range f.extents {
		x := &f.extents[i]
		if x.Length < 0 || x.Length > maxExtent || len(x.Sum) != sha256.Size {
			return nil, &inputFault{kind: perigee.Corrupt, text: "an input file has malformed blocks", file: -1}
		}
		end += x.Length
		f.ends[i] = end
	}
	if f.size > 0 && f.skip+f.size > end {
		return nil, &inputFault{kind: perigee.Corrupt, text: "an input file is shorter than it says", file: -1}
	}
	return f, nil
}

// readAt copies checked bytes from off on into p.
func (in *inputs) readAt(f *inputFile, p []byte, off int64) (int, *inputFault) {
	if off >= f.size {
		return 0, nil
	}
	p = p[:min(int64(len(p)), f.size-off)]
	at := f.skip + off
	for done := 0; done < len(p); {
		i := f.next - 1
		if i < 0 || at >= f.ends[i] || at < f.ends[i]-f.extents[i].Length {
			if i = f.next; i >= len(f.ends) || at >= f.ends[i] || at < f.ends[i]-f.extents[i].Length {
				i = sort.Search(len(f.ends), func(k int) bool { return f.ends[k] > at })
			}
		}
		b, fault := in.block(f, i)
		if fault != nil {
			return done, fault
		}
		n := copy(p[done:], b.buf[at-(f.ends[i]-f.extents[i].Length):])
		done += n
		at += int64(n)
	}
	return len(p), nil
}

// block returns extent i of f, checked. Reading in order makes it read ahead.
func (in *inputs) block(f *inputFile, i int) (*block, *inputFault) {
	inOrder := i == f.next
	f.next = i + 1
	for k := len(in.used) - 1; k >= 0; k-- {
		if b := in.used[k]; b.file == f && b.index == i {
			copy(in.used[k:], in.used[k+1:])
			in.used[len(in.used)-1] = b
			return b, nil
		}
	}
	b := in.take(f, i)
	if inOrder {
		in.readAhead(f, i+1)
	}
	if b == nil {
		b = &block{file: f, index: i, buf: in.pool.get(f.extents[i].Length)}
		b.fault = in.read(&f.extents[i], b.buf)
	} else {
		<-b.done
	}
	if b.fault != nil {
		in.pool.put(b.buf)
		return nil, b.fault
	}
	if len(in.used) >= blocksKept {
		in.pool.put(in.used[0].buf)
		in.used = append(in.used[:0], in.used[1:]...)
	}
	in.used = append(in.used, b)
	return b, nil
}

// take returns the block that is being read ahead, if it is this one.
func (in *inputs) take(f *inputFile, i int) *block {
	for k, b := range in.ahead {
		if b.file == f && b.index == i {
			in.ahead = append(in.ahead[:k], in.ahead[k+1:]...)
			return b
		}
	}
	return nil
}

// readAhead starts reading the blocks from i on. A fault in one of them is told
// only if the guest gets there.
func (in *inputs) readAhead(f *inputFile, i int) {
	for ; i < len(f.extents); i++ {
		mine := false
		for _, b := range in.ahead {
			mine = mine || b.file == f && b.index == i
		}
		if mine {
			continue
		}
		if len(in.ahead) >= blocksAhead {
			if old := in.ahead[0]; old.file != f || old.index < f.next {
				<-old.done // of another file, or skipped: not wanted any more
				in.pool.put(old.buf)
				in.ahead = append(in.ahead[:0], in.ahead[1:]...)
			} else {
				return
			}
		}
		x := &f.extents[i]
		b := &block{file: f, index: i, done: make(chan struct{}), buf: in.pool.get(x.Length)}
		in.ahead = append(in.ahead, b)
		go func() {
			b.fault = in.read(x, b.buf)
			close(b.done)
		}()
	}
}

// read reads one extent and checks its hash.
func (in *inputs) read(x *extentMessage, buf []byte) *inputFault {
	if x.File < 0 {
		if int64(len(x.Data)) != x.Length || sha256.Sum256(x.Data) != [32]byte(x.Sum) {
			return &inputFault{kind: perigee.Corrupt, text: "a stored block of an input does not have the hash it is named by", file: -1}
		}
		copy(buf, x.Data)
		return nil
	}
	var n int
	var err error = os.ErrClosed
	for errors.Is(err, os.ErrClosed) { // keep may close what another goroutine was given
		file, fault := in.file(x.File)
		if fault != nil {
			return fault
		}
		n, err = file.ReadAt(buf, x.Offset)
	}
	if n < len(buf) && (err == io.EOF || err == nil) {
		return &inputFault{kind: perigee.Corrupt, file: x.File,
			text: fmt.Sprintf("an input changed: its file ends at byte %d, inside the block at bytes %d to %d", x.Offset+int64(n), x.Offset, x.Offset+x.Length)}
	}
	if n < len(buf) {
		return &inputFault{kind: perigee.Unavailable, file: x.File, text: fmt.Sprintf("an input cannot be read at byte %d: %v", x.Offset+int64(n), err)}
	}
	if sha256.Sum256(buf) != [32]byte(x.Sum) {
		return &inputFault{kind: perigee.Corrupt, file: x.File,
			text: fmt.Sprintf("an input changed: bytes %d to %d of its file no longer have the hash they were indexed with", x.Offset, x.Offset+x.Length)}
	}
	return nil
}

// file returns the descriptor of a local file, asking for it if need be.
func (in *inputs) file(id int64) (*os.File, *inputFault) {
	in.mu.Lock()
	f := in.files[id]
	in.mu.Unlock()
	if f != nil {
		return f, nil
	}
	r, f := in.wire.query(query{Op: queryFile, From: id})
	if r.Fault != nil {
		return nil, &inputFault{kind: r.Fault.Kind, text: r.Fault.Message, file: -1}
	}
	if f == nil {
		return nil, &inputFault{kind: perigee.Internal, text: "the node sent no descriptor", file: id}
	}
	return in.keep(id, f), nil
}

// keep remembers a descriptor and returns the one that is remembered.
func (in *inputs) keep(id int64, f *os.File) *os.File {
	in.mu.Lock()
	defer in.mu.Unlock()
	if old := in.files[id]; old != nil {
		f.Close()
		return old
	}
	if len(in.files) >= filesOpen {
		// A read under way ends before its file closes; whoever needs a closed
		// one again asks again.
		for k, old := range in.files {
			old.Close()
			delete(in.files, k)
		}
	}
	in.files[id] = f
	return f
}

// close ends all reading.
func (in *inputs) close() {
	for _, b := range in.ahead {
		<-b.done
		in.pool.put(b.buf)
	}
	for _, b := range in.used {
		in.pool.put(b.buf)
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	for id, f := range in.files {
		f.Close()
		delete(in.files, id)
	}
}
