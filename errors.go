package perigee

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// Kind classifies an error, so that callers, exit codes and HTTP statuses can
// depend on it rather than on text. A Kind is itself an error and works as the
// target of errors.Is: errors.Is(err, perigee.NotFound).
type Kind string

// The kinds. The CLI maps them to exit codes and the API to HTTP statuses, each
// in one place.
const (
	Invalid     Kind = "invalid"     // bad input: the caller must change it
	NotFound    Kind = "not_found"   // no such job, CID, peer, dataset or receipt
	Refused     Kind = "refused"     // policy, price or permission said no
	Unavailable Kind = "unavailable" // nobody reachable could do it now; may be retried
	Busy        Kind = "busy"        // over capacity; retry after a while
	Timeout     Kind = "timeout"     // a limit on time passed
	Exhausted   Kind = "exhausted"   // a limit of the guest or the disk was reached; the text names it
	Corrupt     Kind = "corrupt"     // bytes did not match their CID, signature or format
	Cancelled   Kind = "cancelled"   // the owner stopped it
	Unsupported Kind = "unsupported" // this node cannot do that
	Internal    Kind = "internal"    // a fault of Perigee itself
)

// Error makes a Kind usable with errors.Is.
func (k Kind) Error() string { return string(k) }

// Error is an error of Perigee: the operation that failed, the kind of failure,
// a message that says what was wrong and what to do, and the cause.
type Error struct {
	Op   string // "package.Operation"
	Kind Kind
	Msg  string
	Err  error // may be nil
}

// E makes an *Error. The arguments after kind are an optional cause and then an
// optional format with its arguments:
//
//	E("data.Get", NotFound, "no holder of %s", cid)
//	E("data.Get", Corrupt, err, "block %s", cid)
//	E("data.Get", Internal, err)
func E(op string, kind Kind, args ...any) *Error {
	e := &Error{Op: op, Kind: kind}
	if len(args) > 0 {
		if err, ok := args[0].(error); ok || args[0] == nil {
			e.Err = err
			args = args[1:]
		}
	}
	if len(args) > 0 {
		if format, ok := args[0].(string); ok {
			e.Msg = fmt.Sprintf(format, args[1:]...)
		} else {
			e.Msg = fmt.Sprint(args...)
		}
	}
	return e
}

// Error prints the message and the cause, without the operation: people read it.
func (e *Error) Error() string {
	switch {
	case e.Msg != "" && e.Err != nil:
		return e.Msg + ": " + e.Err.Error()
	case e.Msg != "":
		return e.Msg
	case e.Err != nil:
		return e.Err.Error()
	}
	return string(e.Kind)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is reports whether target is the error's Kind.
func (e *Error) Is(target error) bool {
	k, ok := target.(Kind)
	return ok && k == e.Kind
}

// KindOf returns the kind of the outermost *Error in err's chain, Timeout or
// Cancelled for the context errors, "" for nil and Internal for anything else.
func KindOf(err error) Kind {
	var e *Error
	switch {
	case err == nil:
		return ""
	case errors.As(err, &e):
		return e.Kind
	case errors.Is(err, context.DeadlineExceeded):
		return Timeout
	case errors.Is(err, context.Canceled):
		return Cancelled
	}
	return Internal
}

// Fault is an error as it travels over the wire and the API: kind and text.
type Fault struct {
	Kind    Kind   `json:"kind" cbor:"kind" doc:"class of failure" enum:"invalid,not_found,refused,unavailable,busy,timeout,exhausted,corrupt,cancelled,unsupported,internal"`
	Message string `json:"message" cbor:"message" doc:"what was wrong, where, and what to do"`
}

// FaultOf makes a Fault of err, nil of nil. Text is cut at 4 KiB and made valid
// UTF-8, which every encoded text must be.
func FaultOf(err error) *Fault {
	if err == nil {
		return nil
	}
	msg := err.Error()
	if len(msg) > 4096 {
		msg = strings.ToValidUTF8(msg[:4096], "") + "…"
	}
	return &Fault{Kind: KindOf(err), Message: strings.ToValidUTF8(msg, "\uFFFD")}
}

// Err turns a fault received from elsewhere into an *Error with op, nil into nil.
func (f *Fault) Err(op string) error {
	if f == nil {
		return nil
	}
	switch f.Kind {
	case Invalid, NotFound, Refused, Unavailable, Busy, Timeout, Exhausted, Corrupt, Cancelled, Unsupported, Internal:
		return E(op, f.Kind, "%s", f.Message)
	}
	return E(op, Internal, "%s", f.Message)
}

var _ json.Marshaler = CID{}
