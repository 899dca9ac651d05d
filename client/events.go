package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"time"

	"github.com/perigee-network/perigee"
)

// Bounds of an event stream.
const (
	maxEvent   = 256 << 20 // bytes of one event: the status of a job of a million parts
	maxRetries = 6         // broken connections in a row before a stream fails
)

// eventOpened is given to the receiver of a stream each time it begins anew.
const eventOpened = "(opened)"

// event receives one server-sent event. Data is valid only during the call.
type eventFunc func(event string, data []byte) error

// errEnded says that a stream came to its proper end.
var errEnded = errors.New("ended")

// follow reads a stream of events to its end. A connection that breaks before
// that is made again after a pause; the operation begins anew then, and fn is
// told so by eventOpened.
func (c *Client) follow(ctx context.Context, k call, fn eventFunc) error {
	k = k.set("Accept", "text/event-stream")
	failures := 0
	for {
		moved := false
		err := c.events(ctx, k, func(event string, data []byte) error {
			moved = moved || event != eventOpened
			return fn(event, data)
		})
		var broken *brokenStream
		switch {
		case err == nil:
			return nil
		case errors.As(err, &broken):
		case failures > 0 && perigee.KindOf(err) == perigee.Unavailable: // the node may be restarting
		default:
			return err
		}
		if moved {
			failures = 0
		}
		if failures++; failures > maxRetries {
			return perigee.E(k.op, perigee.Unavailable, err, "the stream from %s broke off %d times", c.url, failures)
		}
		select {
		case <-ctx.Done():
			return c.transportError(ctx, k.op, ctx.Err())
		case <-time.After(50 * time.Millisecond << failures):
		}
	}
}

// brokenStream is a connection that ended in the middle of a stream.
type brokenStream struct{ err error }

func (b *brokenStream) Error() string { return "the connection broke: " + b.err.Error() }

// events makes one request and reads its events: nil after an end event, a
// *brokenStream when there was none.
func (c *Client) events(ctx context.Context, k call, fn eventFunc) error {
	resp, err := c.send(ctx, k)
	if err != nil {
		return err
	}
	defer resp.Body.Close() // a stream that goes on cannot be drained
	if err := fn(eventOpened, nil); err != nil {
		return err
	}
	err = readEvents(resp.Body, func(event string, data []byte) error {
		switch event {
		case "end":
			return errEnded
		case "problem":
			var p Problem
			if err := json.Unmarshal(data, &p); err != nil {
				return perigee.E(k.op, perigee.Unavailable, err, "the node sent a malformed problem")
			}
			return (&perigee.Fault{Kind: p.Kind, Message: p.Message}).Err(k.op)
		}
		return fn(event, data)
	})
	switch {
	case errors.Is(err, errEnded):
		drain(resp)
		return nil
	case ctx.Err() != nil:
		return c.transportError(ctx, k.op, err)
	}
	return err
}

// readEvents parses a stream of server-sent events, after
// https://html.spec.whatwg.org/multipage/server-sent-events.html, until fn
// fails or the stream ends, which is a *brokenStream.
func readEvents(r io.Reader, fn eventFunc) error {
	br := bufio.NewReaderSize(r, 64<<10)
	var event string
	var data []byte
	for {
		line, err := readEventLine(br)
		if err != nil {
			return err
		}
		if len(line) == 0 { // dispatch
			if data != nil {
				if err := fn(event, data); err != nil {
					return err
				}
			}
			event, data = "", nil
			continue
		}
		field, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(field) {
		case "event":
			event = string(value)
		case "data":
			if data == nil {
				data = append(make([]byte, 0, len(value)), value...)
			} else {
				data = append(append(data, '\n'), value...)
			}
			if len(data) > maxEvent {
				return perigee.E("client", perigee.Unavailable, "the node sent an event of more than %d bytes", maxEvent)
			}
		}
	}
}

// readEventLine returns a line without its end; it is valid until the next read.
func readEventLine(br *bufio.Reader) ([]byte, error) {
	line, err := br.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		long := append([]byte{}, line...)
		for errors.Is(err, bufio.ErrBufferFull) {
			if len(long) > maxEvent {
				return nil, perigee.E("client", perigee.Unavailable, "the node sent a line of more than %d bytes", maxEvent)
			}
			line, err = br.ReadSlice('\n')
			long = append(long, line...)
		}
		line = long
	}
	if err != nil {
		return nil, &brokenStream{err}
	}
	return bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r")), nil
}

// long makes a request that may take a while. With progress it is told of as
// events come; otherwise the answer is plain JSON.
func (c *Client) long(ctx context.Context, k call, out any, progress func(Progress)) error {
	if progress == nil {
		return c.do(ctx, k, out)
	}
	done := false
	err := c.events(ctx, k.set("Accept", "text/event-stream"), func(event string, data []byte) error {
		switch event {
		case "progress":
			var p Progress
			if json.Unmarshal(data, &p) == nil {
				progress(p)
			}
		case "result":
			if err := json.Unmarshal(data, out); err != nil {
				return perigee.E(k.op, perigee.Unavailable, err, "the node sent a malformed result")
			}
			done = true
		}
		return nil
	})
	if err == nil && !done {
		err = perigee.E(k.op, perigee.Unavailable, "the node ended without a result")
	}
	var broken *brokenStream
	if errors.As(err, &broken) {
		return perigee.E(k.op, perigee.Unavailable, err, "lost %s half-way; the same command can be run again", c.url)
	}
	return err
}
