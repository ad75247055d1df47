package policy

// Cache returns where the call's answer may be kept, or nil where its policy
// keeps none or the call can't be answered twice alike.
func (c *Call) Cache() *Cache {
	if r := c.method.rule; r.cache != nil && c.idempotent && !c.stream {
		return r.cache
	}
	return nil
}

// Cache returns the cache of the calls under the service's own policy, for
// those who show what is in it. nil: it has none.
func (s *Service) Cache() *Cache { return s.current.Load().service.cache }

// Limiter returns the concurrency limit of the calls under the service's own
// policy. nil: it has none.
func (s *Service) Limiter() *Limiter { return s.current.Load().service.limiter }
