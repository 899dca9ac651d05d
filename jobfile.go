package perigee

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// ParseJob reads a job file: one YAML or JSON document of the form of Job. It
// fills no defaults and checks only form; see Job.Normalize. Faults are
// reported together, up to ten, each with its line: an unknown key with the
// nearest valid one, a value of a wrong type with an example of a right one.
// The error is of kind Invalid, or Unsupported when the file asks for what is
// not built yet.
func ParseJob(data []byte) (*Job, error) {
	const op = "perigee.ParseJob"
	if len(data) > MaxJobFile {
		return nil, E(op, Invalid, "the job file has %d bytes; at most %d are allowed", len(data), MaxJobFile)
	}
	root, err := parseTree(data)
	if err != nil {
		return nil, E(op, Invalid, err)
	}
	job := &Job{}
	d := &treeDecoder{budget: maxNodes}
	d.decode(root, reflect.ValueOf(job).Elem(), "")
	if err := d.err(op); err != nil {
		return nil, err
	}
	return job, nil
}

// maxNodes bounds the nodes visited, so that aliases to aliases cost nothing.
const maxNodes = 100_000

// parseTree reads YAML or JSON into a tree of nodes that know their lines. JSON
// goes through encoding/json, for YAML reads some of its strings differently.
func parseTree(data []byte) (root *yaml.Node, err error) {
	if !utf8.Valid(data) {
		return nil, errors.New("the job file is not UTF-8 text")
	}
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, errors.New("the job file is empty; it needs at least wasm: {module: FILE.wasm}")
	}
	if bytes.TrimSpace(data)[0] == '{' && json.Valid(data) {
		return jsonTree(data)
	}
	// The YAML library is no longer maintained, and its parser has panicked on
	// malformed text before: a job file must not be able to stop a node.
	defer func() {
		if r := recover(); r != nil {
			root, err = nil, errors.New("the job file is not valid YAML")
		}
	}()
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, more yaml.Node
	if err := dec.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, errors.New("the job file is empty; it needs at least wasm: {module: FILE.wasm}")
		}
		return nil, fmt.Errorf("the job file is not valid YAML: %s", strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if err := dec.Decode(&more); !errors.Is(err, io.EOF) {
		return nil, errors.New("the job file holds more than one document; give each job a file of its own")
	}
	if len(doc.Content) != 1 {
		return nil, errors.New("the job file is empty; it needs at least wasm: {module: FILE.wasm}")
	}
	return doc.Content[0], nil
}

// jsonTree reads valid JSON into the nodes that YAML would give.
func jsonTree(data []byte) (*yaml.Node, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	line, counted := 1, int64(0)
	var value func(depth int) (*yaml.Node, error)
	value = func(depth int) (*yaml.Node, error) {
		t, err := dec.Token()
		if err != nil {
			return nil, err
		}
		if depth > 32 {
			return nil, errors.New("the job file is nested too deeply")
		}
		line += bytes.Count(data[counted:dec.InputOffset()], []byte("\n"))
		counted = dec.InputOffset()
		n := &yaml.Node{Kind: yaml.ScalarNode, Line: line}
		switch t := t.(type) {
		case json.Delim:
			n.Kind = yaml.MappingNode
			if t == '[' {
				n.Kind = yaml.SequenceNode
			}
			for dec.More() {
				child, err := value(depth + 1)
				if err != nil {
					return nil, err
				}
				n.Content = append(n.Content, child)
			}
			_, err = dec.Token()
		case string:
			n.Tag, n.Value, n.Style = "!!str", t, yaml.DoubleQuotedStyle
		case json.Number:
			n.Tag, n.Value = "!!float", t.String()
			if _, err := strconv.ParseInt(n.Value, 10, 64); err == nil {
				n.Tag = "!!int"
			}
		case bool:
			n.Tag, n.Value = "!!bool", strconv.FormatBool(t)
		case nil:
			n.Tag, n.Value = "!!null", "null"
		}
		return n, err
	}
	return value(0)
}

// treeDecoder fills a Job from nodes, after the yaml tags of its fields.
type treeDecoder struct {
	checker
	budget int
}

// laterKeys are keys of the design whose rooms are not built yet. They may
// stand in a job file as long as they ask for nothing.
var laterKeys = map[string]string{
	"container":             "containers are not built yet; give the program as wasm: {module: FILE.wasm}",
	"resources.gpu":         "GPUs are not built yet",
	"placement.attested_by": "attestations are not built yet",
}

var (
	sizeType     = reflect.TypeFor[Size]()
	fuelType     = reflect.TypeFor[Fuel]()
	durationType = reflect.TypeFor[Duration]()
	verifyType   = reflect.TypeFor[Verify]()
)

func (d *treeDecoder) at(n *yaml.Node, format string, args ...any) {
	d.fail("line %d: %s", n.Line, fmt.Sprintf(format, args...))
}

// wrong reports a value of a wrong type.
func (d *treeDecoder) wrong(n *yaml.Node, where, expected, example string) {
	d.at(n, "%s is %s where %s is expected, such as %s: %s", orRoot(where), found(n), expected, lastKey(where), example)
}

// decode sets v from n; where names v for messages, as in "resources.memory".
func (d *treeDecoder) decode(n *yaml.Node, v reflect.Value, where string) {
	if d.budget--; d.budget < 0 {
		if d.budget == -1 {
			d.at(n, "the job file holds more than %d values, aliases counted each time", maxNodes)
		}
		return
	}
	if n.Kind == yaml.AliasNode && n.Alias != nil {
		n = n.Alias
	}
	null := n.Kind == yaml.ScalarNode && n.Tag == "!!null"
	if null && where != "" && v.Kind() != reflect.String {
		return // "inputs:" with nothing after it asks for nothing
	}
	switch v.Type() {
	case sizeType:
		decodeUnit(d, n, v, where, "a size", "512MiB", ParseSize)
		return
	case fuelType:
		decodeUnit(d, n, v, where, "an amount of fuel", "50e9", ParseFuel)
		return
	case durationType:
		decodeUnit(d, n, v, where, "a duration", "10m", ParseDuration)
		return
	case verifyType:
		if n.Kind == yaml.ScalarNode { // the short form of the command line
			verify, err := ParseVerify(n.Value)
			if err != nil {
				d.at(n, "%s", err)
			}
			v.Set(reflect.ValueOf(verify))
			return
		}
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		d.decode(n, v.Elem(), where)
	case reflect.Struct:
		d.structure(n, v, where)
	case reflect.Map:
		d.mapping(n, v, where)
	case reflect.Slice:
		d.list(n, v, where)
	default:
		d.scalar(n, v, where)
	}
}

func (d *treeDecoder) structure(n *yaml.Node, v reflect.Value, where string) {
	if n.Kind != yaml.MappingNode {
		d.at(n, "%s is %s where keys and values are expected, such as %s", orRoot(where), found(n), structExample(v.Type(), where))
		return
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content) && len(d.faults) < maxFaults && d.budget > 0; i += 2 {
		k, val := n.Content[i], n.Content[i+1]
		d.budget--
		field, ok := fieldOf(v, k.Value)
		full := k.Value
		if where != "" {
			full = where + "." + k.Value
		}
		why, isLater := laterKeys[unindexed(full)]
		switch {
		case k.Kind != yaml.ScalarNode:
			d.at(k, "%s has %s as a key where a name is expected", orRoot(where), found(k))
		case seen[k.Value] != 0:
			d.at(k, "key %s%s stands twice; the first is in line %d", quote(k.Value), inside(where), seen[k.Value])
		case isLater:
			if !d.empty(val) {
				d.later("line %d: %s: %s", k.Line, full, why)
			}
		case !ok:
			d.at(k, "unknown key %s%s%s", quote(k.Value), inside(where), suggestion(v.Type(), where, k.Value))
		default:
			d.decode(val, field, full)
		}
		seen[k.Value] = k.Line
	}
}

// empty reports whether a value asks for nothing.
func (d *treeDecoder) empty(n *yaml.Node) bool {
	if d.budget--; d.budget < 0 {
		return false
	}
	switch n.Kind {
	case yaml.ScalarNode:
		return n.Tag == "!!null" || n.Value == "" || n.Value == "0" || n.Tag == "!!bool" && n.Value == "false"
	case yaml.SequenceNode:
		return len(n.Content) == 0
	case yaml.MappingNode:
		for i := 1; i < len(n.Content); i += 2 {
			if !d.empty(n.Content[i]) {
				return false
			}
		}
		return true
	}
	return false
}

// mapping decodes free names to texts: an environment.
func (d *treeDecoder) mapping(n *yaml.Node, v reflect.Value, where string) {
	if n.Kind != yaml.MappingNode {
		d.wrong(n, where, "a mapping of names to texts", "{LANG: C}")
		return
	}
	m := map[string]string{}
	for i := 0; i+1 < len(n.Content) && len(d.faults) < maxFaults && d.budget > 0; i += 2 {
		k, val := n.Content[i], n.Content[i+1]
		d.budget--
		if k.Kind != yaml.ScalarNode {
			d.at(k, "%s has %s as a name where text is expected", where, found(k))
			continue
		}
		if _, twice := m[k.Value]; twice {
			d.at(k, "%s stands twice%s", quote(k.Value), inside(where))
			continue
		}
		var text string
		d.text(val, &text, where+"."+k.Value)
		m[k.Value] = text
	}
	v.Set(reflect.ValueOf(m))
}

func (d *treeDecoder) list(n *yaml.Node, v reflect.Value, where string) {
	if n.Kind != yaml.SequenceNode {
		example := "[…]"
		switch {
		case n.Kind == yaml.ScalarNode && v.Type().Elem().Kind() == reflect.String:
			example = "[" + n.Value + "]"
		case v.Type().Elem().Kind() == reflect.Struct:
			example = "[" + structExample(v.Type().Elem(), "") + "]"
		}
		d.wrong(n, where, "a list", example)
		return
	}
	out := reflect.MakeSlice(v.Type(), 0, min(len(n.Content), 1024))
	for i, child := range n.Content {
		if len(d.faults) >= maxFaults || d.budget <= 0 {
			break
		}
		e := reflect.New(v.Type().Elem()).Elem()
		name := fmt.Sprintf("%s[%d]", where, i)
		if e.Kind() == reflect.String && lastKey(where) == "args" {
			d.text(child, e.Addr().Interface().(*string), name)
		} else {
			d.decode(child, e, name)
		}
		out = reflect.Append(out, e)
	}
	v.Set(out)
}

// text decodes any scalar as it is written: an argument 3 is the text "3".
func (d *treeDecoder) text(n *yaml.Node, into *string, where string) {
	d.budget--
	if n.Kind == yaml.AliasNode && n.Alias != nil {
		n = n.Alias
	}
	if n.Kind != yaml.ScalarNode || n.Tag == "!!binary" {
		d.at(n, "%s is %s where text is expected", where, found(n))
		return
	}
	if n.Tag != "!!null" {
		*into = n.Value
	}
}

func (d *treeDecoder) scalar(n *yaml.Node, v reflect.Value, where string) {
	value, scalar := n.Value, n.Kind == yaml.ScalarNode
	number := strings.ReplaceAll(value, "_", "")
	switch v.Kind() {
	case reflect.String:
		if !scalar || n.Tag != "!!str" {
			d.wrong(n, where, "text", textExample(n))
			return
		}
		v.SetString(value)
	case reflect.Int:
		i, err := strconv.ParseInt(number, 10, 32)
		if !scalar || n.Tag != "!!int" || err != nil {
			d.wrong(n, where, "a whole number", "2")
			return
		}
		v.SetInt(i)
	case reflect.Float64:
		f, err := strconv.ParseFloat(number, 64)
		if !scalar || n.Tag != "!!int" && n.Tag != "!!float" || err != nil || math.IsInf(f, 0) || math.IsNaN(f) {
			d.wrong(n, where, "a number", "2.5")
			return
		}
		v.SetFloat(f)
	case reflect.Bool:
		if !scalar || n.Tag != "!!bool" {
			d.wrong(n, where, "true or false", "true")
			return
		}
		v.SetBool(strings.EqualFold(value, "true"))
	default:
		d.at(n, "%s cannot be read", orRoot(where))
	}
}

func decodeUnit[T any](d *treeDecoder, n *yaml.Node, v reflect.Value, where, expected, example string, parse func(string) (T, error)) {
	if n.Kind != yaml.ScalarNode || n.Tag == "!!bool" {
		d.wrong(n, where, expected, example)
		return
	}
	value, err := parse(n.Value)
	if err != nil {
		d.at(n, "%s: %s", where, err)
		return
	}
	v.Set(reflect.ValueOf(value))
}

// fieldOf returns the field of the struct v that a key names.
func fieldOf(v reflect.Value, key string) (reflect.Value, bool) {
	for i := range v.NumField() {
		if name := v.Type().Field(i).Tag.Get("yaml"); name == key && key != "" {
			return v.Field(i), true
		}
	}
	return reflect.Value{}, false
}

// suggestion names the valid key nearest to a misspelt one, or all of them.
func suggestion(t reflect.Type, where, key string) string {
	var names []string
	for i := range t.NumField() {
		names = append(names, t.Field(i).Tag.Get("yaml"))
	}
	for full := range laterKeys {
		if parent, name, nested := strings.Cut(full, "."); nested && parent == unindexed(where) {
			names = append(names, name)
		} else if !nested && where == "" {
			names = append(names, full)
		}
	}
	best, distance := "", len(key)/2+1
	for _, name := range names {
		if n := editDistance(strings.ToLower(key), name); n < distance || n == distance && best != "" && name < best {
			best, distance = name, n
		}
	}
	if best != "" {
		return fmt.Sprintf("; did you mean %q?", best)
	}
	return "; the keys here are " + strings.Join(fieldNames(t), ", ")
}

func fieldNames(t reflect.Type) (names []string) {
	for i := range t.NumField() {
		names = append(names, t.Field(i).Tag.Get("yaml"))
	}
	return names
}

// editDistance counts the single-letter changes, swaps of neighbours included,
// from a to b. Keys longer than 64 bytes are like nothing.
func editDistance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			change := 1
			if a[i-1] == b[j-1] {
				change = 0
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}

// found says what a node is, for a message.
func found(n *yaml.Node) string {
	if n.Kind == yaml.AliasNode && n.Alias != nil {
		n = n.Alias
	}
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping of keys"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias"
	}
	switch n.Tag {
	case "!!null":
		return "empty"
	case "!!int", "!!float":
		return "the number " + clip(n.Value)
	case "!!bool":
		return "the truth value " + clip(n.Value)
	case "!!timestamp":
		return "the date " + clip(n.Value)
	}
	return "the text " + quote(n.Value)
}

func textExample(n *yaml.Node) string {
	if n.Kind == yaml.ScalarNode && n.Tag != "!!null" {
		return quote(n.Value)
	}
	return `"text"`
}

// structExample shows a struct's first keys with values.
func structExample(t reflect.Type, where string) string {
	example := "{…}"
	switch t {
	case reflect.TypeFor[Job](), reflect.TypeFor[Wasm]():
		example = "{module: FILE.wasm}"
	case reflect.TypeFor[Input]():
		example = "{source: DIR, mount: /in}"
	case reflect.TypeFor[Resources]():
		example = "{memory: 512MiB}"
	case reflect.TypeFor[Placement]():
		example = "{regions: [EU]}"
	case reflect.TypeFor[Price]():
		example = "{max_total: 5.0}"
	case verifyType:
		example = "{mode: audit}"
	}
	if where == "" && t == reflect.TypeFor[Job]() {
		return "wasm: " + example
	}
	if where == "" {
		return example
	}
	return lastKey(where) + ": " + example
}

func clip(s string) string {
	if len(s) > 64 {
		return s[:64] + "…"
	}
	return s
}

func orRoot(where string) string {
	if where == "" {
		return "the job file"
	}
	return where
}

func inside(where string) string {
	if where == "" {
		return ""
	}
	return " in " + where
}

// lastKey returns the last key of a dotted name, without its index.
func lastKey(where string) string {
	where = unindexed(where)
	return where[strings.LastIndexByte(where, '.')+1:]
}

// unindexed cuts the list index that ends a dotted name.
func unindexed(where string) string {
	if i := strings.IndexByte(where, '['); i >= 0 && strings.HasSuffix(where, "]") {
		return where[:i]
	}
	return where
}
