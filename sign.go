package perigee

import "crypto/ed25519"

// Signed is a record that carries its signer's name and signature.
type Signed interface {
	// Domain names the record's type and version within signatures, so that a
	// signature over one type is worth nothing for another.
	Domain() string
	// Signer is the public key the record claims to be signed by.
	Signer() (ed25519.PublicKey, error)
	// Unsigned returns a copy of the record with an empty signature.
	Unsigned() any
	// Sig points at the record's signature.
	Sig() *[]byte
}

// SignedBytes returns what a signature of r covers: "perigee:", the domain, a
// zero byte and the canonical DAG-CBOR of the record without its signature.
func SignedBytes(r Signed) ([]byte, error) {
	b, err := Encode(r.Unsigned())
	if err != nil {
		return nil, err
	}
	return append([]byte("perigee:"+r.Domain()+"\x00"), b...), nil
}

// Sign signs r in place with sign, the Ed25519 signing of identity.Key.
func Sign(r Signed, sign func(msg []byte) []byte) error {
	msg, err := SignedBytes(r)
	if err != nil {
		return err
	}
	*r.Sig() = sign(msg)
	return nil
}

// CheckSignature verifies r's signature by the signer it names. The error is of
// kind Corrupt. It says nothing about who that signer should have been.
func CheckSignature(r Signed) error {
	pub, err := r.Signer()
	if err != nil {
		return E("perigee.CheckSignature", Corrupt, err)
	}
	msg, err := SignedBytes(r)
	if err != nil {
		return err
	}
	if sig := *r.Sig(); len(sig) != ed25519.SignatureSize || !ed25519.Verify(pub, msg, sig) {
		return E("perigee.CheckSignature", Corrupt, "the %s's signature does not match its content", r.Domain())
	}
	return nil
}

func (o *Offer) Domain() string                     { return "offer/1" }
func (o *Offer) Signer() (ed25519.PublicKey, error) { return o.Provider.PublicKey() }
func (o *Offer) Sig() *[]byte                       { return &o.Signature }
func (o *Offer) Unsigned() any                      { c := *o; c.Signature = nil; return &c }

func (b *Bid) Domain() string                     { return "bid/1" }
func (b *Bid) Signer() (ed25519.PublicKey, error) { return b.Provider.PublicKey() }
func (b *Bid) Sig() *[]byte                       { return &b.Signature }
func (b *Bid) Unsigned() any                      { c := *b; c.Signature = nil; return &c }

func (l *Lease) Domain() string                     { return "lease/1" }
func (l *Lease) Signer() (ed25519.PublicKey, error) { return l.Requester.PublicKey() }
func (l *Lease) Sig() *[]byte                       { return &l.Signature }
func (l *Lease) Unsigned() any                      { c := *l; c.Signature = nil; return &c }

func (r *Receipt) Domain() string                     { return "receipt/1" }
func (r *Receipt) Signer() (ed25519.PublicKey, error) { return r.Provider.PublicKey() }
func (r *Receipt) Sig() *[]byte                       { return &r.Signature }
func (r *Receipt) Unsigned() any                      { c := *r; c.Signature = nil; return &c }

func (d *Dataset) Domain() string                     { return "dataset/1" }
func (d *Dataset) Signer() (ed25519.PublicKey, error) { return d.Owner.PublicKey() }
func (d *Dataset) Sig() *[]byte                       { return &d.Signature }

// Unsigned returns the dataset's head: a signature covers parts by their links.
func (d *Dataset) Unsigned() any {
	h, _, err := d.Split()
	if err != nil {
		return err // cannot be encoded either, and so cannot be signed
	}
	return h.Unsigned()
}

func (h *DatasetHead) Domain() string                     { return "dataset/1" }
func (h *DatasetHead) Signer() (ed25519.PublicKey, error) { return h.Owner.PublicKey() }
func (h *DatasetHead) Sig() *[]byte                       { return &h.Signature }
func (h *DatasetHead) Unsigned() any                      { c := *h; c.Signature = nil; return &c }

func (j *DatasetJoin) Domain() string                     { return "dataset-join/1" }
func (j *DatasetJoin) Signer() (ed25519.PublicKey, error) { return j.Account.PublicKey() }
func (j *DatasetJoin) Sig() *[]byte                       { return &j.Signature }
func (j *DatasetJoin) Unsigned() any                      { c := *j; c.Signature = nil; return &c }

// Check verifies all that a receipt says of itself, offline: its version, its
// signature, and that its job key is the key of its part. Errors are Corrupt.
func (r *Receipt) Check() error {
	if r.Version != 1 {
		return E("perigee.Receipt", Corrupt, "receipt version %d; this program knows version 1", r.Version)
	}
	key, err := r.Part.Key()
	if err != nil {
		return err
	}
	if key != r.JobKey {
		return E("perigee.Receipt", Corrupt, "the receipt's job key %s is not the key of its part, %s", r.JobKey, key)
	}
	if !r.Result.Output.Defined() {
		return E("perigee.Receipt", Corrupt, "the receipt names no output")
	}
	return CheckSignature(r)
}
