package wasm

import (
	"os"

	"golang.org/x/sys/unix"
)

// unnamedFile makes a file in dir that vanishes with its last descriptor.
func unnamedFile(dir string) (*os.File, error) {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return unlinkedFile(dir) // not every file system has O_TMPFILE
	}
	return os.NewFile(uintptr(fd), dir+"/(unnamed)"), nil
}
