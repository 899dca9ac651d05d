package wasm

import (
	"context"
	"errors"
	"io"
	"os"
	"sort"
	"time"

	"github.com/perigee-network/perigee"
)

// session is the parent's side of one execution in one worker.
type session struct {
	task       *Task
	worker     *process
	source     *source
	scratchDir string

	spill   *os.File
	entries []OutEntry
	partial *entryMessage // a file whose runs are still coming
	inline  int
	runs    int64
	live    [2]int64 // bytes of stdout and stderr already passed on
	healthy bool     // the worker may be used again
	rebuild bool     // the compiled module must be made anew
}

// run has the worker execute req and waits for its end or kills it.
func (s *session) run(ctx context.Context, req *runRequest) (outcome *Outcome, err error) {
	begin := time.Now()
	defer func() {
		if outcome == nil && s.spill != nil {
			s.spill.Close()
		}
	}()
	inTime := func() bool { return true }
	if s.task.Timeout > 0 {
		inTime = time.AfterFunc(s.task.Timeout, s.worker.kill).Stop
	}
	stop := context.AfterFunc(ctx, s.worker.kill)

	result, err := s.converse(req)
	wanted, early := stop(), inTime() // from here on nothing kills the worker
	switch {
	case err == nil && wanted && early:
		s.healthy = true
	case !early:
		return nil, perigee.E("wasm.Run", perigee.Timeout, "the timeout of %v was reached and the program stopped; raise resources.timeout or give it less work", s.task.Timeout)
	case ctx.Err() != nil:
		return nil, perigee.E("wasm.Run", contextKind(ctx), context.Cause(ctx), "the program was stopped")
	case errors.Is(err, errFrame) || errors.Is(err, errScratch):
		s.worker.kill()
		return nil, perigee.E("wasm.Run", perigee.Unavailable, err, "the worker (pid %d) was stopped", s.worker.pid)
	case err != nil:
		return nil, perigee.E("wasm.Run", perigee.Unavailable, "%s", s.worker.death(err))
	}
	return s.finish(result, time.Since(begin))
}

// finish makes the outcome of a result.
func (s *session) finish(r *runResult, wall time.Duration) (*Outcome, error) {
	s.rebuild = r.Rebuild
	fault := r.Fault
	if fault != nil && r.FaultPath >= 0 {
		if path := s.source.path(r.FaultPath); path != "" {
			fault.Message += " (in " + path + ")"
		}
	}
	if !r.Ran {
		if fault == nil {
			fault = &perigee.Fault{Kind: perigee.Internal, Message: "the worker did not run the program and did not say why"}
		}
		return nil, fault.Err("wasm.Run")
	}
	sort.Slice(s.entries, func(i, j int) bool { return s.entries[i].Path < s.entries[j].Path })
	if !coherent(s.entries, s.task.Outputs) {
		return nil, perigee.E("wasm.Run", perigee.Unavailable, "the worker named outputs that cannot be")
	}
	o := &Outcome{ExitCode: int(r.ExitCode), Fuel: r.Fuel, Entries: s.entries, BytesRead: r.BytesRead,
		CPU: time.Duration(r.CPU), Wall: wall, PeakMemory: r.PeakMemory, spill: s.spill}
	if err := s.rest(o); err != nil {
		o.Close()
		return nil, perigee.E("wasm.Run", perigee.Unavailable, err, "cannot read back what the program printed")
	}
	err := fault.Err("wasm.Run")
	if err != nil && !errors.Is(err, perigee.Invalid) && !errors.Is(err, perigee.Exhausted) {
		o.Close()
		return nil, err
	}
	return o, err
}

// rest passes on what was printed but not yet sent live.
func (s *session) rest(o *Outcome) error {
	for i, stream := range []struct {
		name string
		fn   func([]byte)
	}{{"stdout", s.task.Stdout}, {"stderr", s.task.Stderr}} {
		entry := o.Entry(stream.name)
		if stream.fn == nil || entry.Size <= s.live[i] {
			continue
		}
		r, err := entry.Open()
		if err != nil {
			return err
		}
		if _, err := io.CopyN(io.Discard, r, s.live[i]); err != nil {
			return err
		}
		buf := make([]byte, min(maxLiveChunk, entry.Size-s.live[i]))
		for {
			n, err := r.Read(buf)
			if n > 0 {
				stream.fn(buf[:n])
			}
			if err == io.EOF {
				break
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

var errScratch = errors.New("cannot make a scratch file")

// converse sends the request and serves the worker until it is done.
func (s *session) converse(req *runRequest) (*runResult, error) {
	if err := s.worker.send(frameRun, req); err != nil {
		return nil, err
	}
	for {
		t, payload, err := s.worker.frames.next()
		if err != nil {
			return nil, err
		}
		switch t {
		case frameStdout, frameStderr:
			s.print(t, payload)
		case frameQuery:
			err = s.reply(payload)
		case frameEntries:
			err = s.collect(payload)
		case frameDone:
			var r runResult
			if err := decodePayload(payload, &r); err != nil {
				return nil, err
			}
			if s.partial != nil || r.Fuel < 0 || r.BytesRead < 0 || r.PeakMemory < 0 || r.CPU < 0 {
				return nil, errFrame
			}
			return &r, nil
		default:
			err = errFrame
		}
		if err != nil {
			return nil, err
		}
	}
}

func (s *session) print(t frameType, p []byte) {
	stream, fn := 0, s.task.Stdout
	if t == frameStderr {
		stream, fn = 1, s.task.Stderr
	}
	s.live[stream] += int64(len(p))
	for fn != nil && len(p) > 0 {
		n := min(len(p), maxLiveChunk)
		fn(p[:n])
		p = p[n:]
	}
}

// reply answers a query.
func (s *session) reply(payload []byte) error {
	var q query
	if err := decodePayload(payload, &q); err != nil {
		return err
	}
	if q.Op == querySpill {
		if s.spill != nil {
			return errFrame
		}
		f, err := unnamedFile(s.scratchDir)
		if err != nil {
			return errors.Join(errScratch, err)
		}
		s.spill = f
		return s.worker.send(frameReply, reply{Files: 1}, f)
	}
	r, file, err := s.source.answer(q)
	if err != nil {
		return err
	}
	if file == nil {
		return s.worker.send(frameReply, r)
	}
	defer file.Close()
	return s.worker.send(frameReply, r, file)
}

// collect takes a page of output entries.
func (s *session) collect(payload []byte) error {
	var page []entryMessage
	if err := decodePayload(payload, &page); err != nil {
		return err
	}
	if int64(len(s.entries)+len(page)) > s.task.Limits.Files+int64(len(s.task.Outputs))+2 {
		return errFrame
	}
	limits := &s.task.Limits
	for _, m := range page {
		s.inline += len(m.Data)
		s.runs += int64(len(m.Runs))
		// At most one run for each chunk of a file, the last of which may be short.
		if s.inline > 2*inlineTotal || s.runs > limits.Disk/chunkSize+limits.Files+int64(len(s.task.Outputs))+2 {
			return errFrame
		}
		if s.partial != nil {
			if m.Path != s.partial.Path || m.Kind != s.partial.Kind || m.Size != s.partial.Size || len(m.Data) > 0 {
				return errFrame
			}
			m.Runs = append(s.partial.Runs, m.Runs...)
			s.partial = nil
		}
		if m.More {
			s.partial = &m
			continue
		}
		e, err := outEntry(m, s.spill)
		if err != nil {
			return err
		}
		s.entries = append(s.entries, e)
	}
	return nil
}
