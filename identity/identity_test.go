package identity

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/perigee-network/perigee"
)

func TestLoadOrCreate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "home", "keys", "node.pem")
	k, err := LoadOrCreate(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", info.Mode(), err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".key-*")); len(left) > 0 {
		t.Errorf("debris: %q", left)
	}
	again, err := LoadOrCreate(path)
	if err != nil || again.Peer() != k.Peer() {
		t.Fatalf("%v, %v", again, err)
	}
	msg := []byte("hello")
	if !ed25519.Verify(again.Public(), msg, k.Sign(msg)) {
		t.Error("the signature does not verify")
	}
}

func TestConcurrentCreate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "k.pem")
	ids := make([]perigee.PeerID, 16)
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() {
			k, err := LoadOrCreate(path)
			if err != nil {
				t.Error(err)
				return
			}
			ids[i] = k.Peer()
		})
	}
	wg.Wait()
	for _, id := range ids {
		if id != ids[0] {
			t.Fatalf("two keys: %s and %s", id, ids[0])
		}
	}
}

// TestNames fixes the names of a known key: seed 32 zero bytes.
func TestNames(t *testing.T) {
	k := &Key{ed25519.NewKeyFromSeed(make([]byte, 32))}
	const id = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"
	if k.Peer() != id || fmt.Sprintf("%v %+v %#v %s", k, k, k, k) != strings.TrimSpace(strings.Repeat(id+" ", 4)) {
		t.Errorf("%s, %#v", k.Peer(), k)
	}
	if k.Account() != "z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp" {
		t.Error(k.Account())
	}
	l, err := k.Libp2p()
	if err != nil {
		t.Fatal(err)
	}
	pid, err := peer.IDFromPrivateKey(l)
	if err != nil || pid.String() != id {
		t.Errorf("libp2p says %s, %v", pid, err)
	}
}

func TestBadFiles(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	k, _ := Generate()
	good, _ := k.PEM()
	for _, c := range []struct {
		name string
		data []byte
		mode os.FileMode
		kind perigee.Kind
		text string
	}{
		{"open", good, 0o644, perigee.Refused, "chmod 600"},
		{"group-writable", good, 0o620, perigee.Refused, "chmod 600"},
		{"empty", nil, 0o600, perigee.Corrupt, "no PEM block"},
		{"text", []byte("hello"), 0o600, perigee.Corrupt, "no PEM block"},
		{"cut", good[:60], 0o600, perigee.Corrupt, "no PEM block"},
		{"huge", make([]byte, maxFile+1), 0o600, perigee.Corrupt, "at most"},
		{"other type", pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der}), 0o600, perigee.Corrupt, "another type"},
		{"garbage inside", pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: []byte("x")}), 0o600, perigee.Corrupt, "PKCS #8"},
		{"certificate", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600, perigee.Corrupt, "no PEM block"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "k.pem")
			if err := errors.Join(os.WriteFile(path, c.data, c.mode), os.Chmod(path, c.mode)); err != nil {
				t.Fatal(err)
			}
			_, err := LoadOrCreate(path)
			if !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.text) || !strings.Contains(err.Error(), path) {
				t.Errorf("got %v", err)
			}
			if after, _ := os.ReadFile(path); !bytes.Equal(after, c.data) {
				t.Error("the file was changed")
			}
		})
	}
	if _, err := LoadOrCreate(t.TempDir()); !errors.Is(err, perigee.Corrupt) {
		t.Errorf("a directory: %v", err)
	}
	if _, err := Load(filepath.Join(t.TempDir(), "none")); !errors.Is(err, perigee.NotFound) {
		t.Errorf("no file: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	k := &Key{ed25519.NewKeyFromSeed(make([]byte, 32))}
	good, _ := k.PEM()
	f.Add(good)
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		k, err := Parse(data)
		if err != nil {
			return
		}
		pem, err := k.PEM()
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse(pem)
		if err != nil || again.Peer() != k.Peer() {
			t.Fatal(base64.StdEncoding.EncodeToString(data), err)
		}
	})
}
