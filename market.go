package perigee

// Every signed record is signed by the node's Ed25519 key over a domain prefix
// and the record's canonical DAG-CBOR with an empty Signature; see Sign.

// Offer is a provider's standing statement of what it gives, gossiped and
// replaced by any later Sequence of the same Provider.
type Offer struct {
	Provider  PeerID            `json:"provider" cbor:"provider"`
	Account   AccountID         `json:"account" cbor:"account"`
	Sequence  uint64            `json:"sequence" cbor:"sequence"` // Unix milliseconds of its making
	Expires   int64             `json:"expires" cbor:"expires"`   // Unix milliseconds
	Addrs     []string          `json:"addrs" cbor:"addrs"`       // multiaddrs without /p2p
	Region    string            `json:"region" cbor:"region"`     // claimed, such as "EU/DE"; "" is unstated
	Engines   []string          `json:"engines" cbor:"engines"`   // engine versions, see Part.Engine
	Class     string            `json:"class" cbor:"class"`       // replicas are compared within one class: engine and architecture
	CPU       int               `json:"cpu" cbor:"cpu"`           // executions at once
	Memory    int64             `json:"memory" cbor:"memory"`     // bytes for all executions together
	Disk      int64             `json:"disk" cbor:"disk"`         // bytes for outputs, scratch and fetched inputs
	Labels    map[string]string `json:"labels" cbor:"labels"`
	Price     Amount            `json:"price" cbor:"price"` // per execution
	Version   string            `json:"version" cbor:"version"`
	Signature []byte            `json:"signature" cbor:"signature"`
}

// BidRequest asks one provider about many parts at once.
type BidRequest struct {
	Requester PeerID    `json:"requester" cbor:"requester"`
	Job       string    `json:"job" cbor:"job"`
	Engine    string    `json:"engine" cbor:"engine"`
	Modules   []CID     `json:"modules" cbor:"modules"`
	Limits    Limits    `json:"limits" cbor:"limits"`
	CPU       int       `json:"cpu" cbor:"cpu"`
	Parts     []PartAsk `json:"parts" cbor:"parts"`
}

// PartAsk names a part's inputs within a bid request.
type PartAsk struct {
	Index  int         `json:"index" cbor:"index"`
	Inputs []PartInput `json:"inputs" cbor:"inputs"`
}

// Bid is a provider's signed answer to a BidRequest.
type Bid struct {
	Provider  PeerID      `json:"provider" cbor:"provider"`
	Account   AccountID   `json:"account" cbor:"account"`
	Requester PeerID      `json:"requester" cbor:"requester"`
	Job       string      `json:"job" cbor:"job"`
	Region    string      `json:"region" cbor:"region"`
	Class     string      `json:"class" cbor:"class"`
	Price     Amount      `json:"price" cbor:"price"`     // per execution
	Slots     int         `json:"slots" cbor:"slots"`     // executions it would run at once now
	Wait      int64       `json:"wait" cbor:"wait"`       // expected milliseconds until the first could start
	Expires   int64       `json:"expires" cbor:"expires"` // Unix milliseconds
	Local     []PartLocal `json:"local" cbor:"local"`     // only parts of which it holds bytes
	Refusal   *Fault      `json:"refusal" cbor:"refusal"` // set when it will run none of it, and why
	Signature []byte      `json:"signature" cbor:"signature"`
}

// PartLocal is how many input bytes of a part a provider holds.
type PartLocal struct {
	Index int   `json:"index" cbor:"index"`
	Bytes int64 `json:"bytes" cbor:"bytes"`
}

// Lease is a bid that the requester accepted: it orders executions, under the
// requester's signature. The provider's acceptance is its signature over the
// same record, in LeaseAnswer.
type Lease struct {
	ID         string            `json:"id" cbor:"id"`
	Requester  PeerID            `json:"requester" cbor:"requester"`
	Provider   PeerID            `json:"provider" cbor:"provider"`
	Job        string            `json:"job" cbor:"job"`
	Created    int64             `json:"created" cbor:"created"` // Unix milliseconds
	Price      Amount            `json:"price" cbor:"price"`     // per execution, as bid
	CPU        int               `json:"cpu" cbor:"cpu"`
	Timeout    int64             `json:"timeout" cbor:"timeout"`     // milliseconds of wall-clock time per execution
	Retention  int64             `json:"retention" cbor:"retention"` // milliseconds results stay pinned after completion
	StreamLogs bool              `json:"stream_logs" cbor:"stream_logs"`
	Holders    []HolderHint      `json:"holders" cbor:"holders"`
	Executions []LeasedExecution `json:"executions" cbor:"executions"`
	Signature  []byte            `json:"signature" cbor:"signature"`
}

// HolderHint says who holds a CID, so that a provider need not search.
type HolderHint struct {
	CID   CID      `json:"cid" cbor:"cid"`
	Peers []PeerID `json:"peers" cbor:"peers"`
}

// LeasedExecution is one execution under a lease.
type LeasedExecution struct {
	ID   string `json:"id" cbor:"id"` // unique per requester
	Part Part   `json:"part" cbor:"part"`
}

// LeaseAnswer is a provider's answer to a lease: its signature over the lease,
// or the reason it refuses.
type LeaseAnswer struct {
	Signature []byte `json:"signature" cbor:"signature"`
	Refusal   *Fault `json:"refusal" cbor:"refusal"`
}

// Result is what an execution produced.
type Result struct {
	Output   CID   `json:"output" cbor:"output"` // UnixFS directory: stdout, stderr and each output directory by its guest path
	Size     int64 `json:"size" cbor:"size"`     // bytes of file content below Output
	ExitCode int   `json:"exit_code" cbor:"exit_code"`
	Fuel     int64 `json:"fuel" cbor:"fuel"`
}

// Receipt is the signed, content-addressed record of an execution. It holds the
// whole Part, so that anyone can check the job key and repeat the work.
type Receipt struct {
	Version      int    `json:"version" cbor:"version"` // 1
	JobKey       CID    `json:"job_key" cbor:"job_key"`
	Part         Part   `json:"part" cbor:"part"`
	Result       Result `json:"result" cbor:"result"`
	Requester    PeerID `json:"requester" cbor:"requester"`
	Provider     PeerID `json:"provider" cbor:"provider"`
	Class        string `json:"class" cbor:"class"`
	Lease        string `json:"lease" cbor:"lease"`
	Execution    string `json:"execution" cbor:"execution"`
	Price        Amount `json:"price" cbor:"price"`
	BytesRead    int64  `json:"bytes_read" cbor:"bytes_read"`
	BytesFetched int64  `json:"bytes_fetched" cbor:"bytes_fetched"`
	CPUMicros    int64  `json:"cpu_micros" cbor:"cpu_micros"`
	PeakMemory   int64  `json:"peak_memory" cbor:"peak_memory"`
	Started      int64  `json:"started" cbor:"started"`   // Unix microseconds
	Finished     int64  `json:"finished" cbor:"finished"` // Unix microseconds
	Signature    []byte `json:"signature" cbor:"signature"`
}
