package wasm

import "github.com/perigee-network/perigee"

// The payloads of frames. They travel only between processes of one build, so
// they are arrays without names and carry no version.

// readyMessage says that a worker has started and how it is confined.
type readyMessage struct {
	_       struct{} `cbor:",toarray"`
	Sandbox string
	Missing string // what the kernel could not give, "" for nothing
}

// mountMessage is a mounted tree; its number is its index in the request.
type mountMessage struct {
	_      struct{} `cbor:",toarray"`
	Path   string
	Kind   uint8
	Size   int64
	Target string
}

// runRequest asks a worker to run a guest.
type runRequest struct {
	_        struct{} `cbor:",toarray"`
	Compiled string   // path of the compiled module
	Args     []string
	Env      []string // KEY=VALUE, sorted
	Workdir  string
	Seed     []byte
	Mounts   []mountMessage
	Outputs  []string
	Memory   int64
	Fuel     int64
	Disk     int64
	Files    int64
	Live     bool // send live output
}

// runResult ends an execution. Fault is nil when the guest ended by itself,
// whatever its exit code.
type runResult struct {
	_          struct{} `cbor:",toarray"`
	Fault      *perigee.Fault
	Rebuild    bool  // the compiled module does not fit this machine or is damaged
	FaultPath  int64 // index of a file the parent knows by path, -1 for none
	Ran        bool  // the guest was started
	ExitCode   uint32
	Fuel       int64
	BytesRead  int64
	PeakMemory int64
	CPU        int64 // nanoseconds
}

// entryMessage is one output entry. Its bytes are Data or runs of the spill file.
type entryMessage struct {
	_      struct{} `cbor:",toarray"`
	Path   string
	Kind   uint8
	Size   int64
	Target string
	Data   []byte
	Runs   []spillRun
	More   bool // the next message has further runs of the same file
}

// spillRun is Length bytes of a file: at Offset of the spill file, or zeroes
// when Offset is negative.
type spillRun struct {
	_      struct{} `cbor:",toarray"`
	Offset int64
	Length int64
}

// compileRequest asks for compilation: the first descriptor beside it is the
// module to read, the second the file to write.
type compileRequest struct {
	_    struct{} `cbor:",toarray"`
	Size int64
}

// compileResult ends a compilation.
type compileResult struct {
	_     struct{} `cbor:",toarray"`
	Fault *perigee.Fault
}

// The operations of a query.
const (
	queryStat    = 1 // of Name in Mount: reply.Entries has one
	queryReadDir = 2 // of Name in Mount, from number From on
	queryOpen    = 3 // of Name in Mount: size, skip and extents from number From on
	queryFile    = 4 // the descriptor of file number From
	querySpill   = 5 // the descriptor of a scratch file on disk
)

// query is what a worker asks while a guest runs.
type query struct {
	_     struct{} `cbor:",toarray"`
	Op    uint8
	Mount int
	Name  string
	From  int64
}

// reply answers a query.
type reply struct {
	_       struct{} `cbor:",toarray"`
	Fault   *perigee.Fault
	Files   int // descriptors that travel beside this frame, 0 or 1
	FileID  int64
	Entries []nodeMessage
	More    bool // ask again from the next number on
	Size    int64
	Skip    int64
	Count   int64 // extents in all
	Extents []extentMessage
}

// nodeMessage is an entry of an input tree.
type nodeMessage struct {
	_      struct{} `cbor:",toarray"`
	Name   string
	Kind   uint8
	Size   int64
	Target string
}

// extentMessage is a perigee.Extent with its path as a number.
type extentMessage struct {
	_      struct{} `cbor:",toarray"`
	Length int64
	Sum    []byte
	File   int64
	Offset int64
	Data   []byte
}
