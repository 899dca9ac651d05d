package client

import (
	"time"

	"github.com/perigee-network/perigee"
)

// Status is what a node says of itself: GET /v1/status.
type Status struct {
	PeerID   perigee.PeerID    `json:"peer_id"`
	Account  perigee.AccountID `json:"account"`
	Addrs    []string          `json:"addrs" doc:"multiaddrs under which peers reach this node, with /p2p/ID"`
	API      string            `json:"api" doc:"URL of this API"`
	Home     string            `json:"home" doc:"the node's home directory"`
	Peers    int               `json:"peers" doc:"connected peers"`
	Version  string            `json:"version"`
	Height   int64             `json:"height" doc:"height of the ledger this node follows; 0 without one"`
	Roles    []string          `json:"roles" doc:"requester, provider, relay"`
	Running  int               `json:"running" doc:"executions running here now"`
	Jobs     int               `json:"jobs" doc:"jobs this node asked for that are not finished"`
	Region   string            `json:"region,omitempty"`
	Sandbox  string            `json:"sandbox" doc:"how guest programs are confined on this machine"`
	Engine   string            `json:"engine" doc:"engine version, part of every job key"`
	Started  time.Time         `json:"started"`
	Embedded bool              `json:"embedded,omitempty" doc:"the node lives only as long as the command that started it"`
}

// Peer is a connected peer.
type Peer struct {
	ID        perigee.PeerID `json:"id"`
	Addrs     []string       `json:"addrs"`
	LatencyMS float64        `json:"latency_ms" doc:"0 when not yet measured"`
	Direction string         `json:"direction" doc:"inbound or outbound"`
	Relayed   bool           `json:"relayed" doc:"reached only through a relay"`
	Version   string         `json:"version" doc:"what the peer says it runs"`
}

// AddOptions say how data is added.
type AddOptions struct {
	InPlace bool   `json:"in_place,omitempty" doc:"index the files where they lie, without a copy"`
	Name    string `json:"name,omitempty" maxLength:"128" doc:"for people, shown in listings"`
	Chunker string `json:"chunker,omitempty" maxLength:"64" doc:"such as size-1048576"`
	Profile string `json:"profile,omitempty" maxLength:"64" doc:"unixfs-v1-2025 (the default) or unixfs-v0-2015"`
}

// Added is the outcome of adding data.
type Added struct {
	CID     perigee.CID `json:"cid"`
	Size    int64       `json:"size" doc:"bytes of file content"`
	Files   int64       `json:"files"`
	Seconds float64     `json:"seconds"`
}

// Progress is how far a long operation came, in bytes.
type Progress struct {
	Done  int64 `json:"done"`
	Total int64 `json:"total" doc:"0 when not known"`
}

// The kinds of Entry and DataInfo.
const (
	KindFile    = "file"
	KindDir     = "dir"
	KindSymlink = "symlink"
	KindBlock   = "block" // not UnixFS: a bare IPLD block
)

// KindName returns the name of a tree entry's kind in the API.
func KindName(k perigee.FileKind) string {
	switch k {
	case perigee.KindFile:
		return KindFile
	case perigee.KindDir:
		return KindDir
	case perigee.KindSymlink:
		return KindSymlink
	}
	return KindBlock
}

// Entry is one name in a directory.
type Entry struct {
	Name   string      `json:"name"`
	Kind   string      `json:"kind" enum:"file,dir,symlink,block"`
	Size   int64       `json:"size" doc:"bytes of a file"`
	Target string      `json:"target,omitempty" doc:"of a symlink"`
	CID    perigee.CID `json:"cid"`
}

// DataInfo describes a root and how much of it is on this node.
type DataInfo struct {
	CID    perigee.CID `json:"cid"`
	Kind   string      `json:"kind" enum:"file,dir,symlink,block"`
	Size   int64       `json:"size" doc:"bytes of file content below it"`
	Files  int64       `json:"files"`
	Blocks int64       `json:"blocks" doc:"blocks of which this node knows"`
	Local  int64       `json:"local" doc:"bytes of content on this node"`
}

// Pin is a root that this node keeps.
type Pin struct {
	CID     perigee.CID `json:"cid"`
	Name    string      `json:"name,omitempty"`
	Owners  []string    `json:"owners" doc:"what keeps it: user, a job, a dataset"`
	Size    int64       `json:"size" doc:"bytes of file content"`
	InPlace string      `json:"in_place,omitempty" doc:"where the files lie, when they were indexed in place"`
}

// Holder is a node that has a root.
type Holder struct {
	Peer  perigee.PeerID `json:"peer"`
	Local bool           `json:"local" doc:"this node itself"`
	Bytes int64          `json:"bytes,omitempty" doc:"how much of it, where known"`
}

// VerifyReport says whether the bytes below a root are what their CIDs say.
type VerifyReport struct {
	CID     perigee.CID `json:"cid"`
	Blocks  int64       `json:"blocks" doc:"blocks checked"`
	Bytes   int64       `json:"bytes" doc:"bytes checked"`
	OK      bool        `json:"ok"`
	Bad     []BadBlock  `json:"bad,omitempty"`
	Seconds float64     `json:"seconds"`
}

// BadBlock is a block that is missing or does not match its CID.
type BadBlock struct {
	CID    perigee.CID `json:"cid"`
	Path   string      `json:"path,omitempty" doc:"file on this machine that should hold it"`
	Reason string      `json:"reason"`
}

// GCReport is the outcome of a garbage collection.
type GCReport struct {
	Blocks int64 `json:"blocks" doc:"blocks removed"`
	Bytes  int64 `json:"bytes" doc:"bytes freed"`
	Kept   int64 `json:"kept" doc:"blocks kept"`
}

// Imported is the outcome of importing a CAR.
type Imported struct {
	Roots []perigee.CID `json:"roots"`
}

// PublishRequest names data as a dataset.
type PublishRequest struct {
	Name  string        `json:"name" minLength:"1" maxLength:"63" doc:"[a-z0-9][a-z0-9._-]*; the dataset becomes OWNER/NAME with this node's account"`
	Parts []DatasetRoot `json:"parts" minItems:"1" maxItems:"100000"`
	Join  string        `json:"join,omitempty" enum:"any,none" doc:"who may add parts later: any (the default; a part names who brought it) or none"`
}

// DatasetRoot is a file or directory to put into a dataset. A directory stands
// for the files below it, each of which becomes a part.
type DatasetRoot struct {
	Path string      `json:"path" maxLength:"4096" doc:"path within the dataset; of a directory the prefix of its files' paths, possibly empty"`
	CID  perigee.CID `json:"cid"`
}

// JoinRequest adds parts held by this node to somebody's dataset.
type JoinRequest struct {
	Parts []DatasetRoot `json:"parts" minItems:"1" maxItems:"100000"`
}

// DatasetSummary is a dataset without its parts.
type DatasetSummary struct {
	Owner    perigee.AccountID `json:"owner"`
	Name     string            `json:"name"`
	Sequence uint64            `json:"sequence"`
	Created  time.Time         `json:"created"`
	Parts    int               `json:"parts"`
	Size     int64             `json:"size" doc:"bytes of all parts"`
	Holders  int               `json:"holders" doc:"nodes that hold some part"`
	Join     string            `json:"join"`
}

// Submitted answers POST /v1/jobs.
type Submitted struct {
	ID     string             `json:"id"`
	Status *perigee.JobStatus `json:"status,omitempty" doc:"with ?wait: where the job stood when the wait ended"`
}

// Results is what a job left behind.
type Results struct {
	ID       string       `json:"id"`
	Output   perigee.CID  `json:"output" doc:"the job's output directory"`
	ExitCode int          `json:"exit_code"`
	Parts    []PartResult `json:"parts"`
}

// PartResult is the accepted result of one part, or of the merge.
type PartResult struct {
	Part     int            `json:"part"`
	Merge    bool           `json:"merge,omitempty"`
	Label    string         `json:"label,omitempty"`
	Provider perigee.PeerID `json:"provider"`
	Output   perigee.CID    `json:"output"`
	Receipt  perigee.CID    `json:"receipt"`
	ExitCode int            `json:"exit_code"`
}

// The streams of a LogChunk.
const (
	Stdout = 1
	Stderr = 2
)

// LogChunk is a piece of what a part or the merge wrote. Chunks of one part and
// stream come in order and without gaps, from its first byte.
type LogChunk struct {
	Part   int    `json:"part"`
	Merge  bool   `json:"merge,omitempty"`
	Label  string `json:"label,omitempty" doc:"the part's input, for people"`
	Stream int    `json:"stream" doc:"1 stdout, 2 stderr"`
	Data   []byte `json:"data"`
}

// ReceiptReport says whether a receipt is what it claims to be.
type ReceiptReport struct {
	CID     perigee.CID      `json:"cid"`
	Valid   bool             `json:"valid"`
	Reason  string           `json:"reason,omitempty" doc:"why it is not valid"`
	Receipt *perigee.Receipt `json:"receipt,omitempty"`
}

// Problem is the body of every answer that is an error, after RFC 9457: kind and
// message are those of perigee.Fault.
type Problem struct {
	Title   string       `json:"title" doc:"the HTTP status in words"`
	Status  int          `json:"status"`
	Kind    perigee.Kind `json:"kind" enum:"invalid,not_found,refused,unavailable,busy,timeout,exhausted,corrupt,cancelled,unsupported,internal"`
	Message string       `json:"message" doc:"what was wrong, where, and what to do"`
	Errors  []FieldError `json:"errors,omitempty" doc:"the fields that were wrong"`
}

// FieldError is one wrong field of a request.
type FieldError struct {
	Field   string `json:"field" doc:"such as query.limit or body.parts[0].cid"`
	Message string `json:"message"`
}
