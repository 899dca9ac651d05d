package wasm

import (
	"fmt"
	"io"
	"os"
)

// chunkSize is the unit in which scratch files occupy memory or disk.
const chunkSize = 64 << 10

// scratchStore holds the bytes of all scratch files of one execution: in memory
// at first, then in one file without a name that the parent gives.
type scratchStore struct {
	memory int64 // bytes held in memory
	spill  *os.File
	open   func() *os.File // asks for the spill file
	end    int64           // of the spill file
	free   []int64         // chunks of it that are not used any more
	zeroes []byte
}

// scratchFile is the content of a scratch file. Its chunks end where its bytes
// were last written; what is missing is zeroes.
type scratchFile struct {
	size   int64
	chunks []chunk
}

// chunk is chunkSize bytes of a file; the one in memory may be shorter. Without
// memory or disk it is a hole.
type chunk struct {
	mem    []byte
	disk   int64 // offset in the spill file
	onDisk bool
}

// readAt copies bytes from off on into p and returns how many there were.
func (s *scratchStore) readAt(f *scratchFile, p []byte, off int64) (int, error) {
	if off >= f.size {
		return 0, nil
	}
	p = p[:min(int64(len(p)), f.size-off)]
	for done := 0; done < len(p); {
		i, in := (off+int64(done))/chunkSize, (off+int64(done))%chunkSize
		part := p[done:min(len(p), done+int(chunkSize-in))]
		done += len(part)
		if i >= int64(len(f.chunks)) {
			clear(part)
			continue
		}
		c := &f.chunks[i]
		switch {
		case c.onDisk:
			n, err := s.spill.ReadAt(part, c.disk+in)
			if err != nil && err != io.EOF {
				return 0, err
			}
			clear(part[n:])
		case in < int64(len(c.mem)):
			clear(part[copy(part, c.mem[in:]):])
		default:
			clear(part)
		}
	}
	return len(p), nil
}

// writeAt writes p at off; the file grows as needed. The caller has checked the
// disk limit.
func (s *scratchStore) writeAt(f *scratchFile, p []byte, off int64) error {
	for done := 0; done < len(p); {
		i, in := (off+int64(done))/chunkSize, (off+int64(done))%chunkSize
		part := p[done:min(len(p), done+int(chunkSize-in))]
		done += len(part)
		for int64(len(f.chunks)) <= i {
			f.chunks = append(f.chunks, chunk{})
		}
		if err := s.writeChunk(&f.chunks[i], part, in); err != nil {
			return err
		}
	}
	f.size = max(f.size, off+int64(len(p)))
	return nil
}

func (s *scratchStore) writeChunk(c *chunk, p []byte, in int64) error {
	if !c.onDisk {
		end := in + int64(len(p))
		if end <= int64(len(c.mem)) {
			copy(c.mem[in:], p)
			return nil
		}
		want := int64(256)
		for want < end {
			want *= 2
		}
		if s.memory+want-int64(cap(c.mem)) <= scratchMemory {
			if end > int64(cap(c.mem)) {
				grown := make([]byte, len(c.mem), want)
				copy(grown, c.mem)
				s.memory += want - int64(cap(c.mem))
				c.mem = grown
			}
			had := int64(len(c.mem))
			c.mem = c.mem[:end]
			if had < in {
				clear(c.mem[had:in])
			}
			copy(c.mem[in:], p)
			return nil
		}
		if err := s.moveToDisk(c); err != nil {
			return err
		}
	}
	_, err := s.spill.WriteAt(p, c.disk+in)
	return err
}

// moveToDisk gives a chunk a place in the spill file.
func (s *scratchStore) moveToDisk(c *chunk) error {
	if s.spill == nil {
		if s.spill = s.open(); s.spill == nil {
			return fmt.Errorf("no scratch file")
		}
	}
	at := s.end
	if n := len(s.free); n > 0 {
		at = s.free[n-1]
		s.free = s.free[:n-1]
		if s.zeroes == nil {
			s.zeroes = make([]byte, chunkSize)
		}
		if _, err := s.spill.WriteAt(s.zeroes, at); err != nil {
			return err
		}
	} else {
		s.end += chunkSize
	}
	if len(c.mem) > 0 {
		if _, err := s.spill.WriteAt(c.mem, at); err != nil {
			return err
		}
	}
	s.memory -= int64(cap(c.mem))
	*c = chunk{disk: at, onDisk: true}
	return nil
}

// resize makes a file shorter or, with zeroes, longer.
func (s *scratchStore) resize(f *scratchFile, size int64) error {
	if size < f.size {
		keep := int((size + chunkSize - 1) / chunkSize)
		for i := keep; i < len(f.chunks); i++ {
			s.drop(&f.chunks[i])
		}
		f.chunks = f.chunks[:min(keep, len(f.chunks))]
		if in := size % chunkSize; in > 0 && keep <= len(f.chunks) {
			c := &f.chunks[keep-1]
			if c.onDisk {
				if s.zeroes == nil {
					s.zeroes = make([]byte, chunkSize)
				}
				if _, err := s.spill.WriteAt(s.zeroes[in:], c.disk+in); err != nil {
					return err
				}
			} else if in < int64(len(c.mem)) {
				c.mem = c.mem[:in]
			}
		}
	}
	f.size = size
	return nil
}

// drop frees a chunk.
func (s *scratchStore) drop(c *chunk) {
	if c.onDisk {
		s.free = append(s.free, c.disk)
	}
	s.memory -= int64(cap(c.mem))
	*c = chunk{}
}

// runs returns where a file's bytes lie in the spill file, after moving them all
// there.
func (s *scratchStore) runs(f *scratchFile) ([]spillRun, error) {
	var runs []spillRun
	for off := int64(0); off < f.size; {
		i := off / chunkSize
		r := spillRun{Offset: -1, Length: min(chunkSize, f.size-off)}
		if i >= int64(len(f.chunks)) {
			r.Length = f.size - off // all that is left is a hole
		} else if c := &f.chunks[i]; c.onDisk || len(c.mem) > 0 {
			if !c.onDisk {
				if err := s.moveToDisk(c); err != nil {
					return nil, err
				}
			}
			r.Offset = c.disk
		}
		off += r.Length
		if n := len(runs); n > 0 {
			last := &runs[n-1]
			if (last.Offset < 0 && r.Offset < 0) || (last.Offset >= 0 && last.Offset+last.Length == r.Offset) {
				last.Length += r.Length
				continue
			}
		}
		runs = append(runs, r)
	}
	if s.spill != nil && len(runs) > 0 {
		// A last chunk that ends in zeroes may be shorter on disk than its run.
		if info, err := s.spill.Stat(); err != nil {
			return nil, err
		} else if info.Size() < s.end {
			return runs, s.spill.Truncate(s.end)
		}
	}
	return runs, nil
}
