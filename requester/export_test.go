package requester

import "time"

// Expire lets go of what is due at now, as the janitor does every minute.
func (r *Requester) Expire(now time.Time) error { return r.expire(now) }
