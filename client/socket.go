package client

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"github.com/perigee-network/perigee"
)

// maxSocketPath is how long a Unix socket's path may be on every system
// (sockaddr_un.sun_path has 104 bytes on some, 108 on Linux).
const maxSocketPath = 103

// shortSocket returns a path for the socket that fits a socket address, and a
// function to call once it was used. A longer one is reached through an open
// descriptor of its directory, where the system has /proc.
func shortSocket(path string) (string, func(), error) {
	if len(path) <= maxSocketPath {
		return path, func() {}, nil
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return "", nil, err
	}
	short := filepath.Join("/proc/self/fd", strconv.Itoa(int(dir.Fd())), filepath.Base(path))
	if _, err := os.Stat(filepath.Dir(short)); err != nil || len(short) > maxSocketPath {
		_ = dir.Close()
		return "", nil, perigee.E("client", perigee.Invalid, "the path of the socket %s is longer than %d bytes; use a shorter home directory", path, maxSocketPath)
	}
	return short, func() { _ = dir.Close() }, nil
}

// DialSocket connects to a Unix socket, also under a path that is longer than a
// socket's address may be.
func DialSocket(ctx context.Context, path string) (net.Conn, error) {
	short, done, err := shortSocket(path)
	if err != nil {
		return nil, err
	}
	defer done()
	var d net.Dialer
	return d.DialContext(ctx, "unix", short)
}

// ListenSocket listens on a Unix socket that only this user can open. It takes
// the place of a socket that nobody listens on any more, and is Refused when
// somebody does.
func ListenSocket(path string) (net.Listener, error) {
	const op = "client.ListenSocket"
	short, done, err := shortSocket(path)
	if err != nil {
		return nil, err
	}
	if conn, err := net.Dial("unix", short); err == nil {
		_ = conn.Close()
		done()
		return nil, perigee.E(op, perigee.Refused, "another node already listens on %s", path)
	}
	if err := os.Remove(short); err != nil && !os.IsNotExist(err) {
		done()
		return nil, perigee.E(op, perigee.Internal, err, "cannot replace the socket %s", path)
	}
	l, err := net.Listen("unix", short)
	if err != nil {
		done()
		return nil, perigee.E(op, perigee.Internal, err, "cannot listen on %s", path)
	}
	if err := os.Chmod(short, 0o600); err != nil {
		_ = l.Close()
		done()
		return nil, perigee.E(op, perigee.Internal, err, "cannot protect %s", path)
	}
	return &socketListener{Listener: l, done: done}, nil
}

// socketListener keeps the directory open under whose descriptor the listener
// removes its socket when it closes.
type socketListener struct {
	net.Listener
	done func()
}

func (l *socketListener) Close() error {
	err := l.Listener.Close()
	l.done()
	return err
}
