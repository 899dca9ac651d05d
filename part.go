package perigee

// Part is everything that determines one deterministic result: run it anywhere
// on the same engine version and the output bytes, exit code and fuel are the
// same. Its CID is the job key.
type Part struct {
	Engine  string            `json:"engine" cbor:"engine"` // engine and host version, such as "wasmtime-44.0.0/perigee-1"
	Module  CID               `json:"module" cbor:"module"`
	Args    []string          `json:"args" cbor:"args"` // after the program's name, which is always "main"
	Env     map[string]string `json:"env" cbor:"env"`
	Workdir string            `json:"workdir" cbor:"workdir"` // absolute; becomes PWD when it is not "/"
	Inputs  []PartInput       `json:"inputs" cbor:"inputs"`   // sorted by Mount
	Outputs []string          `json:"outputs" cbor:"outputs"` // sorted absolute directories, created empty
	Limits  Limits            `json:"limits" cbor:"limits"`
}

// Key returns the job key: the CID of the part's canonical DAG-CBOR.
func (p *Part) Key() (CID, error) {
	c, _, err := LinkTo(p)
	return c, err
}

// Alignments of a byte range to records.
const (
	AlignNone = ""
	// AlignLine moves both ends of a range to record boundaries: a line belongs
	// to the range in which its first byte lies. Formally, with B(o) = 0 for
	// o = 0, the file's size for o at or past it, and else the offset after the
	// first newline at or after o-1 (the file's size if there is none), the
	// range [o, o+n) stands for the bytes [B(o), B(o+n)).
	AlignLine = "line"
)

// PartInput is a file or directory that a part sees, read-only, at Mount. A
// zero Length means the whole of it; else CID is a file and the guest sees only
// the bytes [Offset, Offset+Length) of it, moved to records by Align, as a file.
type PartInput struct {
	Mount  string `json:"mount" cbor:"mount"`
	CID    CID    `json:"cid" cbor:"cid"`
	Size   int64  `json:"size" cbor:"size"` // bytes of file content below CID, before slicing
	Offset int64  `json:"offset" cbor:"offset"`
	Length int64  `json:"length" cbor:"length"`
	Align  string `json:"align" cbor:"align"`
}

// Bytes returns how many input bytes the part reads at most through this input.
func (p PartInput) Bytes() int64 {
	if p.Length > 0 {
		return min(p.Length, max(p.Size-p.Offset, 0))
	}
	return p.Size
}

// Limits bound one execution deterministically. The wall-clock limit is not
// here: it does not determine a result and belongs to the lease.
type Limits struct {
	Memory int64 `json:"memory" cbor:"memory"` // bytes of linear memory
	Fuel   int64 `json:"fuel" cbor:"fuel"`     // operations
	Disk   int64 `json:"disk" cbor:"disk"`     // bytes written to outputs and scratch together
	Files  int64 `json:"files" cbor:"files"`   // files and directories created
}

// Extent is a run of a file's bytes that can be checked by itself: a leaf of
// its DAG, where it lies on this machine's disk. Whoever reads it must check
// Sum over the whole run before using any byte: the file under Path may belong
// to the user and change at any moment.
type Extent struct {
	Length int64    // bytes
	Sum    [32]byte // sha2-256 of the run
	Path   string   // file that holds the run; "" when Data does
	Offset int64    // where in Path
	Data   []byte   // the run itself, when it is not in a file of its own
}

// FileView is a file as its reader sees it: Size bytes, beginning Skip bytes
// into the first of Extents, which follow each other without gaps.
type FileView struct {
	Size    int64
	Skip    int64
	Extents []Extent
}

// FileKind tells files apart in a Tree.
type FileKind uint8

// The kinds of tree entries.
const (
	KindFile FileKind = iota + 1
	KindDir
	KindSymlink
)

// TreeEntry is one entry of a content-addressed tree.
type TreeEntry struct {
	Name   string // last element of its path; "" for the root
	Kind   FileKind
	Size   int64  // of a file
	Target string // of a symlink
	CID    CID
}

// Tree is a content-addressed, immutable file tree on this machine. Names are
// slash-separated, relative, clean, and "." for the root, as in io/fs; a name's
// symlinks are not followed. Errors are of kind NotFound, Corrupt or
// Unavailable. Implementations are safe for concurrent use.
type Tree interface {
	Stat(name string) (TreeEntry, error)
	ReadDir(name string) ([]TreeEntry, error) // sorted by Name, bytewise
	Open(name string) (FileView, error)       // of a file
}
