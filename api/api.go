// Package api serves a node's HTTP API: JSON and byte streams under /v1/,
// described by an OpenAPI 3.1 document at /openapi.json that is generated from
// the types of package client, which are the wire format.
//
// The API decides nothing. It checks who asks, bounds and parses what they
// send, calls one of the small interfaces below and writes the answer; package
// node supplies the interfaces. It is served twice: on a Unix socket, where the
// file's mode says who may ask and paths of this machine make sense, and over
// TCP, where every request but GET /openapi.json carries the node's token.
//
// Errors travel as client.Problem; errors.go maps their kinds to HTTP statuses.
package api

import (
	"context"
	"io"
	"iter"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/client"
)

// All interfaces here are called from many goroutines at once. Their errors are
// *perigee.Error; any other error is answered as internal. A cancelled context
// means that whoever asked went away: it ends the call, not the job.

// Node tells of the node itself.
type Node interface {
	Status(ctx context.Context) (client.Status, error)
	Peers(ctx context.Context) ([]client.Peer, error)
	// Connect dials a multiaddr that ends in /p2p/ID. Errors: Invalid for a
	// malformed address, Unavailable when nobody answers there.
	Connect(ctx context.Context, addr string) error
}

// Jobs is the requester.
type Jobs interface {
	// Submit journals a job and returns its ID. The same idempotency key, when
	// not empty, always returns the same ID.
	Submit(ctx context.Context, job perigee.Job, idempotencyKey string) (string, error)
	Get(ctx context.Context, id string) (perigee.JobStatus, error)
	// List returns the newest jobs first, without executions.
	List(ctx context.Context, limit int) ([]perigee.JobStatus, error)
	Cancel(ctx context.Context, id string) error
	// Wait returns once the job is final, or with the context's error.
	Wait(ctx context.Context, id string) (perigee.JobStatus, error)
	// Watch calls fn with the present state, then with coalesced changes, and
	// returns after the final one, or with fn's error as soon as it has one.
	Watch(ctx context.Context, id string, fn func(perigee.JobStatus) error) error
	// Logs calls fn with what the job's parts and merge wrote so far and, with
	// follow, write until the job is final.
	Logs(ctx context.Context, id string, follow bool, fn func(client.LogChunk) error) error
	Explain(ctx context.Context, job perigee.Job) (perigee.Explanation, error)
	ExplainJob(ctx context.Context, id string) (perigee.Explanation, error)
}

// Entry is one file, directory or symlink of an uploaded tree.
type Entry struct {
	Path   string // slash-separated, relative, clean; "." for the root itself
	Kind   perigee.FileKind
	Size   int64
	Target string // of a symlink
	// Open returns a file's bytes. It comes from a stream: it must be opened
	// and read to its end before the next entry is asked for.
	Open func() (io.ReadCloser, error)
}

// ProgressFunc is told of bytes done out of total; total is 0 when unknown. It
// returns quickly and may be nil.
type ProgressFunc func(done, total int64)

// Data is the node's store of content-addressed data. Everything added through
// it is pinned for the user.
type Data interface {
	// AddPath adds a file or directory of this machine.
	AddPath(ctx context.Context, path string, o client.AddOptions, progress ProgressFunc) (client.Added, error)
	// AddEntries adds a directory from a stream of entries, see Entry.Open.
	AddEntries(ctx context.Context, entries iter.Seq2[Entry, error], o client.AddOptions) (client.Added, error)
	// AddReader adds one file.
	AddReader(ctx context.Context, r io.Reader, o client.AddOptions) (client.Added, error)
	ImportCAR(ctx context.Context, r io.Reader) ([]perigee.CID, error)
	ExportCAR(ctx context.Context, root perigee.CID, w io.Writer) error

	// Resolve follows "CID/path" to the CID of what lies there.
	Resolve(ctx context.Context, path string) (perigee.CID, error)
	Stat(ctx context.Context, c perigee.CID) (client.DataInfo, error)
	Ls(ctx context.Context, c perigee.CID) ([]perigee.TreeEntry, error)
	// OpenFile opens a file, whose missing bytes are fetched as they are read.
	OpenFile(ctx context.Context, c perigee.CID) (io.ReadSeekCloser, error)
	// Fetch brings all that lies below a root here, without keeping it.
	Fetch(ctx context.Context, c perigee.CID) error
	GetBlock(ctx context.Context, c perigee.CID) ([]byte, error)
	Holders(ctx context.Context, c perigee.CID) ([]client.Holder, error)

	// Pin fetches what is missing of a root and keeps it for the user.
	Pin(ctx context.Context, c perigee.CID, progress ProgressFunc) error
	Unpin(ctx context.Context, c perigee.CID) error
	Pins(ctx context.Context) ([]client.Pin, error)
	// Remove drops a root and what only it kept, or is Refused while in use.
	Remove(ctx context.Context, c perigee.CID) error
	Verify(ctx context.Context, c perigee.CID, progress ProgressFunc) (client.VerifyReport, error)
	GC(ctx context.Context) (client.GCReport, error)
}

// Datasets are named, signed manifests of parts on many nodes.
type Datasets interface {
	// Publish makes or replaces this account's dataset of a name.
	Publish(ctx context.Context, req client.PublishRequest) (perigee.Dataset, error)
	List(ctx context.Context) ([]client.DatasetSummary, error)
	// Show finds a dataset known here or by peers.
	Show(ctx context.Context, owner, name string) (perigee.Dataset, error)
	// Join asks the dataset's owner to add parts that this node holds.
	Join(ctx context.Context, owner, name string, parts []client.DatasetRoot) (perigee.Dataset, error)
}

// Providers are the offers this node knows, its own included.
type Providers interface {
	Offers(ctx context.Context) ([]perigee.Offer, error)
	// OwnOffer returns this node's offer, NotFound when it provides nothing.
	OwnOffer(ctx context.Context) (perigee.Offer, error)
}
