package e2e

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// buildKubo builds the pinned Kubo, unless that is done, and returns its binary.
var buildKubo = sync.OnceValues(func() (string, error) {
	out, err := exec.Command("../tools/kubo/build.sh").CombinedOutput()
	if err != nil {
		return string(out), err
	}
	return filepath.Abs("../.cache/kubo/ipfs")
})

// kubo is a real Kubo with a repository of its own. It reaches nothing but
// loopback: no bootstrap peers, no local discovery, no routing.
type kubo struct {
	t      *testing.T
	binary string
	repo   string
}

// newKubo makes a repository with one of Kubo's profiles for new data.
func newKubo(t *testing.T, profile string) *kubo {
	t.Helper()
	if testing.Short() {
		t.Skip("needs a build of Kubo")
	}
	binary, err := buildKubo()
	require.NoError(t, err, "%s", binary)
	k := &kubo{t: t, binary: binary, repo: filepath.Join(t.TempDir(), "kubo")}
	k.run("init", "--profile=test,"+profile)
	k.run("config", "Routing.Type", "none")
	return k
}

func (k *kubo) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, k.binary, args...)
	cmd.Env = append(os.Environ(), "IPFS_PATH="+k.repo, "IPFS_TELEMETRY=off")
	return cmd
}

// run runs an ipfs command, which must succeed, and returns its output without
// the last newline.
func (k *kubo) run(args ...string) string {
	k.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := k.command(ctx, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	require.NoError(k.t, cmd.Run(), "ipfs %s\n%s", strings.Join(args, " "), &stderr)
	return strings.TrimSuffix(stdout.String(), "\n")
}

// serve starts the daemon, waits until it answers, and stops it when the test
// ends. It returns the daemon's address with its peer ID.
func (k *kubo) serve() string {
	k.t.Helper()
	cmd := k.command(context.Background(), "daemon")
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	require.NoError(k.t, cmd.Start())
	k.t.Cleanup(func() {
		cmd.Process.Signal(os.Interrupt)
		stop := time.AfterFunc(20*time.Second, func() { cmd.Process.Kill() })
		cmd.Wait()
		stop.Stop()
		if k.t.Failed() {
			k.t.Logf("Kubo's log:\n%s", &log)
		}
	})
	api := filepath.Join(k.repo, "api")
	deadline := time.Now().Add(time.Minute)
	for {
		if _, err := os.Stat(api); err == nil {
			break
		}
		require.True(k.t, time.Now().Before(deadline), "Kubo's daemon does not start")
		time.Sleep(50 * time.Millisecond)
	}
	for _, addr := range strings.Fields(k.run("id", "-f", "<addrs>")) {
		if strings.HasPrefix(addr, "/ip4/127.0.0.1/tcp/") {
			return addr
		}
	}
	k.t.Fatal("Kubo listens on no TCP port of loopback")
	return ""
}
