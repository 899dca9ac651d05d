package wasm

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/perigee-network/perigee"
)

// lockPoll is how often a lock that another process holds is tried again.
const lockPoll = 20 * time.Millisecond

// lock makes sure that of all engines that share the directory one compiles a
// module at a time: the others find it compiled. The lock is the kernel's, so
// that it ends with a process that dies. The file stays, for who waits on it.
func (c *cache) lock(ctx context.Context, module perigee.CID) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(c.dir, module.String()+".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, perigee.E("wasm.Check", perigee.Unavailable, err, "cannot write to the module cache")
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			_ = f.Close()
			return nil, perigee.E("wasm.Check", perigee.Unavailable, err, "cannot lock the module cache")
		}
		select {
		case <-ctx.Done():
			_ = f.Close()
			return nil, perigee.E("wasm.Check", contextKind(ctx), ctx.Err(), "stopped while waiting for another process that compiles the module")
		case <-time.After(lockPoll):
		}
	}
}
