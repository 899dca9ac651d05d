package perigee

import (
	"encoding/json"
	"time"
)

// Job is what a requester asks for, in the form in which people write it: the
// job file (YAML or JSON, see ParseJob) and the body of POST /v1/jobs. When it
// reaches a requester, every Source and Module is a CID or a dataset name;
// turning local paths into CIDs is the client's business.
type Job struct {
	Name       string    `json:"name,omitempty" yaml:"name" doc:"for people; at most 128 characters"`
	Type       string    `json:"type,omitempty" yaml:"type" enum:"batch" doc:"batch (the default)"`
	Wasm       *Wasm     `json:"wasm,omitempty" yaml:"wasm" doc:"the program"`
	Inputs     []Input   `json:"inputs,omitempty" yaml:"inputs"`
	Outputs    []string  `json:"outputs,omitempty" yaml:"outputs" doc:"absolute guest directories to keep as output"`
	Merge      *Wasm     `json:"merge,omitempty" yaml:"merge" doc:"a second program over the parts' outputs, found at /parts/<index>/"`
	Resources  Resources `json:"resources,omitempty" yaml:"resources"`
	Placement  Placement `json:"placement,omitempty" yaml:"placement"`
	Price      Price     `json:"price,omitempty" yaml:"price"`
	Verify     Verify    `json:"verify,omitempty" yaml:"verify"`
	Reuse      string    `json:"reuse,omitempty" yaml:"reuse" enum:"off,own,audited" doc:"whose earlier results may answer: off, own (the default) or audited"`
	Retention  Duration  `json:"retention,omitempty" yaml:"retention" doc:"how long results stay pinned; default 24h"`
	Attempts   int       `json:"attempts,omitempty" yaml:"attempts" doc:"most providers tried for one part; default 4"`
	StreamLogs bool      `json:"stream_logs,omitempty" yaml:"stream_logs" doc:"providers send output while the parts run, not only at their end"`
}

// Wasm names a WebAssembly program (WASI preview 1 command) and its arguments.
type Wasm struct {
	Module  string            `json:"module" yaml:"module" doc:"CID of the module; the CLI also takes a path"`
	Args    []string          `json:"args,omitempty" yaml:"args" doc:"arguments after the program's name"`
	Env     map[string]string `json:"env,omitempty" yaml:"env"`
	Workdir string            `json:"workdir,omitempty" yaml:"workdir" doc:"absolute guest directory; default /"`
}

// Input is data that a job reads, mounted read-only.
type Input struct {
	Source string `json:"source" yaml:"source" doc:"CID, CID/path or OWNER/NAME of a dataset; the CLI also takes a path"`
	Mount  string `json:"mount,omitempty" yaml:"mount" doc:"absolute guest path; default /in"`
	Split  string `json:"split,omitempty" yaml:"split" doc:"file | bytes=SIZE | part | count=N; at most one input splits"`
}

// Resources are what one execution may use. Zero means the default.
type Resources struct {
	CPU     int      `json:"cpu,omitempty" yaml:"cpu" doc:"cores; default 1"`
	Memory  Size     `json:"memory,omitempty" yaml:"memory" doc:"linear memory; default 512MiB"`
	Disk    Size     `json:"disk,omitempty" yaml:"disk" doc:"bytes the guest may write in all, outputs and scratch; default 1GiB"`
	Files   int      `json:"files,omitempty" yaml:"files" doc:"files and directories the guest may create; default 10000"`
	Timeout Duration `json:"timeout,omitempty" yaml:"timeout" doc:"wall-clock time; default 10m"`
	Fuel    Fuel     `json:"fuel,omitempty" yaml:"fuel" doc:"executed operations; default 1e12"`
}

// Placement says where a job may run.
type Placement struct {
	Regions     []string `json:"regions,omitempty" yaml:"regions" doc:"such as EU or EU/DE; a region covers what lies below it; empty means anywhere"`
	Exclude     []string `json:"exclude,omitempty" yaml:"exclude" doc:"regions or peer IDs never to use"`
	MaxTransfer Size     `json:"max_transfer,omitempty" yaml:"max_transfer" doc:"most input bytes the whole job may move between nodes; 0 means no limit"`
}

// Price caps what a job may cost.
type Price struct {
	MaxTotal *float64 `json:"max_total,omitempty" yaml:"max_total" doc:"credits for the whole job; unset means no cap"`
}

// Verify says how results are checked.
type Verify struct {
	Mode   string `json:"mode,omitempty" yaml:"mode" enum:"none,audit,replicate" doc:"none, audit or replicate"`
	Copies int    `json:"copies,omitempty" yaml:"copies" doc:"replicate: executions of each part on different providers"`
	Quorum int    `json:"quorum,omitempty" yaml:"quorum" doc:"replicate: how many must agree byte for byte"`
}

// The defaults of a job's fields, applied by Job.Normalize.
const (
	DefaultMemory    = Size(512 << 20)
	DefaultDisk      = Size(1 << 30)
	DefaultFiles     = 10_000
	DefaultTimeout   = Duration(10 * time.Minute)
	DefaultFuel      = Fuel(1e12)
	DefaultRetention = Duration(24 * time.Hour)
	DefaultAttempts  = 4
	DefaultMount     = "/in"
)

// Bounds on a job's fields, so that hostile or mistaken specs cost nothing.
const (
	MaxJobFile   = 1 << 20              // bytes of a job file
	MaxArgs      = 1024                 // arguments or environment entries
	MaxArgBytes  = 128 << 10            // bytes of all arguments and environment together
	MaxInputs    = 256                  // inputs of a job
	MaxParts     = 1 << 20              // parts of a job
	MaxMemory    = Size(4<<30 - 64<<10) // wasm32 addresses 4 GiB
	MaxRetention = Duration(366 * 24 * time.Hour)
)

// Size is a number of bytes. It reads "64MiB", "1GiB", "1.5GB" or a plain
// number and prints in binary units.
type Size int64

// Fuel is a number of executed WebAssembly operations; it reads "50e9" too.
type Fuel int64

// Duration is a time.Duration that reads and prints Go's form ("10m").
type Duration time.Duration

// D returns the time.Duration.
func (d Duration) D() time.Duration { return time.Duration(d) }

func (d Duration) String() string { return time.Duration(d).String() }

// MarshalJSON writes Go's form.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(d.String()) }

// JobState is where a job stands.
type JobState string

// The states of a job. Completed, failed and cancelled are final.
const (
	JobQueued    JobState = "queued"
	JobRunning   JobState = "running"
	JobCompleted JobState = "completed"
	JobFailed    JobState = "failed"
	JobCancelled JobState = "cancelled"
)

// Final reports whether the job will change no more.
func (s JobState) Final() bool {
	return s == JobCompleted || s == JobFailed || s == JobCancelled
}

// ExecutionState is where an execution stands.
type ExecutionState string

// The states of an execution. All but leased and running are final.
const (
	ExecLeased    ExecutionState = "leased"    // accepted by the provider, waiting for a worker or inputs
	ExecRunning   ExecutionState = "running"   // the guest runs
	ExecCompleted ExecutionState = "completed" // a signed receipt exists (the guest's exit code may be non-zero)
	ExecFailed    ExecutionState = "failed"    // no result; Fault says why
	ExecCancelled ExecutionState = "cancelled" // the requester withdrew it
	ExecLost      ExecutionState = "lost"      // the requester gave the provider up
)

// Final reports whether the execution will change no more.
func (s ExecutionState) Final() bool { return s != ExecLeased && s != ExecRunning && s != "" }

// JobStatus is what `perigee job show` and GET /v1/jobs/{id} tell of a job.
type JobStatus struct {
	ID         string            `json:"id"`
	Name       string            `json:"name"`
	State      JobState          `json:"state"`
	Created    time.Time         `json:"created"`
	Finished   *time.Time        `json:"finished,omitempty"`
	Parts      int               `json:"parts" doc:"parts of the split; a merge is one more execution"`
	Done       int               `json:"done" doc:"parts with an accepted result"`
	Executions []ExecutionStatus `json:"executions"`
	Output     CID               `json:"output" doc:"CID of the job's output directory once completed"`
	Cost       Amount            `json:"cost" doc:"micro-credits"`
	Reused     int               `json:"reused" doc:"parts answered by earlier receipts"`
	Audited    int               `json:"audited" doc:"results that another provider repeated to the byte before they were accepted"`
	ExitCode   int               `json:"exit_code" doc:"first non-zero exit code of the merge or of a part, in order of index"`
	Error      *Fault            `json:"error,omitempty"`
	Note       string            `json:"note,omitempty" doc:"what the job waits for, while it waits"`
}

// ExecutionStatus is one attempt, or an earlier receipt that answers a part.
type ExecutionStatus struct {
	ID           string         `json:"id"`
	Part         int            `json:"part" doc:"index of the part; the merge has the index after the last"`
	Merge        bool           `json:"merge,omitempty"`
	Label        string         `json:"label,omitempty" doc:"the part's input, for people"`
	Provider     PeerID         `json:"provider"`
	Region       string         `json:"region,omitempty"`
	State        ExecutionState `json:"state"`
	Accepted     bool           `json:"accepted" doc:"this is the execution whose result the job took"`
	Reused       bool           `json:"reused,omitempty"`
	Attempts     int            `json:"attempts" doc:"attempts made for this part so far, this one included"`
	ExitCode     int            `json:"exit_code"`
	Fuel         int64          `json:"fuel"`
	BytesRead    int64          `json:"bytes_read" doc:"input bytes read where they lay"`
	BytesFetched int64          `json:"bytes_fetched" doc:"input bytes fetched from other nodes"`
	Started      *time.Time     `json:"started,omitempty"`
	Finished     *time.Time     `json:"finished,omitempty"`
	Output       CID            `json:"output"`
	Receipt      CID            `json:"receipt"`
	JobKey       CID            `json:"job_key"`
	Price        Amount         `json:"price"`
	Error        *Fault         `json:"error,omitempty"`
}
