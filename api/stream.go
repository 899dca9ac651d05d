package api

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/perigee-network/perigee"
)

// events writes server-sent events to one client. Every event is written and
// flushed before send returns, so that a slow reader slows its source down, and
// one that takes nothing for Config.Stall is given up. It is safe for
// concurrent use.
type events struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	stall  time.Duration

	mu   sync.Mutex
	w    http.ResponseWriter
	rc   *http.ResponseController
	last time.Time
	err  error
}

// The names of events.
const (
	eventJob      = "job"      // perigee.JobStatus
	eventLog      = "log"      // client.LogChunk
	eventProgress = "progress" // client.Progress
	eventResult   = "result"   // what the operation answers without events
	eventProblem  = "problem"  // client.Problem; ends the stream
	eventEnd      = "end"      // nothing follows
)

// stream answers x with events made by fn, followed by an end or a problem. The
// context given to fn ends when the client goes away, stalls or the server ends.
func (s *Server) stream(x *exchange, fn func(ctx context.Context, e *events) error) {
	ctx, cancel := context.WithCancelCause(x.r.Context())
	defer cancel(nil)
	e := &events{ctx: ctx, cancel: cancel, stall: s.cfg.Stall, w: x.w, rc: http.NewResponseController(x.w), last: time.Now()}
	h := x.w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // proxies must not hold events back
	x.w.WriteHeader(http.StatusOK)
	e.write(": perigee\n\n")

	beating := make(chan struct{})
	go func() {
		defer close(beating)
		e.beat(s.cfg.Heartbeat, s.stop)
	}()
	err := fn(ctx, e)
	cancelled := ctx.Err() != nil
	cancel(nil)
	<-beating
	switch {
	case cancelled:
		// Nobody reads on, or the server ends: without an end event a client
		// knows that the stream broke off and asks again.
	case err != nil:
		_ = e.send(eventProblem, problemOf(err))
	default:
		_ = e.send(eventEnd, struct{}{})
	}
	_ = e.rc.SetWriteDeadline(time.Time{}) // the connection may carry more requests
}

// beat keeps an idle stream alive through proxies and notices dead clients.
func (e *events) beat(every time.Duration, stop <-chan struct{}) {
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case <-e.ctx.Done():
			return
		case <-stop:
			e.cancel(perigee.E("api", perigee.Unavailable, "the node is shutting down"))
			return
		case <-t.C:
			e.mu.Lock()
			idle := time.Since(e.last) >= every/2
			e.mu.Unlock()
			if idle {
				e.write(": beat\n\n")
			}
		}
	}
}

// send writes one event with v as JSON.
func (e *events) send(event string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return perigee.E("api.stream", perigee.Internal, err, "cannot encode an event")
	}
	var b bytes.Buffer
	b.Grow(len(data) + len(event) + 20)
	b.WriteString("event: ")
	b.WriteString(event)
	b.WriteString("\ndata: ")
	b.Write(data)
	b.WriteString("\n\n")
	return e.write(b.String())
}

func (e *events) write(text string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.err != nil {
		return e.err
	}
	_ = e.rc.SetWriteDeadline(time.Now().Add(e.stall)) // not every writer has deadlines
	_, err := io.WriteString(e.w, text)
	if err == nil {
		err = e.rc.Flush()
	}
	if err != nil {
		e.err = perigee.E("api.stream", perigee.Cancelled, err, "the client went away")
		e.cancel(e.err)
		return e.err
	}
	e.last = time.Now()
	return nil
}

// progress returns a ProgressFunc that sends at most ten events a second, the
// last one included.
func (e *events) progress() ProgressFunc {
	var mu sync.Mutex
	var next time.Time
	return func(done, total int64) {
		mu.Lock()
		now := time.Now()
		due := now.After(next) || total > 0 && done >= total
		if due {
			next = now.Add(100 * time.Millisecond)
		}
		mu.Unlock()
		if due {
			_ = e.send(eventProgress, progressOf(done, total)) // a lost client ends the context
		}
	}
}

// wantsEvents reports whether a client asked for events rather than JSON.
func wantsEvents(r *http.Request) bool {
	return strings.Contains(r.Header.Get("Accept"), "text/event-stream")
}

// patientReader reads a request's body for as long as bytes keep coming.
type patientReader struct {
	r     io.Reader
	rc    *http.ResponseController
	stall time.Duration
}

func (s *Server) bodyOf(x *exchange) io.Reader {
	return &patientReader{r: x.r.Body, rc: http.NewResponseController(x.w), stall: s.cfg.Stall}
}

func (p *patientReader) Read(b []byte) (int, error) {
	_ = p.rc.SetReadDeadline(time.Now().Add(p.stall))
	n, err := p.r.Read(b)
	if err != nil {
		// Past the body's end the server only watches for the client's leaving,
		// which may take as long as the work does.
		_ = p.rc.SetReadDeadline(time.Time{})
	}
	return n, err
}

// patientWriter writes an answer for as long as the client keeps taking it. It
// holds the header back until the first byte, so that an answer which fails
// before that can still become a problem.
type patientWriter struct {
	http.ResponseWriter
	x      *exchange
	rc     *http.ResponseController
	stall  time.Duration
	status int
	begun  bool
}

func (s *Server) answerOf(x *exchange) *patientWriter {
	return &patientWriter{ResponseWriter: x.w, x: x, rc: http.NewResponseController(x.w), stall: s.cfg.Stall}
}

// WriteHeader notes the status for the first Write.
func (p *patientWriter) WriteHeader(status int) { p.status = status }

func (p *patientWriter) begin() {
	if !p.begun {
		p.begun = true
		p.ResponseWriter.WriteHeader(cmp.Or(p.status, http.StatusOK))
	}
}

func (p *patientWriter) Write(b []byte) (int, error) {
	p.begin()
	_ = p.rc.SetWriteDeadline(time.Now().Add(p.stall))
	return p.ResponseWriter.Write(b)
}

// end ends the answer, with the error that cut it short if there is one.
func (p *patientWriter) end(err error) {
	h := p.Header()
	switch {
	case err == nil:
		p.begin()
	case !p.begun:
		for _, name := range []string{"Cache-Control", "Etag", "Content-Length", "Content-Range", "Accept-Ranges", "Trailer"} {
			h.Del(name)
		}
		writeProblem(p.ResponseWriter, err)
	case h.Get("Trailer") != "" && strings.Contains(p.x.r.Header.Get("TE"), "trailers"):
		if text, jerr := json.Marshal(perigee.FaultOf(err)); jerr == nil {
			h.Set(failTrailer, string(text))
		}
	default:
		panic(http.ErrAbortHandler)
	}
}

// done lifts the deadline: the connection may carry more requests.
func (p *patientWriter) done() { _ = p.rc.SetWriteDeadline(time.Time{}) }

// Unwrap lets http.ResponseController find the connection.
func (p *patientWriter) Unwrap() http.ResponseWriter { return p.ResponseWriter }
