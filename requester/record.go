package requester

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sort"
	"time"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/db"
)

// Keys in the database:
//
//	req/j/<job>             jobRecord
//	req/o/<job>             nothing: the jobs that are not final
//	req/t/<inverted time><job>  the job's ID: newest first
//	req/i/<idempotency key> the job's ID
//	req/p/<job>/<part>      partRecord
//	req/x/<job>/<execution> execRecord
//	req/k/<job key>         reuseRecord: an accepted receipt that answers the key
//	req/s/<provider>        standing
//	req/e/<expiry><job>     nothing: jobs that keep pins, by the end of retention
const (
	jobPrefix    = "req/j/"
	openPrefix   = "req/o/"
	timePrefix   = "req/t/"
	idemPrefix   = "req/i/"
	partPrefix   = "req/p/"
	execPrefix   = "req/x/"
	reusePrefix  = "req/k/"
	expirePrefix = "req/e/"

	standingPrefix = "req/s/"
)

// jobRecord is what is durable of a job beside its parts and executions.
type jobRecord struct {
	ID          string               `cbor:"id"`
	Spec        []byte               `cbor:"spec"` // JSON of the normalised Job
	Name        string               `cbor:"name"`
	Created     int64                `cbor:"created"`  // Unix microseconds
	Finished    int64                `cbor:"finished"` // Unix microseconds, 0 while it runs
	State       perigee.JobState     `cbor:"state"`
	Split       bool                 `cbor:"split"` // its parts are written
	Parts       int                  `cbor:"parts"`
	Done        int                  `cbor:"done"`
	Reused      int                  `cbor:"reused"`
	Audited     int                  `cbor:"audited"`
	Cost        perigee.Amount       `cbor:"cost"`
	ExitCode    int                  `cbor:"exit_code"`
	Output      perigee.CID          `cbor:"output"`
	Fault       *perigee.Fault       `cbor:"fault"`
	Hints       []perigee.HolderHint `cbor:"hints"`
	Explanation []byte               `cbor:"explanation"` // JSON of the last plan
}

// partRecord is one part of a job's split, or its merge.
type partRecord struct {
	Index int          `cbor:"index"`
	Label string       `cbor:"label"`
	Merge bool         `cbor:"merge"`
	Part  perigee.Part `cbor:"part"`
}

// execRecord is one attempt at a part, or the reuse of an earlier receipt.
type execRecord struct {
	ID           string                 `cbor:"id"`
	Job          string                 `cbor:"job"`
	Part         int                    `cbor:"part"`
	Merge        bool                   `cbor:"merge"`
	Label        string                 `cbor:"label"`
	Attempt      int                    `cbor:"attempt"`
	Provider     perigee.PeerID         `cbor:"provider"`
	Region       string                 `cbor:"region"`
	State        perigee.ExecutionState `cbor:"state"`
	Accepted     bool                   `cbor:"accepted"`
	Reused       bool                   `cbor:"reused"`
	Key          perigee.CID            `cbor:"key"`
	Result       perigee.Result         `cbor:"result"`
	Receipt      perigee.CID            `cbor:"receipt"`
	BytesRead    int64                  `cbor:"bytes_read"`
	BytesFetched int64                  `cbor:"bytes_fetched"`
	Leased       int64                  `cbor:"leased"`   // Unix microseconds
	Started      int64                  `cbor:"started"`  // Unix microseconds, 0 before
	Finished     int64                  `cbor:"finished"` // Unix microseconds, 0 before
	Price        perigee.Amount         `cbor:"price"`
	Fault        *perigee.Fault         `cbor:"fault"`
}

// reuseRecord names the receipt that answers a job key, and how well it was
// checked.
type reuseRecord struct {
	Receipt perigee.CID `cbor:"receipt"`
	Checked int         `cbor:"checked"`
}

// How well an accepted result was checked.
const (
	checkedNot     = iota
	checkedByDraw  // it could have been audited, and was not drawn
	checkedByPeers // other providers gave the same bytes
)

func jobKey(id string) []byte { return []byte(jobPrefix + id) }

func timeKey(rec *jobRecord) []byte {
	return fmt.Appendf(nil, "%s%016x%s", timePrefix, ^uint64(rec.Created), rec.ID)
}

func partKey(job string, index int) []byte {
	return fmt.Appendf(nil, "%s%s/%08d", partPrefix, job, index)
}

func (x *execRecord) dbKey() []byte { return []byte(execPrefix + x.Job + "/" + x.ID) }

func (r *Requester) loadJob(id string) (*jobRecord, error) {
	b, err := r.cfg.DB.Get(jobKey(id))
	if errors.Is(err, perigee.NotFound) {
		return nil, perigee.E("requester.Get", perigee.NotFound, "no job %q on this node; `perigee job list` shows those there are", id)
	}
	if err != nil {
		return nil, err
	}
	rec := new(jobRecord)
	return rec, perigee.Decode(b, rec)
}

func (rec *jobRecord) job() (perigee.Job, error) {
	var job perigee.Job
	if err := json.Unmarshal(rec.Spec, &job); err != nil {
		return job, perigee.E("requester.Get", perigee.Corrupt, err, "job %s", rec.ID)
	}
	return job, nil
}

func (r *Requester) scanParts(id string, fn func(*partRecord)) error {
	return r.cfg.DB.Scan([]byte(partPrefix+id+"/"), nil, func(_, v []byte) error {
		p := new(partRecord)
		if err := perigee.Decode(v, p); err != nil {
			return err
		}
		fn(p)
		return nil
	})
}

func (r *Requester) scanExecs(id string, fn func(*execRecord)) error {
	return r.cfg.DB.Scan([]byte(execPrefix+id+"/"), nil, func(_, v []byte) error {
		x := new(execRecord)
		if err := perigee.Decode(v, x); err != nil {
			return err
		}
		fn(x)
		return nil
	})
}

func (rec *jobRecord) status() perigee.JobStatus {
	st := perigee.JobStatus{
		ID: rec.ID, Name: rec.Name, State: rec.State, Created: time.UnixMicro(rec.Created),
		Parts: rec.Parts, Done: rec.Done, Output: rec.Output, Cost: rec.Cost, Reused: rec.Reused, Audited: rec.Audited,
		ExitCode: rec.ExitCode, Error: rec.Fault, Executions: []perigee.ExecutionStatus{},
	}
	st.Finished = timePtr(rec.Finished)
	return st
}

func (x *execRecord) status() perigee.ExecutionStatus {
	return perigee.ExecutionStatus{
		ID: x.ID, Part: x.Part, Merge: x.Merge, Label: x.Label, Provider: x.Provider, Region: x.Region,
		State: x.State, Accepted: x.Accepted, Reused: x.Reused, Attempts: x.Attempt,
		ExitCode: x.Result.ExitCode, Fuel: x.Result.Fuel, BytesRead: x.BytesRead, BytesFetched: x.BytesFetched,
		Started: timePtr(x.Started), Finished: timePtr(x.Finished), Output: x.Result.Output, Receipt: x.Receipt,
		JobKey: x.Key, Price: x.Price, Error: x.Fault,
	}
}

func timePtr(micros int64) *time.Time {
	if micros == 0 {
		return nil
	}
	t := time.UnixMicro(micros)
	return &t
}

func sortExecutions(list []perigee.ExecutionStatus) {
	sort.SliceStable(list, func(i, j int) bool {
		if list[i].Part != list[j].Part {
			return list[i].Part < list[j].Part
		}
		return list[i].Attempts < list[j].Attempts
	})
}

// owner is the name under which a job pins what it keeps.
func owner(job string) string { return "job/" + job }

// expireAtOnce bounds the work of one round; the next goes on from there.
const expireAtOnce = 1000

// expire unpins the results of jobs whose retention ended before now.
func (r *Requester) expire(now time.Time) error {
	due, err := db.Before(r.cfg.DB, expirePrefix, string(expiryKey(now, "")), expireAtOnce)
	if err != nil {
		return err
	}
	for _, k := range due {
		job := k[len(expirePrefix)+16:]
		outputs := map[perigee.CID]bool{}
		if rec, err := r.loadJob(job); err == nil {
			outputs[rec.Output] = true
		}
		err := r.scanParts(job, func(p *partRecord) {
			if p.Merge { // what it merges is a directory that the job made
				outputs[p.Part.Inputs[0].CID] = true
			}
		})
		if err != nil {
			return err
		}
		if err := r.scanExecs(job, func(x *execRecord) { outputs[x.Result.Output] = true }); err != nil {
			return err
		}
		for c := range outputs {
			if !c.Defined() {
				continue
			}
			if err := r.cfg.Data.Unpin(r.ctx, c, owner(job)); err != nil && !errors.Is(err, perigee.NotFound) {
				return err
			}
		}
		b := new(db.Batch)
		b.Delete([]byte(k))
		if err := r.cfg.DB.WriteLazy(b); err != nil {
			return err
		}
	}
	return nil
}

func expiryKey(at time.Time, job string) []byte {
	return fmt.Appendf(nil, "%s%016x%s", expirePrefix, at.UnixMilli(), job)
}

// byPart returns the executions in order of their parts.
func byPart(m map[int]*execRecord) []*execRecord {
	list := slices.Collect(maps.Values(m))
	sort.Slice(list, func(i, j int) bool { return list[i].Part < list[j].Part })
	return list
}
