package node

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/client"
	"github.com/perigee-network/perigee/identity"
)

// The files of a home that hold keys.
const (
	nodeKeyFile    = "node.key"
	accountKeyFile = "account.key"
)

// keys are a node's two keys: the one its peers know it by, and the one of the
// account it belongs to.
type keys struct {
	node, account *identity.Key
}

// loadKeys reads a home's keys, making those that are missing; the names of
// what it made are appended to made.
func loadKeys(home string, made *[]string) (keys, error) {
	var k keys
	for _, x := range []struct {
		name string
		key  **identity.Key
	}{{nodeKeyFile, &k.node}, {accountKeyFile, &k.account}} {
		path := filepath.Join(home, x.name)
		_, statErr := os.Stat(path)
		key, err := identity.LoadOrCreate(path)
		if err != nil {
			return k, err
		}
		if errors.Is(statErr, fs.ErrNotExist) {
			*made = append(*made, x.name)
		}
		*x.key = key
	}
	return k, nil
}

// loadToken reads the home's API token, making one if there is none.
func loadToken(home string, made *[]string) (string, error) {
	path := filepath.Join(home, client.TokenFile)
	b, err := os.ReadFile(path)
	if err == nil {
		if token := strings.TrimSpace(string(b)); len(token) >= 16 {
			return token, nil
		}
		return "", perigee.E("node.Init", perigee.Invalid, "the API token in %s has fewer than 16 characters; remove the file to have a new one made", path)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", perigee.E("node.Init", perigee.Invalid, err, "cannot read the API token")
	}
	var secret [24]byte
	_, _ = rand.Read(secret[:])
	token := hex.EncodeToString(secret[:])
	if err := os.WriteFile(path, []byte(token+"\n"), 0o600); err != nil {
		return "", perigee.E("node.Init", perigee.Invalid, err, "cannot write the API token")
	}
	*made = append(*made, client.TokenFile)
	return token, nil
}

// Identity returns who the node and the account of a home are. It makes keys
// that are missing.
func Identity(home string) (perigee.PeerID, perigee.AccountID, error) {
	k, err := loadKeys(home, new([]string))
	if err != nil {
		return "", "", err
	}
	return k.node.Peer(), k.account.Account(), nil
}
