package wasm

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/perigee-network/perigee/wasm/wasmtest"
	"github.com/stretchr/testify/require"
)

// Besides a worker, the test binary can play these parts.
const (
	envPart    = "PERIGEE_WASM_TEST_PART"
	partProbe  = "probe" // confines itself and then tries what it must not
	partNode   = "node"  // opens an engine, runs an endless guest and says its workers' pids
	envTestDir = "PERIGEE_WASM_TEST_DIR"
)

func playPart(part string) int {
	switch part {
	case partProbe:
		probe(os.Getenv(envTestDir))
	case partNode:
		playNode(os.Getenv(envTestDir))
	}
	return 0
}

// probe prints what a confined process can still do.
func probe(cache string) {
	ready := confine(cache, purposeRun)
	fmt.Println("sandbox:", ready.Sandbox, "missing:", ready.Missing)
	try := func(what string, err error) {
		if err == nil {
			fmt.Println(what, "ALLOWED")
		} else {
			fmt.Println(what, "refused")
		}
	}
	_, err := os.ReadFile("/etc/passwd")
	try("read /etc/passwd", err)
	_, err = os.ReadDir("/")
	try("list /", err)
	try("write cache", os.WriteFile(filepath.Join(cache, "x"), nil, 0o600))
	try("remove from cache", os.Remove(filepath.Join(cache, "module")))
	try("write /tmp", os.WriteFile(filepath.Join(os.TempDir(), "perigee-probe"), nil, 0o600))
	try("exec", exec.Command("/bin/true").Run())
	_, err = net.Dial("tcp", "127.0.0.1:1")
	try("socket", err)
	try("kill parent", syscall.Kill(os.Getppid(), 0))
	_, _, errno := syscall.Syscall(syscall.SYS_PTRACE, 16, uintptr(os.Getppid()), 0)
	try("ptrace", errnoError(errno))
	try("mount", syscall.Mount("none", "/mnt", "tmpfs", 0, ""))
	try("unshare", syscall.Unshare(syscall.CLONE_NEWUSER))
	_, err = os.ReadFile(filepath.Join(cache, "module"))
	try("read cache", err)
	done := make(chan bool) // threads still work
	for range 20 {
		go func() {
			runtime.LockOSThread()
			done <- true
		}()
	}
	for range 20 {
		<-done
	}
	fmt.Println("threads ok")
}

func errnoError(e syscall.Errno) error {
	if e == 0 {
		return nil
	}
	return e
}

func TestSandbox(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux confines workers")
	}
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "module"), []byte("x"), 0o600))
	cmd := exec.Command(os.Args[0])
	cmd.Env = []string{envPart + "=" + partProbe, envTestDir + "=" + dir}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	first, rest, _ := strings.Cut(string(out), "\n")
	if !strings.HasSuffix(first, "missing: ") {
		t.Skip("this kernel cannot confine workers: " + first)
	}
	require.Equal(t, "sandbox: landlock, seccomp, rlimits, separate process missing: ", first)
	require.Equal(t, `read /etc/passwd refused
list / refused
write cache refused
remove from cache refused
write /tmp refused
exec refused
socket refused
kill parent refused
ptrace refused
mount refused
unshare refused
read cache ALLOWED
threads ok
`, rest)
}

// playNode plays a node until it is killed.
func playNode(dir string) {
	e, err := New(Config{CacheDir: dir, Workers: 1})
	if err != nil {
		fmt.Println("error:", err)
		return
	}
	binary, err := os.ReadFile(filepath.Join(dir, "evil.wasm"))
	if err != nil {
		fmt.Println("error:", err)
		return
	}
	task := taskOfBytes(binary, "loop")
	if err := e.Check(context.Background(), task.Module, task.Load); err != nil {
		fmt.Println("error:", err)
		return
	}
	go e.Run(context.Background(), task)
	time.Sleep(200 * time.Millisecond)
	fmt.Println(e.Pids()[0])
	select {}
}

// TestOrphans kills a node whose worker is busy with an endless guest.
func TestOrphans(t *testing.T) {
	dir := t.TempDir()
	binary, err := os.ReadFile(wasmtest.C(t, "evil"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "evil.wasm"), binary, 0o600))
	cmd := exec.Command(os.Args[0])
	cmd.Env = []string{envPart + "=" + partNode, envTestDir + "=" + dir}
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	cmd.Stderr = os.Stderr
	require.NoError(t, cmd.Start())
	defer cmd.Wait()
	defer cmd.Process.Kill()
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	require.NoError(t, err, line)
	require.NoError(t, syscall.Kill(pid, 0), "the worker lives while its node does")
	require.NoError(t, cmd.Process.Kill())
	require.Eventually(t, func() bool { return gone(pid) }, 10*time.Second, 20*time.Millisecond)
}

// gone reports whether a process has ended, even if nobody has reaped it.
func gone(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return true
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && strings.Contains(string(stat), ") Z ")
}
