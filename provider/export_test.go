package provider

import "time"

// Expire forgets what is due at now, as the janitor does every minute.
func (p *Provider) Expire(now time.Time) error { return p.expire(now) }
