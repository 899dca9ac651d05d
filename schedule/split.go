package schedule

import (
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/perigee-network/perigee"
)

// SplitSpec is the parsed form of an input's split; see perigee.Split.
type SplitSpec = perigee.Split

// ParseSplit reads "", "file", "bytes=64MiB", "part" or "count=8". Errors are
// of kind Invalid.
func ParseSplit(s string) (SplitSpec, error) { return perigee.ParseSplit(s) }

// File is one file of an input.
type File struct {
	Path    string // slash-separated, relative and clean; "" when the input itself is a file
	CID     perigee.CID
	Size    int64            // bytes
	Holders []perigee.PeerID // who is known to hold it; may be empty
}

// Input is one input of a job, resolved to content.
type Input struct {
	Mount string      // absolute guest path
	Split SplitSpec   // the zero value: every part sees the whole input
	CID   perigee.CID // of the whole; undefined for a dataset whose files lie under no common root
	Size  int64       // bytes of all files below CID
	Files []File      // needed when the input splits by files, bytes or parts, and when CID is undefined
}

// PartSpec describes one part of a job: the inputs it sees and what tells it
// from the others.
type PartSpec struct {
	Index  int
	Label  string              // its share of the input, for people; "" when there is one part only
	Inputs []perigee.PartInput // sorted by Mount
	Env    map[string]string   // added to the program's environment; may be nil
	Bytes  int64               // input bytes it reads at most
}

// MaxLooseFiles bounds the files of an input that is given whole without a root
// above them: each is one input of each part.
const MaxLooseFiles = 4096

// Environment variables that a part of a split by count sees.
const (
	EnvPart  = "PERIGEE_PART"  // its index, from 0
	EnvParts = "PERIGEE_PARTS" // how many there are
)

// Split divides a job into parts, after the one input that splits; the other
// inputs are given whole to each part. Without a split there is one part.
//
//   - file, part: a part for each file, in order of path, which it sees at
//     MOUNT/PATH, or at MOUNT itself when the input is a single file (a CID has
//     no name of its own). The parts of a dataset are its files.
//   - bytes: a part for each run of so many bytes of each file, moved to line
//     boundaries (perigee.AlignLine). A file within the size is one part and
//     seen whole, so that its job key does not depend on the size asked. Empty
//     files make no parts. A run without a line's beginning, in the middle of a
//     line longer than a run, is a part that sees an empty file.
//   - count: so many equal parts that see the whole input and find their index
//     and number in PERIGEE_PART and PERIGEE_PARTS.
//
// Errors are of kind Invalid: an input without files, a malformed or repeated
// path, more than perigee.MaxParts parts.
func Split(inputs []Input) ([]PartSpec, error) {
	const op = "schedule.Split"
	splitter := -1
	var whole []perigee.PartInput
	for i, in := range inputs {
		if in.Split.Mode == perigee.SplitNone || in.Split.Mode == perigee.SplitCount {
			parts, err := wholeInput(in)
			if err != nil {
				return nil, err
			}
			whole = append(whole, parts...)
		}
		if in.Split.Mode != perigee.SplitNone {
			if splitter >= 0 {
				return nil, perigee.E(op, perigee.Invalid, "the inputs at %s and %s both split; at most one may", inputs[splitter].Mount, in.Mount)
			}
			splitter = i
		}
	}
	if splitter < 0 {
		return number([]PartSpec{{}}, whole), nil
	}
	in := inputs[splitter]
	switch in.Split.Mode {
	case perigee.SplitFile, perigee.SplitPart:
		return splitFiles(in, whole)
	case perigee.SplitBytes:
		return splitBytes(in, whole)
	case perigee.SplitCount:
		return splitCount(in.Split.Count, whole)
	}
	return nil, perigee.E(op, perigee.Invalid, "the input at %s has the unknown split %q", in.Mount, in.Split.Mode)
}

// wholeInput gives an input whole: its root, or its files one by one when they
// lie under none.
func wholeInput(in Input) ([]perigee.PartInput, error) {
	if in.CID.Defined() {
		return []perigee.PartInput{{Mount: in.Mount, CID: in.CID, Size: in.Size}}, nil
	}
	if in.Split.Mode == perigee.SplitCount && len(in.Files) == 0 {
		return nil, nil // a count needs no data
	}
	files, err := sorted(in)
	if err != nil {
		return nil, err
	}
	if len(files) > MaxLooseFiles {
		return nil, perigee.E("schedule.Split", perigee.Invalid, "the input at %s has %d files under no common root, and every part would see all of them; at most %d are allowed: split by part, or add the data as one directory", in.Mount, len(files), MaxLooseFiles)
	}
	names := make(map[string]bool, len(files))
	for _, f := range files {
		names[f.Path] = true
	}
	var out []perigee.PartInput
	for _, f := range files {
		for dir := path.Dir(f.Path); dir != "."; dir = path.Dir(dir) {
			if names[dir] {
				return nil, perigee.E("schedule.Split", perigee.Invalid, "the input at %s names %q as a file and as a directory", in.Mount, dir)
			}
		}
		out = append(out, perigee.PartInput{Mount: mountOf(in, f), CID: f.CID, Size: f.Size})
	}
	return out, nil
}

func splitFiles(in Input, whole []perigee.PartInput) ([]PartSpec, error) {
	files, err := sorted(in)
	if err != nil {
		return nil, err
	}
	if err := bounded(int64(len(files)), in); err != nil {
		return nil, err
	}
	parts := make([]PartSpec, len(files))
	for i, f := range files {
		parts[i] = PartSpec{
			Label:  labelOf(in, f),
			Inputs: []perigee.PartInput{{Mount: mountOf(in, f), CID: f.CID, Size: f.Size}},
		}
	}
	return number(parts, whole), nil
}

func splitBytes(in Input, whole []perigee.PartInput) ([]PartSpec, error) {
	const op = "schedule.Split"
	step := in.Split.Bytes
	if step < 1 {
		return nil, perigee.E(op, perigee.Invalid, "the input at %s splits by %d bytes; it must be at least 1", in.Mount, step)
	}
	files, err := sorted(in)
	if err != nil {
		return nil, err
	}
	total := int64(0)
	for _, f := range files {
		total += runs(f.Size, step)
		if err := bounded(total, in); err != nil {
			return nil, err
		}
	}
	if total == 0 {
		return nil, perigee.E(op, perigee.Invalid, "the input at %s holds no bytes to split; its files are all empty", in.Mount)
	}
	parts := make([]PartSpec, 0, total)
	for _, f := range files {
		n := runs(f.Size, step)
		for i := range n {
			p := perigee.PartInput{Mount: mountOf(in, f), CID: f.CID, Size: f.Size}
			label := labelOf(in, f)
			if n > 1 {
				p.Offset, p.Length, p.Align = i*step, min(step, f.Size-i*step), perigee.AlignLine
				label = fmt.Sprintf("%s %d/%d", label, i+1, n)
			}
			parts = append(parts, PartSpec{Label: label, Inputs: []perigee.PartInput{p}})
		}
	}
	return number(parts, whole), nil
}

// runs is how many runs of step bytes cover size bytes.
func runs(size, step int64) int64 {
	if size <= 0 {
		return 0
	}
	return (size-1)/step + 1
}

func splitCount(count int, whole []perigee.PartInput) ([]PartSpec, error) {
	if count < 1 || count > perigee.MaxParts {
		return nil, perigee.E("schedule.Split", perigee.Invalid, "a split by count=%d must make between 1 and %d parts", count, perigee.MaxParts)
	}
	parts := make([]PartSpec, count)
	for i := range parts {
		parts[i].Label = fmt.Sprintf("%d of %d", i+1, count)
		parts[i].Env = map[string]string{EnvPart: strconv.Itoa(i), EnvParts: strconv.Itoa(count)}
	}
	return number(parts, whole), nil
}

// number completes parts: their indexes, the inputs they all share, and sizes.
func number(parts []PartSpec, whole []perigee.PartInput) []PartSpec {
	for i := range parts {
		p := &parts[i]
		p.Index = i
		p.Inputs = append(p.Inputs, whole...)
		slices.SortFunc(p.Inputs, func(a, b perigee.PartInput) int { return strings.Compare(a.Mount, b.Mount) })
		for _, in := range p.Inputs {
			p.Bytes += in.Bytes()
		}
	}
	return parts
}

// sorted returns the input's files in order of path, checked.
func sorted(in Input) ([]File, error) {
	const op = "schedule.Split"
	if len(in.Files) == 0 {
		return nil, perigee.E(op, perigee.Invalid, "the input at %s holds no files; there is nothing to run on", in.Mount)
	}
	files := slices.Clone(in.Files)
	slices.SortFunc(files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	for i, f := range files {
		single := f.Path == "" && len(files) == 1
		switch {
		case !single && (!fs.ValidPath(f.Path) || f.Path == "." || strings.ContainsRune(f.Path, 0)):
			return nil, perigee.E(op, perigee.Invalid, "the input at %s names a file %q, which is no clean relative path", in.Mount, f.Path)
		case i > 0 && f.Path == files[i-1].Path:
			return nil, perigee.E(op, perigee.Invalid, "the input at %s names the file %q twice", in.Mount, f.Path)
		case !f.CID.Defined() || f.Size < 0:
			return nil, perigee.E(op, perigee.Invalid, "the input at %s names no CID or a negative size for the file %q", in.Mount, f.Path)
		}
	}
	return files, nil
}

func bounded(parts int64, in Input) error {
	if parts <= perigee.MaxParts {
		return nil
	}
	hint := "split a part of the data at a time"
	if in.Split.Mode == perigee.SplitBytes {
		hint = "split by more bytes than " + perigee.Size(in.Split.Bytes).String()
	}
	return perigee.E("schedule.Split", perigee.Invalid, "the input at %s splits into more than %d parts; %s", in.Mount, perigee.MaxParts, hint)
}

func mountOf(in Input, f File) string { return path.Join(in.Mount, f.Path) }

func labelOf(in Input, f File) string {
	if f.Path == "" {
		return path.Base(in.Mount)
	}
	return f.Path
}
