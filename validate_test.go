package perigee

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestNormalizeFillsDefaults(t *testing.T) {
	job := &Job{Wasm: &Wasm{Module: "m"}, Inputs: []Input{{Source: "x"}}, Merge: &Wasm{Module: "n"}}
	require.NoError(t, job.Normalize())
	require.Equal(t, &Job{
		Type: "batch", Wasm: &Wasm{Module: "m", Workdir: "/"}, Merge: &Wasm{Module: "n", Workdir: "/"},
		Inputs:    []Input{{Source: "x", Mount: "/in"}},
		Resources: Resources{CPU: 1, Memory: 512 << 20, Disk: 1 << 30, Files: 10_000, Timeout: Duration(10 * time.Minute), Fuel: 1e12},
		Verify:    Verify{Mode: "none"}, Reuse: "own", Retention: Duration(24 * time.Hour), Attempts: 4,
	}, job)
	before, err := json.Marshal(job)
	require.NoError(t, err)
	require.NoError(t, job.Normalize())
	after, err := json.Marshal(job)
	require.NoError(t, err)
	require.Equal(t, string(before), string(after), "normalizing again changes nothing")
}

func TestNormalizeFaults(t *testing.T) {
	inputs := func(mounts ...string) []Input {
		var out []Input
		for _, m := range mounts {
			out = append(out, Input{Source: "x", Mount: m})
		}
		return out
	}
	price := func(f float64) Price { return Price{MaxTotal: &f} }
	peer := string(PeerIDOf(make([]byte, 32)))
	long := strings.Repeat("x", 200)
	for name, c := range map[string]struct {
		change func(*Job)
		want   string // "" means no fault
	}{
		"nothing wrong":    {func(*Job) {}, ""},
		"no program":       {func(j *Job) { j.Wasm = nil }, "the job names no program; add wasm: {module: FILE.wasm or CID}"},
		"no module":        {func(j *Job) { j.Wasm.Module = "" }, "wasm.module is missing; it is the program's file or CID"},
		"merge's module":   {func(j *Job) { j.Merge = &Wasm{} }, "merge.module is missing; it is the program's file or CID"},
		"unknown type":     {func(j *Job) { j.Type = "cron" }, `type: "cron" is unknown; write batch`},
		"long name":        {func(j *Job) { j.Name = long }, "name has 200 characters; at most 128 are allowed"},
		"name's newline":   {func(j *Job) { j.Name = "a\nb" }, "name holds a control character or is not UTF-8"},
		"NUL argument":     {func(j *Job) { j.Wasm.Args = []string{"a", "b\x00"} }, "wasm.args[1] holds a NUL byte or is not UTF-8"},
		"many arguments":   {func(j *Job) { j.Wasm.Args = make([]string, 1025) }, "wasm.args has 1025 entries; at most 1024 are allowed"},
		"long arguments":   {func(j *Job) { j.Wasm.Args = []string{strings.Repeat("x", 128<<10)} }, "wasm: arguments and environment take 131073 bytes; at most 131072 are allowed"},
		"name with =":      {func(j *Job) { j.Wasm.Env = map[string]string{"A=B": ""} }, `wasm.env: the name "A=B" is empty, is not UTF-8 or holds '=' or a NUL byte`},
		"empty name":       {func(j *Job) { j.Wasm.Env = map[string]string{"": ""} }, `wasm.env: the name "" is empty, is not UTF-8 or holds '=' or a NUL byte`},
		"NUL value":        {func(j *Job) { j.Wasm.Env = map[string]string{"A": "\x00"} }, `wasm.env: the value of "A" holds a NUL byte or is not UTF-8`},
		"relative workdir": {func(j *Job) { j.Wasm.Workdir = "in" }, `wasm.workdir is "in"; it must be an absolute path, such as /in`},
		"no source":        {func(j *Job) { j.Inputs = []Input{{Mount: "/a"}} }, "inputs[0].source is missing; it is a path, a CID or OWNER/NAME of a dataset"},
		"count, no source": {func(j *Job) { j.Inputs = []Input{{Split: "count=4"}} }, ""},
		"relative mount":   {func(j *Job) { j.Inputs = inputs("in") }, `inputs[0].mount is "in"; it must be an absolute path, such as /in`},
		"unclean mount":    {func(j *Job) { j.Inputs = inputs("/a/../b/") }, `inputs[0].mount is "/a/../b/"; write it as /b`},
		"mounts beside":    {func(j *Job) { j.Inputs = inputs("/a", "/ab", "/b") }, ""},
		"mount twice":      {func(j *Job) { j.Inputs = inputs("/a", "/a") }, "inputs[1].mount /a is used twice, by inputs[0].mount /a too"},
		"mount in mount":   {func(j *Job) { j.Inputs = inputs("/a", "/a/b") }, "inputs[1].mount /a/b lies inside inputs[0].mount /a; choose another directory"},
		"mount over mount": {func(j *Job) { j.Inputs = inputs("/a/b", "/a") }, "inputs[1].mount /a holds inputs[0].mount /a/b; choose another directory"},
		"mount in /tmp":    {func(j *Job) { j.Inputs = inputs("/tmp/a") }, "inputs[0].mount /tmp/a lies inside the scratch directory /tmp; choose another directory"},
		"output in mount":  {func(j *Job) { j.Inputs, j.Outputs = inputs("/a"), []string{"/a/out"} }, "outputs[0] /a/out lies inside inputs[0].mount /a; choose another directory"},
		"mount in output":  {func(j *Job) { j.Inputs, j.Outputs = inputs("/out/a"), []string{"/out"} }, "outputs[0] /out holds inputs[0].mount /out/a; choose another directory"},
		"output in output": {func(j *Job) { j.Outputs = []string{"/out", "/out/b"} }, "outputs[1] /out/b lies inside outputs[0] /out; choose another directory"},
		"output twice":     {func(j *Job) { j.Outputs = []string{"/out", "/out"} }, "outputs[1] /out is used twice, by outputs[0] /out too"},
		"relative output":  {func(j *Job) { j.Outputs = []string{"out"} }, `outputs[0] is "out"; it must be an absolute path, such as /out`},
		"empty output":     {func(j *Job) { j.Outputs = []string{""} }, `outputs[0] is ""; it must be an absolute path, such as /`},
		"NUL in output":    {func(j *Job) { j.Outputs = []string{"/a\x00"} }, "outputs[0] is longer than 4096 bytes, is not UTF-8 or holds a control character"},
		"deep output":      {func(j *Job) { j.Outputs = []string{strings.Repeat("/a", 200)} }, "outputs[0] is nested more than 128 directories deep"},
		"many outputs":     {func(j *Job) { j.Outputs = make([]string, 300) }, "outputs has 300 entries; at most 256 are allowed"},
		"many inputs":      {func(j *Job) { j.Inputs = make([]Input, 300) }, "inputs has 300 entries; at most 256 are allowed"},
		"bad split":        {func(j *Job) { j.Inputs = []Input{{Source: "x", Split: "lines"}} }, `inputs[0].split: split "lines" is unknown; write file, bytes=64MiB, part or count=8`},
		"two splits": {func(j *Job) {
			j.Inputs = []Input{{Source: "x", Mount: "/a", Split: "file"}, {Source: "y", Mount: "/b", Split: "part"}}
		}, "inputs[1].split: inputs[0] splits already; at most one input may split"},
		"little memory":      {func(j *Job) { j.Resources.Memory = 1000 }, "resources.memory is 1000B; it must be between 64KiB and 4194240KiB"},
		"much memory":        {func(j *Job) { j.Resources.Memory = 64 << 30 }, "resources.memory is 64GiB; it must be between 64KiB and 4194240KiB"},
		"negative disk":      {func(j *Job) { j.Resources.Disk = -1 }, "resources.disk is -1B; it must be between 1B and 1PiB"},
		"negative fuel":      {func(j *Job) { j.Resources.Fuel = -5 }, "resources.fuel is -5; it must be between 1 and 4611686018427387903"},
		"negative timeout":   {func(j *Job) { j.Resources.Timeout = -1 }, "resources.timeout is -1ns; it must be between 1ms and 744h0m0s"},
		"negative cores":     {func(j *Job) { j.Resources.CPU = -1 }, "resources.cpu is -1; it must be between 1 and 4096"},
		"long retention":     {func(j *Job) { j.Retention = MaxRetention + 1 }, "retention is 8784h0m0.000000001s; it must be between 1s and 8784h0m0s"},
		"many attempts":      {func(j *Job) { j.Attempts = 101 }, "attempts is 101; it must be between 1 and 100"},
		"region":             {func(j *Job) { j.Placement.Regions = []string{"eu"} }, `placement.regions[0]: "eu" is not a region; write it as EU or EU/DE`},
		"exclude":            {func(j *Job) { j.Placement.Exclude = []string{"EU", peer, "nobody"} }, `placement.exclude[2]: "nobody" is neither a region such as EU/DE nor a peer ID`},
		"negative transfer":  {func(j *Job) { j.Placement.MaxTransfer = -1 }, "placement.max_transfer is negative"},
		"negative price":     {func(j *Job) { j.Price = price(-1) }, "price.max_total is -1; it must be between 0 and 1e12 credits"},
		"no number as price": {func(j *Job) { j.Price = price(math.NaN()) }, "price.max_total is NaN; it must be between 0 and 1e12 credits"},
		"unknown mode":       {func(j *Job) { j.Verify.Mode = "trust" }, `verify: mode "trust" is unknown; write none, audit or replicate`},
		"copies for audit":   {func(j *Job) { j.Verify = Verify{Mode: "audit", Copies: 3} }, "verify: copies and quorum belong to mode replicate, not audit"},
		"many copies":        {func(j *Job) { j.Verify = Verify{Mode: "replicate", Copies: 17} }, "verify: copies is 17; it must be between 1 and 16"},
		"large quorum":       {func(j *Job) { j.Verify = Verify{Mode: "replicate", Copies: 2, Quorum: 3} }, "verify: quorum is 3; it must be between 1 and copies, which is 2"},
		"unknown reuse":      {func(j *Job) { j.Reuse = "all" }, `reuse: "all" is unknown; write off, own or audited`},
	} {
		t.Run(name, func(t *testing.T) {
			job := &Job{Wasm: &Wasm{Module: "m"}}
			c.change(job)
			err := job.Normalize()
			if c.want == "" {
				require.NoError(t, err)
				return
			}
			require.EqualError(t, err, c.want)
			require.Equal(t, Invalid, KindOf(err))
		})
	}
}

func TestNormalizeReservesPlaces(t *testing.T) {
	for _, p := range []string{"/", "/tmp", "/tmp/x", "/stdout", "/stderr/x"} {
		for name, job := range map[string]*Job{"mount": {Inputs: []Input{{Source: "x", Mount: p}}}, "output": {Outputs: []string{p}}} {
			job.Wasm = &Wasm{Module: "m"}
			require.ErrorIs(t, job.Normalize(), Invalid, "%s %s", name, p)
		}
	}
	job := &Job{Wasm: &Wasm{Module: "m"}, Outputs: []string{"/parts/x"}}
	require.NoError(t, job.Normalize())
	job.Merge = &Wasm{Module: "m"}
	require.ErrorContains(t, job.Normalize(), "the merge's input /parts")
}

func TestNormalizeOfLaterTypes(t *testing.T) {
	for _, typ := range []string{"service", "function"} {
		err := (&Job{Type: typ}).Normalize()
		require.ErrorIs(t, err, Unsupported)
		require.EqualError(t, err, "type: "+typ+" is not built yet; this version runs batch jobs")
	}
}

func TestNormalizeReportsFaultsTogether(t *testing.T) {
	job := &Job{Reuse: "x", Attempts: -1, Wasm: &Wasm{Env: map[string]string{"=1": "", "=2": "", "=3": ""}}}
	first := job.Normalize().Error()
	require.Equal(t, 5, strings.Count(first, "\n"), first)
	for range 20 {
		require.Equal(t, first, job.Normalize().Error(), "faults come in one order")
	}
}

func TestParseSplit(t *testing.T) {
	for in, want := range map[string]Split{
		"": {}, "file": {Mode: "file"}, "part": {Mode: "part"}, "bytes=64MiB": {Mode: "bytes", Bytes: 64 << 20}, "count=8": {Mode: "count", Count: 8},
	} {
		got, err := ParseSplit(in)
		require.NoError(t, err, in)
		require.Equal(t, want, got)
		require.Equal(t, in, got.String())
	}
	for in, want := range map[string]string{
		"files":         `split "files" is unknown; write file, bytes=64MiB, part or count=8`,
		"file=3":        `split "file=3" takes no value; write "file"`,
		"=":             `split "=" takes no value; write ""`,
		"bytes":         `split "bytes" needs a size, such as bytes=64MiB: "" is not a size; write a number and a unit, such as 512MiB`,
		"bytes=0":       `split "bytes=0" needs at least one byte per part`,
		"count=":        `split "count=" needs a whole number, such as count=8`,
		"count=0":       `split "count=0" must make between 1 and 1048576 parts`,
		"count=9999999": `split "count=9999999" must make between 1 and 1048576 parts`,
	} {
		_, err := ParseSplit(in)
		require.EqualError(t, err, want)
		require.ErrorIs(t, err, Invalid)
	}
}

func TestParseVerify(t *testing.T) {
	for in, want := range map[string]Verify{
		"": {Mode: "none"}, "none": {Mode: "none"}, "audit": {Mode: "audit"}, "replicate": {"replicate", 3, 2},
		"replicate=3/2": {"replicate", 3, 2}, "replicate=5": {"replicate", 5, 3}, "replicate=1": {"replicate", 1, 1}, "replicate=16/16": {"replicate", 16, 16},
	} {
		got, err := ParseVerify(in)
		require.NoError(t, err, in)
		require.Equal(t, want, got, in)
	}
	for _, in := range []string{"replicat", "replicate=", "replicate=0", "replicate=3/", "replicate=3/0", "replicate=3/1", "replicate=17/16", "replicate=a/b", "audit=3/2", "none=1"} {
		_, err := ParseVerify(in)
		require.ErrorIs(t, err, Invalid, in)
	}
}

func TestRegionWithin(t *testing.T) {
	for _, c := range []struct {
		region, area string
		want         bool
	}{
		{"EU/DE", "EU", true}, {"EU", "EU", true}, {"EU/DE/BE", "EU/DE", true}, {"EU", "", true}, {"", "", true},
		{"EU", "EU/DE", false}, {"EUX", "EU", false}, {"EU/DEX", "EU/DE", false}, {"", "EU", false}, {"US", "EU", false},
	} {
		require.Equal(t, c.want, RegionWithin(c.region, c.area), "%q within %q", c.region, c.area)
	}
	for _, ok := range []string{"EU", "EU/DE", "US/CA/SF-1", "ASIA"} {
		require.True(t, ValidRegion(ok), ok)
	}
	for _, bad := range []string{"", "E", "eu", "EU/", "/EU", "EU//DE", "EU/de", "EU DE", "EU\n", strings.Repeat("E", 65)} {
		require.False(t, ValidRegion(bad), bad)
	}
}

func TestPartValidate(t *testing.T) {
	require.NoError(t, samplePart().Validate())
	for want, change := range map[string]func(*Part){
		"engine is empty or longer than 256 bytes":                                        func(p *Part) { p.Engine = "" },
		"module is missing":                                                               func(p *Part) { p.Module = CID{} },
		"workdir is missing":                                                              func(p *Part) { p.Workdir = "" },
		"part.args[0] holds a NUL byte or is not UTF-8":                                   func(p *Part) { p.Args[0] = "\x00" },
		"limits.memory is 8589934592; it must be between 1 and 4294901760":                func(p *Part) { p.Limits.Memory = 8 << 30 },
		"limits.fuel is 0; it must be between 1 and 4611686018427387903":                  func(p *Part) { p.Limits.Fuel = 0 },
		"limits.disk is -1; it must be between 1 and 1125899906842624":                    func(p *Part) { p.Limits.Disk = -1 },
		"inputs[0].cid is missing":                                                        func(p *Part) { p.Inputs[0].CID = CID{} },
		"inputs[0] has a negative size, offset or length":                                 func(p *Part) { p.Inputs[0].Offset = math.MaxInt64 },
		"inputs[0].align: \"page\" is unknown":                                            func(p *Part) { p.Inputs[0].Align = "page" },
		"inputs[1] has an offset or alignment without a length":                           func(p *Part) { p.Inputs[1].Offset = 1 },
		"inputs[1].mount is \"/in/a.csv\", which is taken by inputs[0].mount":             func(p *Part) { p.Inputs[1].Mount = p.Inputs[0].Mount },
		"inputs[1].mount, \"/in/a.csv/b\", lies inside inputs[0].mount, \"/in/a.csv\"":    func(p *Part) { p.Inputs[1].Mount = "/in/a.csv/b" },
		"outputs[0], \"/ref/out\", lies inside inputs[1].mount, \"/ref\"":                 func(p *Part) { p.Outputs = []string{"/ref/out"} },
		"outputs[1]: outputs are not sorted":                                              func(p *Part) { p.Outputs = []string{"/out", "/a"} },
		"outputs[0] is \"/\", which holds everything else":                                func(p *Part) { p.Outputs = []string{"/"} },
		"outputs[0], \"/tmp/x\", lies inside the scratch directory, \"/tmp\"":             func(p *Part) { p.Outputs = []string{"/tmp/x"} },
		"outputs[0] is \"/stdout\", which is taken by the program's output":               func(p *Part) { p.Outputs = []string{"/stdout"} },
		"the part has 70000 inputs and 1 outputs; at most 65536 and 256 are allowed":      func(p *Part) { p.Inputs = make([]PartInput, 70000) },
		"outputs[0] is \"/out/\"; write it as /out":                                       func(p *Part) { p.Outputs = []string{"/out/"} },
		"inputs[0].mount is \"/in/../etc\"; write it as /etc":                             func(p *Part) { p.Inputs[0].Mount = "/in/../etc" },
		"inputs[0].mount is longer than 4096 bytes, is not UTF-8 or holds a control char": func(p *Part) { p.Inputs[0].Mount = "/\xff" },
	} {
		p := samplePart()
		change(p)
		err := p.Validate()
		require.ErrorIs(t, err, Invalid, want)
		require.ErrorContains(t, err, want)
	}
}
