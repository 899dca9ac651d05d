package node_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/client"
	"github.com/perigee-network/perigee/node"
	"github.com/perigee-network/perigee/wasm"
)

func TestMain(m *testing.M) {
	if wasm.IsWorker() {
		os.Exit(wasm.WorkerMain())
	}
	os.Exit(m.Run())
}

func TestInitKeepsWhatIsThere(t *testing.T) {
	home := filepath.Join(t.TempDir(), "home")
	made, err := node.Init(home, node.Config{Region: "EU/DE", Provide: node.Provide{CPU: 3, Memory: 1 << 30},
		Peers: []string{"/ip4/127.0.0.1/tcp/1/p2p/12D3KooWMxxxx"}, PSKFile: "swarm.key"})
	require.NoError(t, err)
	require.ElementsMatch(t, []string{"node.key", "account.key", "token", "config.yaml"}, made)
	peer, account, err := node.Identity(home)
	require.NoError(t, err)
	info, err := os.Stat(filepath.Join(home, "node.key"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())

	made, err = node.Init(home, node.Config{Region: "US"})
	require.NoError(t, err)
	require.Empty(t, made)
	samePeer, sameAccount, err := node.Identity(home)
	require.NoError(t, err)
	require.Equal(t, peer, samePeer)
	require.Equal(t, account, sameAccount)
	cfg, err := node.LoadConfig(home)
	require.NoError(t, err)
	require.Equal(t, "EU/DE", cfg.Region)
	require.Equal(t, 3, cfg.Provide.CPU)
	require.Equal(t, perigee.Size(1<<30), cfg.Provide.Memory)
	require.Equal(t, "swarm.key", cfg.PSKFile)
	require.Len(t, cfg.Peers, 1)
}

func TestConfigErrorsNameTheLine(t *testing.T) {
	for text, want := range map[string]string{
		"region: EU\nreginn: US\n":    "line 2",
		"provide:\n  cpu: many\n":     "line 2",
		"region: somewhere\n":         "somewhere",
		"listen: {a: b}\n":            "line 1",
		"provide: {memory: 1 lump}\n": "lump",
	} {
		home := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(home, node.ConfigFile), []byte(text), 0o600))
		_, err := node.LoadConfig(home)
		require.ErrorIs(t, err, perigee.Invalid, text)
		require.ErrorContains(t, err, want, text)
	}
	cfg, err := node.LoadConfig(t.TempDir())
	require.NoError(t, err, "no file is the default")
	require.Empty(t, cfg.Listen)
}

func TestOneHomeOneNode(t *testing.T) {
	home := filepath.Join(t.TempDir(), "home")
	n, err := node.Start(t.Context(), node.Config{Home: home, Embedded: true})
	require.NoError(t, err)
	c, err := client.FromHome(home)
	require.NoError(t, err)
	st, err := c.Status(t.Context())
	require.NoError(t, err)
	require.Equal(t, n.ID(), st.PeerID)
	require.Equal(t, []string{"requester", "provider"}, st.Roles)
	c.Close()
	_, err = node.Start(t.Context(), node.Config{Home: home, Embedded: true})
	require.Error(t, err, "a home belongs to one node")
	require.NoError(t, n.Close())
	_, err = client.FromHome(home)
	require.ErrorIs(t, err, perigee.Unavailable)
	n, err = node.Start(t.Context(), node.Config{Home: home, Embedded: true, Provide: node.Provide{Off: true}})
	require.NoError(t, err, "and to the next one afterwards")
	require.NoError(t, n.Close())
}
