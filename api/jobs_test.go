package api_test

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/client"
)

// hostileArchives are uploads that must be refused.
func hostileArchives(t *testing.T) map[string][]byte {
	t.Helper()
	pack := func(headers ...tar.Header) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, h := range headers {
			require.NoError(t, w.WriteHeader(&h))
		}
		require.NoError(t, w.Close())
		return b.Bytes()
	}
	whole := pack(tar.Header{Name: "a", Typeflag: tar.TypeDir})
	return map[string][]byte{
		"climbs":     pack(tar.Header{Name: "a/../../b", Typeflag: tar.TypeReg}),
		"absolute":   pack(tar.Header{Name: "/etc/passwd", Typeflag: tar.TypeReg}),
		"device":     pack(tar.Header{Name: "null", Typeflag: tar.TypeChar}),
		"hard link":  pack(tar.Header{Name: "b", Linkname: "a", Typeflag: tar.TypeLink}),
		"fifo":       pack(tar.Header{Name: "b", Typeflag: tar.TypeFifo}),
		"long":       pack(tar.Header{Name: strings.Repeat("x/", 3000) + "y", Typeflag: tar.TypeReg}),
		"truncated":  whole[:100],
		"no archive": bytes.Repeat([]byte("rubbish "), 500),
	}
}

const jobYAML = "name: n\nwasm: {module: bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku}\n"

func TestSubmit(t *testing.T) {
	m := newMemory()
	c, url := overTCP(t, m)
	ctx := t.Context()

	resp, body := ask(t, "POST", url+"/v1/jobs", jobYAML, "Content-Type", "application/yaml", "Idempotency-Key", "k")
	require.Equal(t, 202, resp.StatusCode, body)
	require.JSONEq(t, `{"id":"job-1"}`, body)
	require.Equal(t, "/v1/jobs/job-1", resp.Header.Get("Location"))
	require.Equal(t, "n", m.lastJob.Name)
	require.Equal(t, "own", m.lastJob.Reuse, "the job was normalized")
	_, body = ask(t, "POST", url+"/v1/jobs", jobYAML, "Idempotency-Key", "k")
	require.JSONEq(t, `{"id":"job-1"}`, body)

	resp, body = ask(t, "POST", url+"/v1/jobs?wait=10s", jobYAML)
	require.Equal(t, 200, resp.StatusCode, body)
	require.Contains(t, body, `"completed"`)
	out, err := c.SubmitAndWait(ctx, perigee.Job{Wasm: &perigee.Wasm{Module: someCID.String()},
		Resources: perigee.Resources{Memory: 64 << 20, Timeout: perigee.Duration(time.Minute)}}, "", time.Second)
	require.NoError(t, err)
	require.Equal(t, perigee.JobCompleted, out.Status.State)
	require.Equal(t, perigee.Size(64<<20), m.lastJob.Resources.Memory)

	m.hold = true
	out, err = c.SubmitAndWait(ctx, perigee.Job{Wasm: &perigee.Wasm{Module: someCID.String()}}, "", 20*time.Millisecond)
	require.NoError(t, err)
	require.Equal(t, perigee.JobRunning, out.Status.State)
	_, err = c.Results(ctx, out.ID)
	require.ErrorIs(t, err, perigee.Unavailable)
	require.NoError(t, c.Cancel(ctx, out.ID))
	_, err = c.Results(ctx, out.ID)
	require.ErrorIs(t, err, perigee.NotFound)
	require.ErrorIs(t, c.Cancel(ctx, "nope"), perigee.NotFound)

	list, err := c.Jobs(ctx, 2)
	require.NoError(t, err)
	require.Len(t, list, 2)
	require.Equal(t, out.ID, list[0].ID)
	r, err := c.Results(ctx, "job-1")
	require.NoError(t, err)
	require.Len(t, r.Parts, 1)
	st, err := c.Job(ctx, "job-1")
	require.NoError(t, err)
	require.Equal(t, perigee.JobCompleted, st.State)
	x, err := c.Explain(ctx, perigee.Job{Wasm: &perigee.Wasm{Module: someCID.String()}, Inputs: []perigee.Input{{Source: someCID.String()}}})
	require.NoError(t, err)
	require.Equal(t, 1, x.Parts)
	x, err = c.ExplainJob(ctx, "job-1")
	require.NoError(t, err)
	require.Equal(t, 7, x.Parts)
}

func TestWatch(t *testing.T) {
	m := newMemory()
	m.hold = true
	c, _ := overTCP(t, m)
	id, err := c.Submit(t.Context(), perigee.Job{Wasm: &perigee.Wasm{Module: someCID.String()}}, "")
	require.NoError(t, err)
	var states []perigee.JobState
	var executions []int
	err = c.Watch(t.Context(), id, func(st perigee.JobStatus) error {
		states = append(states, st.State)
		executions = append(executions, len(st.Executions))
		if len(states) == 1 {
			m.mu.Lock()
			m.finish(id)
			m.mu.Unlock()
		}
		return nil
	})
	require.NoError(t, err)
	require.Equal(t, perigee.JobCompleted, states[len(states)-1])
	require.Equal(t, 1, executions[len(executions)-1])
	st, err := c.Wait(t.Context(), id)
	require.NoError(t, err)
	require.True(t, st.State.Final())
	_, err = c.Wait(t.Context(), "nope")
	require.ErrorIs(t, err, perigee.NotFound)
}

func TestLogs(t *testing.T) {
	m := newMemory()
	m.hold = true
	c, url := overTCP(t, m)
	id, err := c.Submit(t.Context(), perigee.Job{Wasm: &perigee.Wasm{Module: someCID.String()}}, "")
	require.NoError(t, err)
	say := func(part int, text string) {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.logs[id] = append(m.logs[id], client.LogChunk{Part: part, Stream: client.Stdout, Data: []byte(text)})
		m.notify()
	}
	say(0, "one\n")
	var got strings.Builder
	require.NoError(t, c.Logs(t.Context(), id, false, func(l client.LogChunk) error { got.Write(l.Data); return nil }))
	require.Equal(t, "one\n", got.String())
	got.Reset()
	require.NoError(t, c.Logs(t.Context(), id, true, func(l client.LogChunk) error {
		got.Write(l.Data)
		switch got.Len() {
		case 4:
			say(1, "two\n")
		case 8:
			m.mu.Lock()
			m.finish(id)
			m.mu.Unlock()
		}
		return nil
	}))
	require.Equal(t, "one\ntwo\n", got.String())

	resp, body := ask(t, "GET", url+"/v1/jobs/"+id+"/logs", "")
	require.Equal(t, "application/x-ndjson", resp.Header.Get("Content-Type"))
	var first client.LogChunk
	require.NoError(t, json.Unmarshal([]byte(strings.SplitN(body, "\n", 2)[0]), &first))
	require.Equal(t, "one\n", string(first.Data))
	resp, body = ask(t, "GET", url+"/v1/jobs/nope/logs", "")
	requireProblem(t, resp, body, 404, perigee.NotFound)
}

// TestHeartbeat shows that an idle stream is kept alive and ends when its
// reader leaves.
func TestHeartbeat(t *testing.T) {
	m := newMemory()
	m.hold = true
	c, url := overTCP(t, m)
	id, err := c.Submit(t.Context(), perigee.Job{Wasm: &perigee.Wasm{Module: someCID.String()}}, "")
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", url+"/v1/jobs/"+id+"/events", nil)
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+testToken)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, "text/event-stream", resp.Header.Get("Content-Type"))
	lines := bufio.NewScanner(resp.Body)
	beats := 0
	for beats < 2 && lines.Scan() {
		if lines.Text() == ": beat" {
			beats++
		}
	}
	require.Equal(t, 2, beats)
}
