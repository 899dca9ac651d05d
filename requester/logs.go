package requester

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/perigee-network/perigee"
)

// LogChunk is a run of bytes that a part's guest wrote.
type LogChunk struct {
	Part   int
	Merge  bool
	Label  string
	Stream int // 1 stdout, 2 stderr
	Data   []byte
}

// maxLiveLog bounds what is kept of one part's stream while it runs. A follower
// that falls behind gets the rest from the part's output.
const maxLiveLog = 256 << 10

// partLog is the live output of a part, merged over its attempts: they write
// the same bytes, so any attempt may continue another's.
type partLog struct {
	live     [2]stream
	complete bool // the part has its result: read the output instead
}

type stream struct {
	start int64 // offset of buf's first byte
	buf   []byte
}

// onLog takes live output; mu is not held.
func (u *run) onLog(from perigee.PeerID, ev *perigee.Event) {
	if ev.Stream != 1 && ev.Stream != 2 || ev.Offset < 0 {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	e := u.execs[ev.Execution]
	if e == nil || e.Provider != from {
		return
	}
	s := &e.part.log.live[ev.Stream-1]
	end := s.start + int64(len(s.buf))
	skip := end - ev.Offset
	if skip < 0 || skip >= int64(len(ev.Data)) {
		return // a gap, or known already
	}
	s.buf = append(s.buf, ev.Data[skip:]...)
	if over := len(s.buf) - maxLiveLog; over > 0 {
		s.buf = append(s.buf[:0], s.buf[over:]...)
		s.start += int64(over)
	}
	close(u.changed)
	u.changed = make(chan struct{})
}

func (u *run) logsComplete(p *part) { p.log.complete = true }

// cursor is how far a follower has read one part.
type cursor struct {
	at   [2]int64
	done bool
}

// Logs calls fn with the output of a job's parts: of each part its stdout and
// stderr in order, parts interleaved as they come. With follow it goes on until
// the job is final; without, it ends with what there is now.
func (r *Requester) Logs(ctx context.Context, id string, follow bool, fn func(LogChunk) error) error {
	cursors := map[int]*cursor{}
	for {
		u := r.running(id)
		if u == nil {
			return r.finalLogs(ctx, id, cursors, fn)
		}
		changed := u.changes()
		if err := u.liveLogs(ctx, cursors, fn); err != nil {
			return err
		}
		if !follow {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-u.done:
		case <-changed:
		case <-time.After(time.Second):
		}
	}
}

// liveLogs delivers what is new in a running job.
func (u *run) liveLogs(ctx context.Context, cursors map[int]*cursor, fn func(LogChunk) error) error {
	type finished struct {
		p   *part
		out perigee.CID
	}
	var chunks []LogChunk
	var whole []finished
	u.mu.Lock()
	for _, p := range u.parts {
		c := cursors[p.Index]
		if c == nil {
			c = new(cursor)
			cursors[p.Index] = c
		}
		if c.done {
			continue
		}
		if p.accepted != nil {
			whole = append(whole, finished{p, p.accepted.Result.Output})
			continue
		}
		for i := range p.log.live {
			s := &p.log.live[i]
			from := c.at[i] - s.start
			if from < 0 || from >= int64(len(s.buf)) {
				continue
			}
			data := append([]byte(nil), s.buf[from:]...)
			c.at[i] += int64(len(data))
			chunks = append(chunks, LogChunk{Part: p.Index, Merge: p.Merge, Label: p.Label, Stream: i + 1, Data: data})
		}
	}
	u.mu.Unlock()
	for _, c := range chunks {
		if err := fn(c); err != nil {
			return err
		}
	}
	for _, f := range whole {
		c := cursors[f.p.Index]
		if err := u.r.outputLogs(ctx, f.out, LogChunk{Part: f.p.Index, Merge: f.p.Merge, Label: f.p.Label}, c, fn); err != nil {
			return err
		}
	}
	return nil
}

// finalLogs delivers from the outputs of a final job what is not delivered yet.
func (r *Requester) finalLogs(ctx context.Context, id string, cursors map[int]*cursor, fn func(LogChunk) error) error {
	if _, err := r.loadJob(id); err != nil {
		return err
	}
	told := map[int]*execRecord{} // by part: the accepted execution, else the last that left output
	err := r.scanExecs(id, func(x *execRecord) {
		if x.Accepted || x.Result.Output.Defined() && (told[x.Part] == nil || !told[x.Part].Accepted) {
			told[x.Part] = x
		}
	})
	if err != nil {
		return err
	}
	for _, x := range byPart(told) {
		c := cursors[x.Part]
		if c == nil {
			c = new(cursor)
			cursors[x.Part] = c
		}
		if c.done {
			continue
		}
		if err := r.outputLogs(ctx, x.Result.Output, LogChunk{Part: x.Part, Merge: x.Merge, Label: x.Label}, c, fn); err != nil {
			return err
		}
	}
	return nil
}

// outputLogs delivers the rest of a finished part's streams from its output.
func (r *Requester) outputLogs(ctx context.Context, output perigee.CID, like LogChunk, c *cursor, fn func(LogChunk) error) error {
	for i, name := range []string{"stdout", "stderr"} {
		if err := r.outputStream(ctx, output, name, i, like, c, fn); err != nil {
			return err
		}
	}
	c.done = true
	return nil
}

func (r *Requester) outputStream(ctx context.Context, output perigee.CID, name string, i int, like LogChunk, c *cursor, fn func(LogChunk) error) error {
	file, err := r.cfg.Data.Resolve(ctx, output.String()+"/"+name)
	if errors.Is(err, perigee.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	f, err := r.cfg.Data.OpenFile(ctx, file)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Seek(c.at[i], io.SeekStart); err != nil {
		return err
	}
	for {
		buf := make([]byte, 64<<10)
		n, err := io.ReadFull(f, buf)
		if n > 0 {
			c.at[i] += int64(n)
			like.Stream, like.Data = i+1, buf[:n]
			if err := fn(like); err != nil {
				return err
			}
		}
		switch {
		case err == io.EOF || err == io.ErrUnexpectedEOF:
			return nil
		case err != nil:
			return err
		}
	}
}
