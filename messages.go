package perigee

// The protocols between a requester and a provider. Each is a libp2p protocol
// whose messages are length-prefixed canonical DAG-CBOR of the types named.
const (
	ProtocolBid    = "/perigee/bid/1"    // BidRequest → Bid
	ProtocolLease  = "/perigee/lease/1"  // Lease → LeaseAnswer
	ProtocolWatch  = "/perigee/watch/1"  // WatchRequest → Event…
	ProtocolCancel = "/perigee/cancel/1" // CancelRequest → CancelAnswer
)

// WatchRequest opens the stream of events of a requester's executions at a
// provider. The provider first tells where every named execution stands and
// then each change, also of executions leased later.
type WatchRequest struct {
	Executions []string `json:"executions" cbor:"executions"`
}

// The kinds of Event.
const (
	EventState = "state" // Execution, State; Receipt and Output with completed; Fault and perhaps Output with failed
	EventLog   = "log"   // Execution, Stream, Offset, Data
	EventBeat  = "beat"  // nothing else: the provider lives; at least every five seconds
)

// Event is one message of a watch stream.
type Event struct {
	Kind      string         `json:"kind" cbor:"kind"`
	Execution string         `json:"execution" cbor:"execution"`
	State     ExecutionState `json:"state" cbor:"state"`
	Fault     *Fault         `json:"fault" cbor:"fault"`
	Receipt   []byte         `json:"receipt" cbor:"receipt"` // canonical DAG-CBOR of the Receipt
	Output    []byte         `json:"output" cbor:"output"`   // CAR of the output when it is small, else empty: fetch it
	Stream    int            `json:"stream" cbor:"stream"`   // 1 stdout, 2 stderr
	Offset    int64          `json:"offset" cbor:"offset"`   // of Data in its stream
	Data      []byte         `json:"data" cbor:"data"`
}

// CancelRequest withdraws executions, or says that their results were taken
// and need not be kept (Release).
type CancelRequest struct {
	Job        string   `json:"job" cbor:"job"`
	Executions []string `json:"executions" cbor:"executions"` // none: all of the job
	Release    bool     `json:"release" cbor:"release"`
}

// CancelAnswer acknowledges a CancelRequest.
type CancelAnswer struct {
	Count int    `json:"count" cbor:"count"` // executions it concerned
	Fault *Fault `json:"fault" cbor:"fault"`
}
