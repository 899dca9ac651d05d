package main

// tiny is the smallest program worth timing, by hand: 128 bytes of WebAssembly
// that write "hello\n" to standard output through WASI. In text:
//
//	(module
//	  (import "wasi_snapshot_preview1" "fd_write"
//	    (func (param i32 i32 i32 i32) (result i32)))
//	  (memory (export "memory") 1)
//	  (data (i32.const 0) "\08\00\00\00\06\00\00\00hello\n")
//	  (func (export "_start")
//	    (drop (call 0 (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 16)))))
var tiny = []byte("\x00asm\x01\x00\x00\x00" +
	"\x01\x0c\x02\x60\x04\x7f\x7f\x7f\x7f\x01\x7f\x60\x00\x00" + // types
	"\x02\x23\x01\x16wasi_snapshot_preview1\x08fd_write\x00\x00" + // import
	"\x03\x02\x01\x01" + // one function
	"\x05\x03\x01\x00\x01" + // one page of memory
	"\x07\x13\x02\x06memory\x02\x00\x06_start\x00\x01" + // exports
	"\x0a\x0f\x01\x0d\x00\x41\x01\x41\x00\x41\x01\x41\x10\x10\x00\x1a\x0b" + // code
	"\x0b\x14\x01\x00\x41\x00\x0b\x0e\x08\x00\x00\x00\x06\x00\x00\x00hello\n") // data
