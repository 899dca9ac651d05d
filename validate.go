package perigee

import (
	"errors"
	"fmt"
	"math"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// The ways to split a job into parts; see Split.
const (
	SplitNone  = ""      // one part
	SplitFile  = "file"  // a part for each file
	SplitBytes = "bytes" // a part for each Bytes bytes of each file, at line boundaries
	SplitPart  = "part"  // a part for each part of a dataset
	SplitCount = "count" // Count copies of the same part
)

// Split is how an input is divided into parts, the parsed form of Input.Split.
type Split struct {
	Mode  string // one of the Split constants
	Bytes int64  // of SplitBytes
	Count int    // of SplitCount
}

// ParseSplit reads "", "file", "bytes=64MiB", "part" or "count=8". Errors are
// of kind Invalid.
func ParseSplit(s string) (Split, error) {
	const op = "perigee.ParseSplit"
	mode, value, has := strings.Cut(s, "=")
	switch mode {
	case SplitNone, SplitFile, SplitPart:
		if has {
			return Split{}, E(op, Invalid, "split %s takes no value; write %s", quote(s), quote(mode))
		}
		return Split{Mode: mode}, nil
	case SplitBytes:
		n, err := ParseSize(value)
		if err != nil {
			return Split{}, E(op, Invalid, err, "split %s needs a size, such as bytes=64MiB", quote(s))
		}
		if n < 1 {
			return Split{}, E(op, Invalid, "split %s needs at least one byte per part", quote(s))
		}
		return Split{Mode: mode, Bytes: int64(n)}, nil
	case SplitCount:
		n, err := strconv.Atoi(value)
		if err != nil {
			return Split{}, E(op, Invalid, "split %s needs a whole number, such as count=8", quote(s))
		}
		if n < 1 || n > MaxParts {
			return Split{}, E(op, Invalid, "split %s must make between 1 and %d parts", quote(s), MaxParts)
		}
		return Split{Mode: mode, Count: n}, nil
	}
	return Split{}, E(op, Invalid, "split %s is unknown; write file, bytes=64MiB, part or count=8", quote(s))
}

// String returns the form that ParseSplit reads.
func (s Split) String() string {
	switch s.Mode {
	case SplitBytes:
		return "bytes=" + Size(s.Bytes).String()
	case SplitCount:
		return "count=" + strconv.Itoa(s.Count)
	}
	return s.Mode
}

// ParseVerify reads the short form of Verify: "none", "audit", "replicate" or
// "replicate=COPIES/QUORUM". Errors are of kind Invalid.
func ParseVerify(s string) (Verify, error) {
	const op = "perigee.ParseVerify"
	mode, value, has := strings.Cut(s, "=")
	v := Verify{Mode: mode}
	if has {
		copies, quorum, both := strings.Cut(value, "/")
		var err1, err2 error
		v.Copies, err1 = strconv.Atoi(copies)
		if both {
			v.Quorum, err2 = strconv.Atoi(quorum)
		}
		if err1 != nil || err2 != nil || v.Copies == 0 || both && v.Quorum == 0 {
			return Verify{}, E(op, Invalid, "verify %s is not understood; write replicate=COPIES/QUORUM, such as replicate=3/2", quote(s))
		}
	}
	if err := v.normalize(); err != nil {
		return Verify{}, E(op, Invalid, err)
	}
	return v, nil
}

// normalize fills the defaults of v and checks it.
func (v *Verify) normalize() error {
	switch v.Mode {
	case "":
		v.Mode = "none"
	case "none", "audit", "replicate":
	default:
		return fmt.Errorf("verify: mode %s is unknown; write none, audit or replicate", quote(v.Mode))
	}
	if v.Mode != "replicate" {
		if v.Copies != 0 || v.Quorum != 0 {
			return fmt.Errorf("verify: copies and quorum belong to mode replicate, not %s", v.Mode)
		}
		return nil
	}
	if v.Copies == 0 {
		v.Copies = 3
		if v.Quorum > 3 { // "quorum: 4" alone asks for as many copies as can reach it
			v.Copies = v.Quorum
		}
	}
	if v.Quorum == 0 {
		v.Quorum = v.Copies/2 + 1
	}
	switch {
	case v.Copies < 1 || v.Copies > MaxCopies:
		return fmt.Errorf("verify: copies is %d; it must be between 1 and %d", v.Copies, MaxCopies)
	case v.Quorum < 1 || v.Quorum > v.Copies:
		return fmt.Errorf("verify: quorum is %d; it must be between 1 and copies, which is %d", v.Quorum, v.Copies)
	case 2*v.Quorum <= v.Copies:
		return fmt.Errorf("verify: quorum %d of %d copies could be reached by two different results; it must be at least %d", v.Quorum, v.Copies, v.Copies/2+1)
	}
	return nil
}

// MaxCopies bounds the replicas of one part.
const MaxCopies = 16

// regionForm is a region's name: areas from the largest to the smallest.
var regionForm = regexp.MustCompile(`^[A-Z]{2,}(/[A-Z0-9-]+)*$`)

// ValidRegion reports whether s names a region, such as "EU" or "EU/DE/BE".
func ValidRegion(s string) bool { return len(s) <= 64 && regionForm.MatchString(s) }

// RegionWithin reports whether region is area or lies below it: "EU/DE" is
// within "EU". Everything is within the area "", and an unstated region only
// within that.
func RegionWithin(region, area string) bool {
	return area == "" || region == area || strings.HasPrefix(region, area+"/")
}

// Normalize fills the defaults of j's fields and checks them all. It does not
// look at what sources and modules name: they may still be local paths. Up to
// ten faults are reported together, in an error of kind Invalid, or Unsupported
// when what was asked is not built yet. Normalizing again changes nothing.
func (j *Job) Normalize() error {
	c := &checker{}
	c.program(j)
	c.paths(j)
	c.resources(&j.Resources)
	c.placement(&j.Placement)
	if err := j.Verify.normalize(); err != nil {
		c.fail("%s", err)
	}
	if p := j.Price.MaxTotal; p != nil && !(*p >= 0 && *p <= 1e12) {
		c.fail("price.max_total is %v; it must be between 0 and 1e12 credits", *p)
	}
	if j.Reuse == "" {
		j.Reuse = "own"
	}
	if !slices.Contains([]string{"off", "own", "audited"}, j.Reuse) {
		c.fail("reuse: %s is unknown; write off, own or audited", quote(j.Reuse))
	}
	bound(c, "retention", &j.Retention, DefaultRetention, Duration(time.Second), MaxRetention)
	bound(c, "attempts", &j.Attempts, DefaultAttempts, 1, 100)
	return c.err("perigee.Job")
}

// checker collects the faults of a job.
type checker struct {
	faults      []error
	unsupported bool // whether the first fault is of kind Unsupported
}

const maxFaults = 10

func (c *checker) fail(format string, args ...any) {
	if len(c.faults) < maxFaults {
		c.faults = append(c.faults, fmt.Errorf(format, args...))
	}
}

// later records that the job asks for something that is not built yet.
func (c *checker) later(format string, args ...any) {
	c.unsupported = c.unsupported || len(c.faults) == 0
	c.fail(format, args...)
}

func (c *checker) err(op string) error {
	if len(c.faults) == 0 {
		return nil
	}
	kind := Invalid
	if c.unsupported {
		kind = Unsupported
	}
	return E(op, kind, errors.Join(c.faults...))
}

// bound fills the default of a field that is zero and checks its range.
func bound[T ~int | ~int64](c *checker, name string, v *T, def, lo, hi T) {
	if *v == 0 {
		*v = def
	}
	if *v < lo || *v > hi {
		c.fail("%s is %v; it must be between %v and %v", name, *v, lo, hi)
	}
}

func (c *checker) program(j *Job) {
	if n := utf8.RuneCountInString(j.Name); n > 128 {
		c.fail("name has %d characters; at most 128 are allowed", n)
	}
	if strings.ContainsFunc(j.Name, unicode.IsControl) || !utf8.ValidString(j.Name) {
		c.fail("name holds a control character or is not UTF-8")
	}
	switch j.Type {
	case "":
		j.Type = "batch"
	case "batch":
	case "service", "function":
		c.later("type: %s is not built yet; this version runs batch jobs", j.Type)
		return
	default:
		c.fail("type: %s is unknown; write batch", quote(j.Type))
	}
	if j.Wasm == nil {
		c.fail("the job names no program; add wasm: {module: FILE.wasm or CID}")
	} else {
		c.wasm("wasm", j.Wasm)
	}
	if j.Merge != nil {
		c.wasm("merge", j.Merge)
	}
}

func (c *checker) wasm(name string, w *Wasm) {
	switch {
	case w.Module == "":
		c.fail("%s.module is missing; it is the program's file or CID", name)
	case len(w.Module) > 4096 || strings.ContainsRune(w.Module, 0):
		c.fail("%s.module is longer than 4096 bytes or holds a NUL byte", name)
	}
	if w.Workdir == "" {
		w.Workdir = "/"
	}
	c.path(name+".workdir", w.Workdir)
	if len(w.Args) > MaxArgs {
		c.fail("%s.args has %d entries; at most %d are allowed", name, len(w.Args), MaxArgs)
	}
	if len(w.Env) > MaxArgs {
		c.fail("%s.env has %d entries; at most %d are allowed", name, len(w.Env), MaxArgs)
	}
	total := 0
	for i, a := range w.Args {
		total += len(a) + 1
		if strings.ContainsRune(a, 0) || !utf8.ValidString(a) {
			c.fail("%s.args[%d] holds a NUL byte or is not UTF-8", name, i)
		}
	}
	for _, k := range sortedKeys(w.Env) {
		v := w.Env[k]
		total += len(k) + len(v) + 2
		switch {
		case k == "" || strings.ContainsAny(k, "=\x00") || !utf8.ValidString(k):
			c.fail("%s.env: the name %s is empty, is not UTF-8 or holds '=' or a NUL byte", name, quote(k))
		case strings.ContainsRune(v, 0) || !utf8.ValidString(v):
			c.fail("%s.env: the value of %s holds a NUL byte or is not UTF-8", name, quote(k))
		}
	}
	if total > MaxArgBytes {
		c.fail("%s: arguments and environment take %d bytes; at most %d are allowed", name, total, MaxArgBytes)
	}
}

// paths checks inputs and outputs, and that they leave one another alone.
func (c *checker) paths(j *Job) {
	if len(j.Inputs) > MaxInputs {
		c.fail("inputs has %d entries; at most %d are allowed", len(j.Inputs), MaxInputs)
		return
	}
	if len(j.Outputs) > MaxInputs {
		c.fail("outputs has %d entries; at most %d are allowed", len(j.Outputs), MaxInputs)
		return
	}
	type place struct{ what, path string }
	places := []place{{"the scratch directory /tmp", "/tmp"}, {"the program's output /stdout", "/stdout"}, {"the program's output /stderr", "/stderr"}}
	add := func(name, p string) {
		what := fmt.Sprintf("%s %s", name, p)
		for _, o := range places {
			switch {
			case p == o.path && !strings.HasPrefix(o.what, "the "):
				c.fail("%s is used twice, by %s too", what, o.what)
			case within(p, o.path):
				c.fail("%s lies inside %s; choose another directory", what, o.what)
			case within(o.path, p):
				c.fail("%s holds %s; choose another directory", what, o.what)
			}
		}
		places = append(places, place{what, p})
	}
	splitter := -1
	for i := range j.Inputs {
		in, name := &j.Inputs[i], fmt.Sprintf("inputs[%d]", i)
		split, err := ParseSplit(in.Split)
		if err != nil {
			c.fail("%s.split: %s", name, err)
		} else if split.Mode != SplitNone {
			if splitter >= 0 {
				c.fail("%s.split: inputs[%d] splits already; at most one input may split", name, splitter)
			}
			splitter = i
		}
		switch {
		case in.Source == "" && split.Mode != SplitCount: // a count needs no data
			c.fail("%s.source is missing; it is a path, a CID or OWNER/NAME of a dataset", name)
		case len(in.Source) > 4096 || strings.ContainsRune(in.Source, 0):
			c.fail("%s.source is longer than 4096 bytes or holds a NUL byte", name)
		}
		if in.Mount == "" {
			in.Mount = DefaultMount
		}
		if c.path(name+".mount", in.Mount) {
			add(name+".mount", in.Mount)
		}
	}
	if j.Merge != nil {
		places = append(places, place{"the merge's input /parts", "/parts"})
	}
	for i, p := range j.Outputs {
		if name := fmt.Sprintf("outputs[%d]", i); c.path(name, p) {
			add(name, p)
		}
	}
}

// path checks that p is an absolute, clean guest path and reports whether it is.
func (c *checker) path(name, p string) bool {
	switch {
	case len(p) > 4096 || !utf8.ValidString(p) || strings.ContainsFunc(p, unicode.IsControl):
		c.fail("%s is longer than 4096 bytes, is not UTF-8 or holds a control character", name)
	case !strings.HasPrefix(p, "/"):
		c.fail("%s is %s; it must be an absolute path, such as %s", name, quote(p), path.Clean("/"+p))
	case path.Clean(p) != p:
		c.fail("%s is %s; write it as %s", name, quote(p), path.Clean(p))
	case strings.Count(p, "/") > 128:
		c.fail("%s is nested more than 128 directories deep", name)
	default:
		return true
	}
	return false
}

// within reports whether the clean path p is dir or lies below it.
func within(p, dir string) bool {
	return p == dir || dir == "/" || strings.HasPrefix(p, dir+"/")
}

func (c *checker) resources(r *Resources) {
	bound(c, "resources.cpu", &r.CPU, 1, 1, 4096)
	bound(c, "resources.memory", &r.Memory, DefaultMemory, 64<<10, MaxMemory)
	bound(c, "resources.disk", &r.Disk, DefaultDisk, 1, 1<<50)
	bound(c, "resources.files", &r.Files, DefaultFiles, 1, 10_000_000)
	bound(c, "resources.timeout", &r.Timeout, DefaultTimeout, Duration(time.Millisecond), Duration(31*24*time.Hour))
	bound(c, "resources.fuel", &r.Fuel, DefaultFuel, 1, math.MaxInt64/2)
}

func (c *checker) placement(p *Placement) {
	if len(p.Regions) > MaxInputs || len(p.Exclude) > MaxInputs {
		c.fail("placement: regions and exclude may have at most %d entries each", MaxInputs)
		return
	}
	for i, r := range p.Regions {
		if !ValidRegion(r) {
			c.fail("placement.regions[%d]: %s is not a region; write it as EU or EU/DE", i, quote(r))
		}
	}
	for i, x := range p.Exclude {
		if _, err := PeerID(x).PublicKey(); err != nil && !ValidRegion(x) {
			c.fail("placement.exclude[%d]: %s is neither a region such as EU/DE nor a peer ID", i, quote(x))
		}
	}
	if p.MaxTransfer < 0 {
		c.fail("placement.max_transfer is negative")
	}
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// maxPartInputs bounds the inputs of one part: a dataset given whole, whose
// files lie under no common root, is one input per file.
const maxPartInputs = 1 << 16

// Validate checks a part that came from elsewhere: what an engine may rely on.
// The error is of kind Invalid and lists up to ten faults.
func (p *Part) Validate() error {
	c := &checker{}
	if p.Engine == "" || len(p.Engine) > 256 {
		c.fail("engine is empty or longer than 256 bytes")
	}
	if !p.Module.Defined() {
		c.fail("module is missing")
	}
	program := Wasm{Module: "checked above", Args: p.Args, Env: p.Env, Workdir: p.Workdir}
	c.wasm("part", &program)
	if p.Workdir == "" {
		c.fail("workdir is missing")
	}
	c.partPaths(p)
	for _, l := range []struct {
		name      string
		value, hi int64
	}{
		{"memory", p.Limits.Memory, int64(MaxMemory)}, {"fuel", p.Limits.Fuel, math.MaxInt64 / 2},
		{"disk", p.Limits.Disk, 1 << 50}, {"files", p.Limits.Files, 10_000_000},
	} {
		if l.value < 1 || l.value > l.hi {
			c.fail("limits.%s is %d; it must be between 1 and %d", l.name, l.value, l.hi)
		}
	}
	return c.err("perigee.Part")
}

// partPaths checks a part's inputs and outputs.
func (c *checker) partPaths(p *Part) {
	if len(p.Inputs) > maxPartInputs || len(p.Outputs) > MaxInputs {
		c.fail("the part has %d inputs and %d outputs; at most %d and %d are allowed", len(p.Inputs), len(p.Outputs), maxPartInputs, MaxInputs)
		return
	}
	taken := map[string]string{"/tmp": "the scratch directory", "/stdout": "the program's output", "/stderr": "the program's output"}
	var paths []string
	add := func(what, path string) {
		if !c.path(what, path) {
			return
		}
		if by, twice := taken[path]; twice {
			c.fail("%s is %s, which is taken by %s", what, quote(path), by)
			return
		}
		taken[path] = what
		paths = append(paths, path)
	}
	for i, in := range p.Inputs {
		name := fmt.Sprintf("inputs[%d]", i)
		add(name+".mount", in.Mount)
		switch {
		case !in.CID.Defined():
			c.fail("%s.cid is missing", name)
		case in.Size < 0 || in.Offset < 0 || in.Length < 0 || in.Offset > math.MaxInt64-in.Length:
			c.fail("%s has a negative size, offset or length", name)
		case in.Align != AlignNone && in.Align != AlignLine:
			c.fail("%s.align: %s is unknown", name, quote(in.Align))
		case in.Length == 0 && (in.Offset != 0 || in.Align != AlignNone):
			c.fail("%s has an offset or alignment without a length", name)
		case i > 0 && p.Inputs[i-1].Mount >= in.Mount:
			c.fail("%s.mount: inputs are not sorted by mount", name)
		}
	}
	for i, out := range p.Outputs {
		add(fmt.Sprintf("outputs[%d]", i), out)
		if i > 0 && p.Outputs[i-1] >= out {
			c.fail("outputs[%d]: outputs are not sorted", i)
		}
	}
	for _, p := range paths {
		if p == "/" {
			c.fail("%s is \"/\", which holds everything else", taken[p])
		}
		for dir := path.Dir(p); dir != "/"; dir = path.Dir(dir) {
			if by, inside := taken[dir]; inside {
				c.fail("%s, %s, lies inside %s, %s", taken[p], quote(p), by, quote(dir))
				break
			}
		}
	}
}
