package wasm

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The environment of a worker process: nothing but these.
const (
	envWorker = "PERIGEE_WASM_WORKER" // what the process is for: "run" or "compile"
	envCache  = "PERIGEE_WASM_CACHE"  // the directory of compiled modules
)

const startTimeout = 30 * time.Second

// process is a worker process as its parent sees it. One goroutine uses it at
// a time; kill may be called from any.
type process struct {
	pid    int
	cmd    *exec.Cmd
	conn   *net.UnixConn
	frames frameReader
	life   *os.File      // closing it, or dying, ends the worker
	exited chan struct{} // closed after the process was reaped
	tail   *logTail
	ready  readyMessage
	runs   int
	out    []byte // buffer of outgoing frames
}

// launch starts a worker process for one purpose.
func launch(command []string, purpose, cacheDir string, log *slog.Logger) (*process, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|sockCloexec, 0)
	if err != nil {
		return nil, fmt.Errorf("socketpair: %w", err)
	}
	closeOnExec(fds[0], fds[1])
	ours, theirs := os.NewFile(uintptr(fds[0]), "worker"), os.NewFile(uintptr(fds[1]), "node")
	defer ours.Close() // net.FileConn has its own copy
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, err
	}
	lifeRead, lifeWrite, err := os.Pipe()
	if err != nil {
		conn.Close()
		return nil, err
	}
	defer lifeRead.Close()

	p := &process{conn: conn.(*net.UnixConn), life: lifeWrite, exited: make(chan struct{}), tail: &logTail{log: log}}
	p.frames.r = p.conn
	p.cmd = exec.Command(command[0], command[1:]...)
	p.cmd.Env = []string{envWorker + "=" + purpose, envCache + "=" + cacheDir, "GOTRACEBACK=single"}
	if purpose == purposeRun {
		p.cmd.Env = append(p.cmd.Env, "GOMAXPROCS=3") // the guest, its read-ahead, the collector
	}
	p.cmd.Dir = "/"
	p.cmd.Stdin, p.cmd.Stderr = lifeRead, p.tail
	p.cmd.ExtraFiles = []*os.File{theirs}
	p.cmd.SysProcAttr = childAttributes()
	if err := p.cmd.Start(); err != nil {
		conn.Close()
		lifeWrite.Close()
		return nil, err
	}
	p.pid = p.cmd.Process.Pid
	go func() {
		p.cmd.Wait()
		close(p.exited)
	}()
	return p, nil
}

// await waits until the worker has closed its sandbox around itself; if it does
// not, it is killed.
func (p *process) await() error {
	p.conn.SetReadDeadline(time.Now().Add(startTimeout))
	t, payload, err := p.frames.next()
	if err == nil && t != frameReady {
		err = errFrame
	}
	if err == nil {
		err = decodePayload(payload, &p.ready)
	}
	if err != nil {
		p.kill()
		return fmt.Errorf("a worker process (%s) did not start: %s", strings.Join(p.cmd.Args, " "), p.death(err))
	}
	p.conn.SetReadDeadline(time.Time{})
	return nil
}

// send writes one frame, with descriptors beside it.
func (p *process) send(t frameType, v any, files ...*os.File) error {
	payload, err := encMode.Marshal(v)
	if err != nil {
		return err
	}
	if p.out, err = appendFrame(p.out[:0], t, payload); err != nil {
		return err
	}
	if len(files) == 0 {
		_, err = p.conn.Write(p.out)
		return err
	}
	fds := make([]int, len(files))
	for i, f := range files {
		fds[i] = int(f.Fd())
	}
	n, _, err := p.conn.WriteMsgUnix(p.out, unix.UnixRights(fds...), nil)
	runtime.KeepAlive(files)
	if err == nil && n < len(p.out) {
		_, err = p.conn.Write(p.out[n:])
	}
	return err
}

// kill ends the process at once, whatever it is doing.
func (p *process) kill() {
	p.cmd.Process.Kill()
	p.conn.Close()
	p.life.Close()
}

// death says how the process ended, after an error on its socket.
func (p *process) death(cause error) string {
	select {
	case <-p.exited:
	case <-time.After(2 * time.Second):
		return fmt.Sprintf("the worker (pid %d) stopped talking: %v", p.pid, cause)
	}
	msg := fmt.Sprintf("worker (pid %d) ended: %s", p.pid, p.cmd.ProcessState)
	if ws, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		msg = fmt.Sprintf("worker killed by signal %d (%s; pid %d)", ws.Signal(), ws.Signal(), p.pid)
	}
	if last := p.tail.last(); last != "" {
		msg += ": " + last
	}
	return msg
}

// logTail passes a worker's stderr to the node's log by lines, and remembers
// the first lines, which say why it ended.
type logTail struct {
	log  *slog.Logger
	mu   sync.Mutex
	line []byte
	kept string
	n    int
}

const maxLogLine, maxLogLines = 1024, 60

// Write implements io.Writer.
func (t *logTail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for rest := p; len(rest) > 0; {
		line, after, whole := bytes.Cut(rest, []byte{'\n'})
		t.line = append(t.line, line[:min(len(line), maxLogLine-len(t.line))]...)
		rest = after
		if !whole {
			break
		}
		text := strings.TrimSpace(strings.ToValidUTF8(string(t.line), "?"))
		t.line = t.line[:0]
		if text == "" {
			continue
		}
		if t.n < 2 {
			t.kept = strings.TrimPrefix(t.kept+"; "+text, "; ")
		}
		if t.n++; t.n <= maxLogLines {
			t.log.Warn("wasm worker", "stderr", text)
		}
	}
	return len(p), nil
}

func (t *logTail) last() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.kept
}

var _ io.Writer = (*logTail)(nil)
