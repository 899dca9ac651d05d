// Package identity holds the private keys of a node and of an account: the one
// place in Perigee that does. Others hold a [Key] and ask it to sign.
//
// A key is Ed25519 and lies in a file of mode 0600, as PEM of PKCS #8 ("PRIVATE
// KEY"), the form that OpenSSL reads and writes.
package identity

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/libp2p/go-libp2p/core/crypto"

	"github.com/perigee-network/perigee"
)

// maxFile bounds a key file, in bytes; a real one has about 120.
const maxFile = 16 << 10

const pemType = "PRIVATE KEY"

// Key is an Ed25519 key pair. It is immutable and safe for concurrent use, and
// prints as its peer ID, never as its secret.
type Key struct{ private ed25519.PrivateKey }

// Generate returns a new random key that is in memory only.
func Generate() (*Key, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, perigee.E("identity.Generate", perigee.Internal, err, "cannot generate a key")
	}
	return &Key{private}, nil
}

// Load reads the key in the file path. Errors: NotFound when there is none,
// Refused when others may read or write it, Corrupt when it is not a key.
func Load(path string) (*Key, error) {
	const op = "identity.Load"
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, perigee.E(op, perigee.NotFound, "there is no key file %s", path)
	case err != nil:
		return nil, perigee.E(op, perigee.Internal, err, "cannot read the key file")
	case !info.Mode().IsRegular():
		return nil, perigee.E(op, perigee.Corrupt, "%s is not a regular file, so it is no key file", path)
	case info.Mode().Perm()&0o077 != 0:
		return nil, perigee.E(op, perigee.Refused, "the key file %s is open to other users (mode %04o); run: chmod 600 %s", path, info.Mode().Perm(), path)
	case info.Size() > maxFile:
		return nil, perigee.E(op, perigee.Corrupt, "%s has %d bytes; a key file has at most %d", path, info.Size(), maxFile)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, perigee.E(op, perigee.Internal, err, "cannot read the key file")
	}
	k, err := Parse(data)
	if err != nil {
		return nil, perigee.E(op, perigee.Corrupt, err, "the key file %s", path)
	}
	return k, nil
}

// LoadOrCreate reads the key in the file path, or makes one there, with its
// directory. Two processes that do so at once get the same key. Errors are
// those of Load except NotFound.
func LoadOrCreate(path string) (*Key, error) {
	k, err := Load(path)
	if !errors.Is(err, perigee.NotFound) {
		return k, err
	}
	if k, err = Generate(); err != nil {
		return nil, err
	}
	if err := k.save(path); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return Load(path)
		}
		return nil, perigee.E("identity.LoadOrCreate", perigee.Internal, err, "cannot write the key file %s", path)
	}
	return k, nil
}

// save puts the key at path in one step, whole and durable, unless there is
// something already.
func (k *Key) save(path string) (err error) {
	data, err := k.PEM()
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(dir, ".key-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(data)
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	if err := os.Link(tmp.Name(), path); err != nil { // unlike a rename, fails if path exists
		if _, stat := os.Lstat(path); stat == nil {
			return fs.ErrExist
		}
		if err := os.Rename(tmp.Name(), path); err != nil { // a file system without hard links
			return err
		}
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Parse reads a key from its PEM form. The error is of kind Corrupt.
func Parse(data []byte) (*Key, error) {
	const op = "identity.Parse"
	block, _ := pem.Decode(data)
	if block == nil || block.Type != pemType {
		return nil, perigee.E(op, perigee.Corrupt, "no PEM block of type %q", pemType)
	}
	any, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, perigee.E(op, perigee.Corrupt, err, "not a PKCS #8 private key")
	}
	private, ok := any.(ed25519.PrivateKey)
	if !ok {
		return nil, perigee.E(op, perigee.Corrupt, "a private key of another type than Ed25519 (%T)", any)
	}
	return &Key{private}, nil
}

// PEM returns the secret form of the key that Parse reads.
func (k *Key) PEM() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(k.private)
	if err != nil {
		return nil, perigee.E("identity.PEM", perigee.Internal, err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der}), nil
}

// Public returns the public key.
func (k *Key) Public() ed25519.PublicKey { return k.private.Public().(ed25519.PublicKey) }

// Peer returns the peer ID of the node that has this key.
func (k *Key) Peer() perigee.PeerID { return perigee.PeerIDOf(k.Public()) }

// Account returns the ID of the account that has this key.
func (k *Key) Account() perigee.AccountID { return perigee.AccountIDOf(k.Public()) }

// Sign returns the Ed25519 signature of msg.
func (k *Key) Sign(msg []byte) []byte { return ed25519.Sign(k.private, msg) }

// Libp2p returns the key in the form libp2p takes.
func (k *Key) Libp2p() (crypto.PrivKey, error) {
	p, err := crypto.UnmarshalEd25519PrivateKey(k.private)
	if err != nil {
		return nil, perigee.E("identity.Libp2p", perigee.Internal, err)
	}
	return p, nil
}

// String returns the peer ID, so that no log line shows the secret.
func (k *Key) String() string { return string(k.Peer()) }

// Format is as String, for every verb.
func (k *Key) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(k.String())) }
