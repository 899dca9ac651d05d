package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"io"
	"strconv"
	"time"

	"github.com/perigee-network/perigee"
)

func newBytes(b []byte) (io.Reader, int64) { return bytes.NewReader(b), int64(len(b)) }

// Submit hands a job to the node, which has it durably once this returns. The
// same key always gives the same job; without one Submit makes its own, so that
// a connection that breaks can be retried safely.
func (c *Client) Submit(ctx context.Context, job perigee.Job, key string) (string, error) {
	out, err := c.submit(ctx, job, key, 0)
	return out.ID, err
}

// SubmitAndWait submits a job and waits until it is final or wait has passed;
// then Status is where it stands. A job that failed is no error here.
func (c *Client) SubmitAndWait(ctx context.Context, job perigee.Job, key string, wait time.Duration) (Submitted, error) {
	return c.submit(ctx, job, key, wait)
}

func (c *Client) submit(ctx context.Context, job perigee.Job, key string, wait time.Duration) (Submitted, error) {
	var out Submitted
	if key == "" {
		key = rand.Text()
	}
	k, err := post("client.Submit", "/v1/jobs").json(job)
	if err != nil {
		return out, err
	}
	k = k.set("Idempotency-Key", key)
	if wait > 0 {
		k = k.with("wait", wait.String())
	}
	err = c.do(ctx, k, &out)
	return out, err
}

// Jobs lists the newest jobs first, without executions; limit 0 means the
// node's default.
func (c *Client) Jobs(ctx context.Context, limit int) ([]perigee.JobStatus, error) {
	var out []perigee.JobStatus
	k := get("client.Jobs", "/v1/jobs")
	if limit > 0 {
		k = k.with("limit", strconv.Itoa(limit))
	}
	err := c.do(ctx, k, &out)
	return out, err
}

// Job tells where a job stands.
func (c *Client) Job(ctx context.Context, id string) (perigee.JobStatus, error) {
	var out perigee.JobStatus
	err := c.do(ctx, get("client.Job", jobPath(id, "")), &out)
	return out, err
}

// Results tells what a finished job left behind. It is Unavailable while the
// job runs and NotFound when it left nothing.
func (c *Client) Results(ctx context.Context, id string) (Results, error) {
	var out Results
	err := c.do(ctx, get("client.Results", jobPath(id, "/results")), &out)
	return out, err
}

// Cancel stops a job.
func (c *Client) Cancel(ctx context.Context, id string) error {
	return c.do(ctx, post("client.Cancel", jobPath(id, "/cancel")), nil)
}

// Explain says how a job would be placed.
func (c *Client) Explain(ctx context.Context, job perigee.Job) (perigee.Explanation, error) {
	var out perigee.Explanation
	k, err := post("client.Explain", "/v1/explain").json(job)
	if err != nil {
		return out, err
	}
	err = c.do(ctx, k, &out)
	return out, err
}

// ExplainJob says how a job was placed.
func (c *Client) ExplainJob(ctx context.Context, id string) (perigee.Explanation, error) {
	var out perigee.Explanation
	err := c.do(ctx, get("client.ExplainJob", jobPath(id, "/explain")), &out)
	return out, err
}

// Watch calls fn with the job's present state, then with changes, and returns
// after the final one, which alone tells of executions. It returns fn's error as
// soon as it has one.
func (c *Client) Watch(ctx context.Context, id string, fn func(perigee.JobStatus) error) error {
	k := get("client.Watch", jobPath(id, "/events")).with("brief", "true")
	final := false
	return c.follow(ctx, k, func(event string, data []byte) error {
		if event != "job" || final {
			return nil
		}
		var st perigee.JobStatus
		if err := json.Unmarshal(data, &st); err != nil {
			return perigee.E(k.op, perigee.Unavailable, err, "the node sent a malformed job")
		}
		final = st.State.Final()
		return fn(st)
	})
}

// Wait returns the job's status once it is final.
func (c *Client) Wait(ctx context.Context, id string) (perigee.JobStatus, error) {
	var last perigee.JobStatus
	err := c.Watch(ctx, id, func(st perigee.JobStatus) error { last = st; return nil })
	return last, err
}

// Logs calls fn with what the job's programs wrote and, with follow, write
// until the job is final. A stream that breaks is resumed where it was.
func (c *Client) Logs(ctx context.Context, id string, follow bool, fn func(LogChunk) error) error {
	return c.LogsFrom(ctx, id, follow, &LogCursor{}, fn)
}

// LogCursor is how far a reader is in each stream of a job's output. The zero
// value is the beginning. It is not safe for concurrent use.
type LogCursor struct{ told map[logSource]int64 }

type logSource struct {
	part, stream int
	merge        bool
}

// LogsFrom is Logs from a cursor on, which it moves: a reader that loses one
// node goes on with another that has the same home.
func (c *Client) LogsFrom(ctx context.Context, id string, follow bool, at *LogCursor, fn func(LogChunk) error) error {
	k := get("client.Logs", jobPath(id, "/logs"))
	if follow {
		k = k.with("follow", "true")
	}
	if at.told == nil {
		at.told = map[logSource]int64{}
	}
	var seen map[logSource]int64 // bytes that came on the present connection
	return c.follow(ctx, k, func(event string, data []byte) error {
		switch event {
		case eventOpened:
			seen = map[logSource]int64{}
			return nil
		case "log":
		default:
			return nil
		}
		var chunk LogChunk
		if err := json.Unmarshal(data, &chunk); err != nil {
			return perigee.E(k.op, perigee.Unavailable, err, "the node sent a malformed log")
		}
		s := logSource{chunk.Part, chunk.Stream, chunk.Merge}
		begin := seen[s]
		seen[s] += int64(len(chunk.Data))
		told := at.told[s]
		if seen[s] <= told {
			return nil
		}
		if told > begin {
			chunk.Data = chunk.Data[told-begin:]
		}
		at.told[s] = seen[s]
		return fn(chunk)
	})
}

func jobPath(id, rest string) string { return "/v1/jobs/" + segment(id) + rest }
