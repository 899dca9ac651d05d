package wasm

import "errors"

// The engine refuses memory beyond the limit by answering memory.grow with -1,
// and tells nobody. So that an error can name the memory limit when a program
// fails for it, compilation first rewrites the module: each memory.grow becomes
// a call of an added function that grows the memory, and when refused stores how
// many pages there would have been in an added global, which is exported as
// refusedGlobal. Both are added at the ends of their index spaces, so nothing
// else in the module changes. Whatever this rewriting does not understand is
// compiled as it is.

const refusedGlobal = "perigee.refused-pages"

// Sections of a module, after https://webassembly.github.io/spec/core/binary/modules.html.
const (
	sectionCustom   = 0
	sectionType     = 1
	sectionImport   = 2
	sectionFunction = 3
	sectionMemory   = 5
	sectionGlobal   = 6
	sectionExport   = 7
	sectionCode     = 10
	sectionTag      = 13
)

var errNotRewritten = errors.New("not a module that can be rewritten")

// section is a section's number and content.
type section struct {
	id   byte
	body []byte
}

// rewriteGrow returns the module with its memory.grow instructions rewritten.
func rewriteGrow(binary []byte) (_ []byte, err error) {
	r := &wasmReader{b: binary}
	if string(r.bytes(8)) != "\x00asm\x01\x00\x00\x00" {
		return nil, errNotRewritten
	}
	var sections []section
	for len(r.b) > 0 && !r.bad {
		id := r.byte()
		body := r.bytes(int(r.u32()))
		if id == sectionCustom && !isNames(body) {
			continue // debug information whose offsets no longer hold
		}
		sections = append(sections, section{id, body})
	}
	if r.bad {
		return nil, errNotRewritten
	}
	w := &growRewriter{sections: sections}
	return w.rewrite()
}

func isNames(custom []byte) bool {
	r := &wasmReader{b: custom}
	return string(r.bytes(int(r.u32()))) == "name"
}

// growRewriter rewrites one module.
type growRewriter struct {
	sections       []section
	importedFuncs  uint32
	importedGlobal uint32
	memories       uint32
}

// find returns a section, nil if the module has none of that number.
func (w *growRewriter) find(id byte) *section {
	for i := range w.sections {
		if w.sections[i].id == id {
			return &w.sections[i]
		}
	}
	return nil
}

func (w *growRewriter) rewrite() ([]byte, error) {
	types, funcs, code, exports := w.find(sectionType), w.find(sectionFunction), w.find(sectionCode), w.find(sectionExport)
	if types == nil || funcs == nil || code == nil || exports == nil {
		return nil, errNotRewritten
	}
	if err := w.readImports(); err != nil {
		return nil, err
	}
	if m := w.find(sectionMemory); m != nil {
		w.memories += (&wasmReader{b: m.body}).u32()
	}
	if w.memories != 1 {
		return nil, errNotRewritten
	}
	typeCount, rest := count(types.body)
	funcCount, _ := count(funcs.body)
	if err := onlyFunctions(typeCount, rest); err != nil {
		return nil, err
	}
	function := w.importedFuncs + funcCount
	global := w.importedGlobal
	if g := w.find(sectionGlobal); g != nil {
		n, _ := count(g.body)
		global += n
	}
	body, found, err := rewriteCode(code.body, function, global)
	if err != nil || !found {
		return nil, errors.Join(err, errNotRewritten)
	}
	code.body = body
	types.body = added(types.body, 0x60, 1, 0x7f, 1, 0x7f) // i32 → i32
	funcs.body = added(funcs.body, appendU32(nil, typeCount)...)
	export := append(appendU32(nil, uint32(len(refusedGlobal))), refusedGlobal...)
	exports.body = added(exports.body, appendU32(append(export, 3), global)...)
	w.addGlobal()

	out := []byte("\x00asm\x01\x00\x00\x00")
	for _, s := range w.sections {
		out = appendU32(append(out, s.id), uint32(len(s.body)))
		out = append(out, s.body...)
	}
	return out, nil
}

// addGlobal adds a mutable i32 that begins as 0, in a new section if need be.
func (w *growRewriter) addGlobal() {
	entry := []byte{0x7f, 1, 0x41, 0, 0x0b}
	if g := w.find(sectionGlobal); g != nil {
		g.body = added(g.body, entry...)
		return
	}
	at := 0
	for i, s := range w.sections {
		if (s.id != sectionCustom && s.id <= sectionMemory) || s.id == sectionTag {
			at = i + 1
		}
	}
	s := append([]section{}, w.sections[:at]...)
	s = append(s, section{sectionGlobal, append([]byte{1}, entry...)})
	w.sections = append(s, w.sections[at:]...)
}

// readImports counts what the module imports.
func (w *growRewriter) readImports() error {
	s := w.find(sectionImport)
	if s == nil {
		return nil
	}
	r := &wasmReader{b: s.body}
	for n := r.u32(); n > 0 && !r.bad; n-- {
		r.bytes(int(r.u32()))
		r.bytes(int(r.u32()))
		switch r.byte() {
		case 0:
			r.u32()
			w.importedFuncs++
		case 3:
			r.byte()
			r.byte()
			w.importedGlobal++
		default:
			return errNotRewritten // nothing else can be imported here
		}
	}
	if r.bad {
		return errNotRewritten
	}
	return nil
}

// onlyFunctions checks that each entry of the type section is one function type.
func onlyFunctions(n uint32, b []byte) error {
	r := &wasmReader{b: b}
	for ; n > 0 && !r.bad; n-- {
		if r.byte() != 0x60 {
			return errNotRewritten
		}
		for range 2 {
			for k := r.u32(); k > 0 && !r.bad; k-- {
				r.byte()
			}
		}
	}
	if r.bad || len(r.b) > 0 {
		return errNotRewritten
	}
	return nil
}

// count splits a vector into its length and the rest.
func count(body []byte) (uint32, []byte) {
	r := &wasmReader{b: body}
	n := r.u32()
	return n, r.b
}

// added returns a vector with one more entry.
func added(body []byte, entry ...byte) []byte {
	n, rest := count(body)
	out := appendU32(nil, n+1)
	out = append(out, rest...)
	return append(out, entry...)
}

// rewriteCode rewrites the bodies of all functions and adds the new one, whose
// index is function.
func rewriteCode(code []byte, function, global uint32) (out []byte, found bool, err error) {
	r := &wasmReader{b: code}
	n := r.u32()
	out = appendU32(make([]byte, 0, len(code)+len(code)/64), n+1)
	var body []byte
	for ; n > 0; n-- {
		in := &wasmReader{b: r.bytes(int(r.u32()))}
		if r.bad {
			return nil, false, errNotRewritten
		}
		body = body[:0]
		whole := in.b
		for k := in.u32(); k > 0 && !in.bad; k-- { // locals
			in.u32()
			in.byte()
		}
		copied := 0 // of whole
		for len(in.b) > 0 && !in.bad {
			at := len(whole) - len(in.b)
			if !in.instruction() {
				continue
			}
			found = true
			body = append(body, whole[copied:at]...)
			body = appendU32(append(body, 0x10), function) // call
			copied = len(whole) - len(in.b)
		}
		if in.bad {
			return nil, false, errNotRewritten
		}
		body = append(body, whole[copied:]...)
		out = appendU32(out, uint32(len(body)))
		out = append(out, body...)
	}
	if len(r.b) > 0 {
		return nil, false, errNotRewritten
	}
	grow := []byte{1, 1, 0x7f, // one more local
		0x20, 0, 0x40, 0, 0x22, 1, // local.get 0, memory.grow, local.tee 1
		0x41, 0x7f, 0x46, 0x04, 0x40, // i32.const -1, i32.eq, if
		0x20, 0, 0x41, 0x80, 0x80, 0x04, 0x4b, 0x04, 0x7f, // local.get 0, i32.const 65536, i32.gt_u, if (result i32)
		0x41, 0x80, 0x80, 0x08, 0x05, // i32.const 131072: more than there can be, else
		0x3f, 0, 0x20, 0, 0x6a, 0x0b, // memory.size, local.get 0, i32.add, end
		0x24} // global.set
	grow = appendU32(grow, global)
	grow = append(grow, 0x0b, 0x20, 1, 0x0b) // end, local.get 1, end
	out = appendU32(out, uint32(len(grow)))
	return append(out, grow...), found, nil
}

// wasmReader reads a module's binary; bad is set when that is not possible.
type wasmReader struct {
	b   []byte
	bad bool
}

func (r *wasmReader) bytes(n int) []byte {
	if n < 0 || n > len(r.b) {
		r.bad, r.b = true, nil
		return nil
	}
	b := r.b[:n:n]
	r.b = r.b[n:]
	return b
}

func (r *wasmReader) byte() byte {
	if b := r.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *wasmReader) u32() uint32 {
	var v uint64
	for shift := 0; shift < 35; shift += 7 {
		b := r.byte()
		v |= uint64(b&0x7f) << shift
		if b&0x80 == 0 {
			if v > 1<<32-1 {
				r.bad = true
			}
			return uint32(v)
		}
	}
	r.bad = true
	return 0
}

// leb skips a number of any width.
func (r *wasmReader) leb() {
	for range 10 {
		if r.byte()&0x80 == 0 {
			return
		}
	}
	r.bad = true
}

func appendU32(b []byte, v uint32) []byte {
	for v >= 0x80 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v))
}

// instruction skips one instruction and reports whether it was memory.grow.
func (r *wasmReader) instruction() (grow bool) {
	switch op := r.byte(); {
	case op <= 0x01, op == 0x05, op == 0x0b, op == 0x0f, op == 0x1a, op == 0x1b, op >= 0x45 && op <= 0xc4, op == 0xd1:
	case op >= 0x02 && op <= 0x04, op == 0x0c, op == 0x0d, op == 0x10, op == 0x12, op >= 0x20 && op <= 0x26,
		op == 0x41, op == 0x42, op == 0xd0, op == 0xd2:
		r.leb()
	case op == 0x0e: // br_table
		for n := uint64(r.u32()) + 1; n > 0 && !r.bad; n-- {
			r.leb()
		}
	case op == 0x11, op == 0x13: // call_indirect
		r.leb()
		r.leb()
	case op == 0x1c: // select with types
		for n := r.u32(); n > 0 && !r.bad; n-- {
			r.byte()
		}
	case op >= 0x28 && op <= 0x3e:
		r.memarg()
	case op == 0x3f, op == 0x40:
		r.bad = r.byte() != 0 || r.bad // the memory is always number 0
		return op == 0x40 && !r.bad
	case op == 0x43:
		r.bytes(4)
	case op == 0x44:
		r.bytes(8)
	case op == 0xfc:
		r.bulk(r.u32())
	case op == 0xfd:
		r.vector(r.u32())
	default: // exceptions, references to functions, atomics
		r.bad = true
	}
	return false
}

// memarg skips the alignment and offset of a memory access.
func (r *wasmReader) memarg() {
	if r.u32() >= 64 { // another memory's number would follow
		r.bad = true
	}
	r.leb()
}

// bulk skips what follows the prefix 0xfc and op.
func (r *wasmReader) bulk(op uint32) {
	switch {
	case op <= 7, op >= 19 && op <= 22:
	case op == 9, op == 11, op == 13, op >= 15 && op <= 17:
		r.leb()
	case op == 8, op == 10, op == 12, op == 14:
		r.leb()
		r.leb()
	default:
		r.bad = true
	}
}

// vector skips what follows the prefix 0xfd and op.
func (r *wasmReader) vector(op uint32) {
	switch {
	case op <= 11, op == 92, op == 93:
		r.memarg()
	case op == 12, op == 13: // a constant, a shuffle
		r.bytes(16)
	case op >= 21 && op <= 34: // lanes
		r.byte()
	case op >= 84 && op <= 91:
		r.memarg()
		r.byte()
	case op > 0x113:
		r.bad = true
	}
}
