package data

import (
	"errors"
	"strings"

	"github.com/perigee-network/perigee"
	"github.com/perigee-network/perigee/db"
)

// Rows: "dataset/h/OWNER/NAME" is a head, "dataset/c/OWNER/NAME/" and a binary
// CID is a chunk.
const (
	datasetHeads  = "dataset/h/"
	datasetChunks = "dataset/c/"
)

func headKey(id string) []byte { return []byte(datasetHeads + id) }

func chunkKey(owner perigee.AccountID, name string, c perigee.CID) []byte {
	return append([]byte(datasetChunks+datasetID(owner, name)+"/"), c.Cid().Bytes()...)
}

// load reads the heads into memory and counts the chunks of others.
func (d *Datasets) load() error {
	err := d.cfg.DB.Scan([]byte(datasetHeads), nil, func(key, value []byte) error {
		var h perigee.DatasetHead
		if err := perigee.Decode(value, &h); err != nil {
			return perigee.E("data.OpenDatasets", perigee.Corrupt, err, "a dataset's record in the database is damaged")
		}
		d.note(&h, int64(len(value)))
		return nil
	})
	if err != nil {
		return err
	}
	mine := datasetChunks + string(d.cfg.Account) + "/"
	return d.cfg.DB.Scan([]byte(datasetChunks), nil, func(key, value []byte) error {
		if !strings.HasPrefix(string(key), mine) {
			d.eager += int64(len(value))
		}
		return nil
	})
}

// note puts a head into the tables in memory, in the place of an older one. The
// caller holds mu or has d to itself.
func (d *Datasets) note(h *perigee.DatasetHead, bytes int64) {
	c, _, err := perigee.LinkTo(h)
	if err != nil {
		return // it was decoded or signed: it encodes
	}
	id := datasetID(h.Owner, h.Name)
	d.forget(id)
	k := &knownHead{head: *h, cid: c, bytes: bytes}
	k.head.Chunks = nil
	d.known[id] = k
	d.owners[h.Owner]++
	d.toggle(c)
	if h.Owner != d.cfg.Account {
		d.bytes += bytes
	}
}

func (d *Datasets) forget(id string) {
	k := d.known[id]
	if k == nil {
		return
	}
	delete(d.known, id)
	if d.owners[k.head.Owner]--; d.owners[k.head.Owner] == 0 {
		delete(d.owners, k.head.Owner)
	}
	d.toggle(k.cid)
	if k.head.Owner != d.cfg.Account {
		d.bytes -= k.bytes
	}
}

// toggle adds a head to the digest or takes it out again.
func (d *Datasets) toggle(c perigee.CID) {
	hash := c.Cid().Hash()
	for i, b := range hash[len(hash)-len(d.digest):] {
		d.digest[i] ^= b
	}
}

// head returns a known head with its chunks, or an error of kind NotFound.
func (d *Datasets) head(owner perigee.AccountID, name string) (*perigee.DatasetHead, error) {
	b, err := d.cfg.DB.Get(headKey(datasetID(owner, name)))
	if errors.Is(err, perigee.NotFound) {
		return nil, perigee.E("data.Lookup", perigee.NotFound, "dataset %s/%s is not known here", owner, name)
	}
	if err != nil {
		return nil, err
	}
	var h perigee.DatasetHead
	if err := perigee.Decode(b, &h); err != nil {
		return nil, perigee.E("data.Lookup", perigee.Corrupt, err, "the record of dataset %s/%s in the database is damaged", owner, name)
	}
	return &h, nil
}

// wanted reports why a head that was checked would not be kept: it is no newer
// than what is known (Refused), or others have too many (Exhausted).
func (d *Datasets) wanted(h *perigee.DatasetHead) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.wantedLocked(h)
}

func (d *Datasets) wantedLocked(h *perigee.DatasetHead) error {
	const op = "data.Datasets"
	if k := d.known[datasetID(h.Owner, h.Name)]; k != nil {
		if h.Sequence < k.head.Sequence || h.Sequence == k.head.Sequence && !newerCID(h, k.cid) {
			return perigee.E(op, perigee.Refused, "dataset %s/%s is known in a version as new", h.Owner, h.Name)
		}
		return nil
	}
	switch {
	case h.Owner == d.cfg.Account:
	case d.owners[h.Owner] >= foreignEach:
		return perigee.E(op, perigee.Exhausted, "account %s has %d datasets; no more of one account are kept", h.Owner, foreignEach)
	case len(d.known) >= foreignHeads, d.bytes > foreignHeadBytes:
		return perigee.E(op, perigee.Exhausted, "%d datasets are known; no more are kept unless they are asked for", len(d.known))
	}
	return nil
}

func newerCID(h *perigee.DatasetHead, than perigee.CID) bool {
	c, _, err := perigee.LinkTo(h)
	return err == nil && string(c.Cid().Bytes()) > string(than.Cid().Bytes())
}

// accept keeps a head, whose Check the caller did, if it is wanted, and reports
// whether it is new here. One that somebody asked for displaces another when
// there are too many.
func (d *Datasets) accept(h *perigee.DatasetHead, asked bool) (bool, error) {
	b, err := perigee.Encode(h)
	if err != nil {
		return false, err
	}
	if len(b) > maxHead {
		return false, perigee.E("data.Datasets", perigee.Invalid, "a head of %d bytes; the limit is %d", len(b), maxHead)
	}
	id := datasetID(h.Owner, h.Name)
	d.mu.Lock()
	defer d.mu.Unlock()
	batch := &db.Batch{}
	err = d.wantedLocked(h)
	switch {
	case errors.Is(err, perigee.Refused):
		return false, nil
	case errors.Is(err, perigee.Exhausted) && asked:
		if victim := d.victim(); victim != "" {
			batch.Delete(headKey(victim))
			batch.DeletePrefix([]byte(datasetChunks + victim + "/"))
			d.forget(victim)
		}
	case err != nil:
		return false, err
	}
	if err := d.prune(batch, id, h); err != nil {
		return false, err
	}
	batch.Put(headKey(id), b)
	write := d.cfg.DB.WriteLazy // it comes again from where it came from
	if h.Owner == d.cfg.Account {
		write = d.cfg.DB.Write
	}
	if err := write(batch); err != nil {
		return false, err
	}
	d.note(h, int64(len(b)))
	return true, nil
}

// victim picks some dataset of another account.
func (d *Datasets) victim() string {
	for id, k := range d.known { // in random order
		if k.head.Owner != d.cfg.Account {
			return id
		}
	}
	return ""
}

// prune deletes, in batch, the chunks that the next head does not link to.
func (d *Datasets) prune(batch *db.Batch, id string, next *perigee.DatasetHead) error {
	keep := make(map[string]bool, len(next.Chunks))
	for _, c := range next.Chunks {
		keep[string(c.Cid().Bytes())] = true
	}
	prefix := datasetChunks + id + "/"
	return d.cfg.DB.Scan([]byte(prefix), nil, func(key, value []byte) error {
		if !keep[string(key[len(prefix):])] {
			batch.Delete(key)
			if next.Owner != d.cfg.Account {
				d.eager -= int64(len(value))
			}
		}
		return nil
	})
}

// putChunk keeps a chunk that was checked. An own chunk is made durable by the
// head that follows.
func (d *Datasets) putChunk(owner perigee.AccountID, name string, c perigee.CID, b []byte) error {
	batch := &db.Batch{}
	batch.Put(chunkKey(owner, name, c), b)
	if owner != d.cfg.Account {
		d.mu.Lock()
		d.eager += int64(len(b))
		d.mu.Unlock()
	}
	return d.cfg.DB.WriteLazy(batch)
}
