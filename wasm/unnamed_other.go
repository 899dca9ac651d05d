//go:build unix && !linux

package wasm

import "os"

// unnamedFile makes a file in dir that vanishes with its last descriptor.
func unnamedFile(dir string) (*os.File, error) { return unlinkedFile(dir) }
