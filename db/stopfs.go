package db

import (
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// stopFS is the file system as pebble sees it: an error in writing the log
// stops the store and never reaches pebble, which could not deal with it. (Its
// log rotation panics while it holds no lock that its caller then releases,
// which the Go runtime answers by ending the process.) Errors on other files
// pass: pebble retries those, or calls Fatalf.
type stopFS struct {
	vfs.FS
	s *store
}

func isLog(name string) bool { return strings.HasSuffix(name, ".log") }

func (f stopFS) wrap(name string, file vfs.File, err error) (vfs.File, error) {
	if !isLog(name) {
		return file, err
	}
	if err != nil {
		f.s.stop(err)
		return nil, err
	}
	return stopFile{file, f.s}, nil
}

func (f stopFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	file, err := f.FS.Create(name, c)
	return f.wrap(name, file, err)
}

func (f stopFS) ReuseForWrite(old, name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	file, err := f.FS.ReuseForWrite(old, name, c)
	return f.wrap(name, file, err)
}

// OpenDir wraps directories too: a new log is not one until its directory is
// synced.
func (f stopFS) OpenDir(name string) (vfs.File, error) {
	file, err := f.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return stopFile{file, f.s}, nil
}

func (f stopFS) Unwrap() vfs.FS { return f.FS }

// stopFile stops the store when it cannot be written.
type stopFile struct {
	vfs.File
	s *store
}

func (f stopFile) check(err error) error {
	if err != nil {
		f.s.stop(err)
	}
	return err
}

func (f stopFile) Write(p []byte) (int, error) {
	n, err := f.File.Write(p)
	return n, f.check(err)
}

func (f stopFile) WriteAt(p []byte, off int64) (int, error) {
	n, err := f.File.WriteAt(p, off)
	return n, f.check(err)
}

func (f stopFile) Sync() error     { return f.check(f.File.Sync()) }
func (f stopFile) SyncData() error { return f.check(f.File.SyncData()) }
func (f stopFile) Close() error    { return f.check(f.File.Close()) }

func (f stopFile) SyncTo(length int64) (bool, error) {
	full, err := f.File.SyncTo(length)
	return full, f.check(err)
}
