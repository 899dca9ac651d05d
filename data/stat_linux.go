package data

import "syscall"

// ctimeOf returns the time of the last change of a file's status in Unix
// nanoseconds; unlike the modification time it cannot be set back.
func ctimeOf(st *syscall.Stat_t) int64 { return st.Ctim.Nano() }

// dataSync makes a file's content durable.
func dataSync(fd uintptr) error {
	for {
		if err := syscall.Fdatasync(int(fd)); err != syscall.EINTR {
			return err
		}
	}
}
