package policy

import (
	"strings"
	"sync"
	"sync/atomic"

	"github.com/outrigger-rpc/outrigger/balancer"
	"github.com/outrigger-rpc/outrigger/breaker"
	"github.com/outrigger-rpc/outrigger/sla"
)

// maxMethods bounds how many methods of a service are told apart. Method names
// come from callers: past the bound they share one entry, named OtherMethods.
const maxMethods = 512

// OtherMethods names the entry that methods past the bound share.
const OtherMethods = "(other)"

// Settings is a service's configuration.
type Settings struct {
	// Policy holds for every method without one of its own.
	Policy Policy
	// Methods are the overrides, by full method name ("/pkg.Service/Method")
	// or by prefix ("/pkg.Service/"); the longest match wins.
	Methods map[string]Policy
	// Resource says that the service has no endpoints and is none to call: a
	// thing that programs ask permits for.
	Resource bool
}

// Service is the live state that the calls to one service share. Safe for
// concurrent use. Make it with NewService.
type Service struct {
	name     string
	recorder *sla.Recorder
	budget   *budget
	outliers *balancer.Outliers
	set      atomic.Pointer[balancer.Set]
	current  atomic.Pointer[generation]
	counts   counters
	without  atomic.Pointer[func() string] // says why there are no endpoints; nil: nobody knows

	// onTransition hears of every breaker's change of state. It may be nil.
	onTransition func(breaker.Key, breaker.Transition)
	onEjection   atomic.Pointer[func(balancer.Ejection, bool)] // see OnEjection

	mu sync.Mutex // serialises Update, SetEndpoints and the first use of a method
}

// generation is what one Update made: settings and the methods under them.
type generation struct {
	settings Settings
	service  *rule
	rules    map[string]*rule // by Settings.Methods' key
	methods  atomic.Pointer[map[string]*Method]
	other    *Method
}

// rule is one policy with the live state that it asks for; nil is what it does
// not ask for. What a method override asks for in the same words as its service
// is the service's: one limit, not two of the same size.
type rule struct {
	policy   Policy
	breakers *breaker.Set
	limiter  *Limiter
	rate     *rateLimiter
	throttle *throttle
	cache    *Cache
	quantile *liveQuantile // of attempts, for hedges
	picker   *balancer.Picker
}

// spends reports whether the rule's calls may be sent again.
func (r *rule) spends() bool {
	p := &r.policy
	return p.Retry.MaxAttempts > 1 && p.Retry.Mode != Off || p.Hedge.MaxAttempts > 1 && p.Hedge.Mode != Off
}

// NewService returns a service without endpoints. onTransition, which may be
// nil, hears of every breaker's change of state; it must not block.
func NewService(name string, settings Settings, onTransition func(breaker.Key, breaker.Transition)) *Service {
	s := &Service{
		name: name, recorder: sla.NewRecorder(sla.Options{}), budget: newBudget(settings.Policy.Retry.Budget),
		onTransition: onTransition,
	}
	s.outliers = balancer.NewOutliers(settings.Policy.Outlier, s.ejectionHeard)
	s.set.Store(balancer.NewSet(nil))
	s.Update(settings)
	return s
}

// Name returns the service's name.
func (s *Service) Name() string { return s.name }

// Update changes the settings. Calls that are under way end under the old
// ones. Breakers and windows keep their state.
func (s *Service) Update(settings Settings) {
	Wake(s.update(settings))
}

// update returns the calls that a larger limit lets go on.
func (s *Service) update(settings Settings) (woken []*Waiter) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.current.Load()
	g := &generation{settings: settings, rules: make(map[string]*rule, len(settings.Methods))}
	var before *rule
	var overrides map[string]*rule
	if old != nil {
		before, overrides = old.service, old.rules
	}
	s.budget.update(settings.Policy.Retry.Budget)
	if old != nil && old.settings.Policy.Outlier != settings.Policy.Outlier {
		s.outliers.Update(settings.Policy.Outlier)
	}
	g.service = s.newRule(settings.Policy, before, nil, &woken)
	for method, p := range settings.Methods {
		g.rules[method] = s.newRule(p, overrides[method], g.service, &woken)
	}
	g.other = g.newMethod(s, OtherMethods)
	methods := make(map[string]*Method)
	if old != nil {
		for name, m := range *old.methods.Load() {
			next := g.newMethod(s, name)
			next.stream.Store(m.stream.Load())
			next.usual.Store(m.usual.Load())
			methods[name] = next
		}
	}
	g.methods.Store(&methods)
	s.current.Store(g)
	return woken
}

// newRule takes over what the old rule under the same name remembers, and
// shares with the service's rule what both ask for alike. old and service may
// be nil.
func (s *Service) newRule(p Policy, old, service *rule, woken *[]*Waiter) *rule {
	if old == nil {
		old = &rule{}
	}
	r := &rule{policy: p}
	if p.Breaker.Options.Mode != Off {
		before := old
		if old.policy.Breaker.Scope != p.Breaker.Scope {
			before = &rule{} // other keys: nothing to take over
		}
		r.breakers = state(p.Breaker, before, service,
			func(r *rule) (*breaker.Set, BreakerPolicy) { return r.breakers, r.policy.Breaker },
			func(p BreakerPolicy) *breaker.Set { return breaker.NewSet(p.Options, s.onTransition) },
			func(set *breaker.Set, p BreakerPolicy) { set.Update(p.Options) })
	}
	if p.Concurrency.On() {
		r.limiter = state(p.Concurrency, old, service,
			func(r *rule) (*Limiter, ConcurrencyPolicy) { return r.limiter, r.policy.Concurrency }, NewLimiter,
			func(l *Limiter, p ConcurrencyPolicy) { *woken = append(*woken, l.Update(p)...) })
	}
	if p.RateLimit.On() {
		r.rate = state(p.RateLimit, old, service,
			func(r *rule) (*rateLimiter, RateLimitPolicy) { return r.rate, r.policy.RateLimit }, newRateLimiter, (*rateLimiter).update)
	}
	if p.Throttle.On() {
		r.throttle = state(p.Throttle, old, service,
			func(r *rule) (*throttle, ThrottlePolicy) { return r.throttle, r.policy.Throttle }, newThrottle, (*throttle).update)
	}
	if p.Cache.On() {
		r.cache = state(p.Cache, old, service,
			func(r *rule) (*Cache, CachePolicy) { return r.cache, r.policy.Cache }, NewCache, (*Cache).Update)
	}
	if p.Hedge.DelayQuantile > 0 && r.spends() {
		if r.quantile = old.quantile; r.quantile == nil {
			r.quantile = newLiveQuantile()
		}
	}
	r.picker = state(p.LoadBalancing, old, service,
		func(r *rule) (*balancer.Picker, balancer.Options) { return r.picker, r.policy.LoadBalancing }, balancer.NewPicker, nil)
	r.picker.Prepare(s.set.Load())
	return r
}

// state returns what a rule works with for one of its policies: the service's
// where that asks alike, else what it had, brought up to date, else a new one.
// update is nil where nothing of the old one is worth keeping.
func state[P comparable, S any](want P, old, service *rule, of func(*rule) (*S, P), create func(P) *S, update func(*S, P)) *S {
	var shared *S
	if service != nil {
		var theirs P
		if shared, theirs = of(service); shared != nil && theirs == want {
			return shared
		}
	}
	mine, had := of(old)
	if mine == nil || mine == shared || update == nil && had != want {
		return create(want)
	}
	if update != nil {
		update(mine, want)
	}
	return mine
}

// Policy returns the policy of methods without an override.
func (s *Service) Policy() Policy { return s.current.Load().settings.Policy }

// Resource reports whether the service is a thing to ask permits for, without
// endpoints.
func (s *Service) Resource() bool { return s.current.Load().settings.Resource }

// Policies returns the service's policy and those of its overrides, in no
// order.
func (s *Service) Policies() []Policy {
	settings := s.current.Load().settings
	all := []Policy{settings.Policy}
	for _, p := range settings.Methods {
		all = append(all, p)
	}
	return all
}

// SetEndpoints changes the service's endpoints and returns those that left.
// An endpoint whose address stays keeps its counters and its condition.
func (s *Service) SetEndpoints(specs []balancer.Spec) (gone []*balancer.Endpoint) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next, gone := s.set.Load().With(specs)
	g := s.current.Load()
	g.service.picker.Prepare(next)
	for _, r := range g.rules {
		r.picker.Prepare(next)
	}
	s.set.Store(next)
	return gone
}

// Balancing returns how the calls of methods without an override are spread over
// the endpoints now.
func (s *Service) Balancing() balancer.Snapshot {
	return s.current.Load().service.picker.Snapshot(s.set.Load())
}

// Members returns the endpoints that the service's calls go to now, by any of
// its methods' policies: all, or those of a subset, which changes with who is
// fit; see Reach.
func (s *Service) Members() []*balancer.Endpoint {
	g, set := s.current.Load(), s.set.Load()
	used := make(map[*balancer.Endpoint]bool, set.Len())
	use := func(p *balancer.Picker) {
		for _, e := range p.Members(set) {
			used[e] = true
		}
	}
	use(g.service.picker)
	for _, r := range g.rules {
		if r.picker != g.service.picker {
			use(r.picker)
		}
	}
	all := make([]*balancer.Endpoint, 0, len(used))
	for _, e := range set.All() {
		if used[e] {
			all = append(all, e)
		}
	}
	return all
}

// ReportedWeight returns the weight that an endpoint's load reports give it now,
// by the policy of methods without an override: requests a second at full use.
// Zero: none counts, or the policy does not go by them.
func (s *Service) ReportedWeight(e *balancer.Endpoint, now Instant) float64 {
	return s.current.Load().service.picker.ReportedWeight(e, now)
}

// Reach returns a number that is another one whenever Members may be others,
// though neither the endpoints nor the settings changed: another endpoint stands
// in for a member of a subset that is not fit, or one that did so no longer does.
func (s *Service) Reach() uint64 {
	g, set := s.current.Load(), s.set.Load()
	sum := g.service.picker.Reach(set)
	for _, r := range g.rules {
		if r.picker != g.service.picker {
			sum += r.picker.Reach(set)
		}
	}
	return sum
}

// SetWithoutEndpoints sets what says in plain words why the service has no
// endpoints, for the calls that are refused then; it is asked for each of them,
// must not block, and is empty where there is nothing to say.
func (s *Service) SetWithoutEndpoints(why func() string) { s.without.Store(&why) }

// Endpoints returns the present snapshot.
func (s *Service) Endpoints() *balancer.Set { return s.set.Load() }

// Recorder returns the service's SLA windows.
func (s *Service) Recorder() *sla.Recorder { return s.recorder }

// Breakers returns every breaker that a call has used so far, with its key.
func (s *Service) Breakers() []NamedBreaker {
	g := s.current.Load()
	var all []NamedBreaker
	add := func(r *rule, override string) {
		if r.breakers == nil || r != g.service && r.breakers == g.service.breakers {
			return
		}
		for key, b := range r.breakers.All() {
			all = append(all, NamedBreaker{Key: key, Scope: r.policy.Breaker.Scope, Override: override, Breaker: b})
		}
	}
	add(g.service, "")
	for name, r := range g.rules {
		add(r, name)
	}
	return all
}

// NamedBreaker is a breaker and what it guards.
type NamedBreaker struct {
	Key     breaker.Key
	Scope   Scope
	Breaker *breaker.Breaker
	// Override is the method override whose policy asks for the breaker; empty
	// for the service's own policy.
	Override string
}

// Method is one method of a service under its policy. Safe for concurrent use.
type Method struct {
	name    string
	service *Service
	rule    *rule
	breaker *breaker.Breaker // scope SERVICE or METHOD; nil when off or by endpoint
	stream  atomic.Bool      // a call to it has turned out to be a stream
	usual   atomic.Int64     // see typical
}

// Method returns the live entry of a full method name ("/pkg.Service/Method").
func (s *Service) Method(name string) *Method {
	g := s.current.Load()
	if m := (*g.methods.Load())[name]; m != nil {
		return m
	}
	return s.addMethod(name)
}

func (s *Service) addMethod(name string) *Method {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.current.Load()
	old := *g.methods.Load()
	if m := old[name]; m != nil {
		return m
	}
	if len(old) >= maxMethods {
		if r := g.ruleFor(name); r != g.service {
			// An override holds for methods past the bound too.
			return g.newMethod(s, name)
		}
		return g.other
	}
	// The name may share a connection's memory; the table outlives it.
	name = strings.Clone(name)
	m := g.newMethod(s, name)
	next := make(map[string]*Method, len(old)+1)
	for k, v := range old {
		next[k] = v
	}
	next[name] = m
	g.methods.Store(&next)
	return m
}

func (g *generation) newMethod(s *Service, name string) *Method {
	r := g.ruleFor(name)
	m := &Method{name: name, service: s, rule: r}
	if r.breakers != nil {
		switch r.policy.Breaker.Scope {
		case ScopeService:
			m.breaker = r.breakers.Get(breaker.Key{Service: s.name})
		case ScopeMethod:
			m.breaker = r.breakers.Get(breaker.Key{Service: s.name, Method: name})
		}
	}
	return m
}

// ruleFor returns the rule of the longest override that the name matches.
func (g *generation) ruleFor(name string) *rule {
	if r := g.rules[name]; r != nil {
		return r
	}
	best, found := "", g.service
	for prefix, r := range g.rules {
		if len(prefix) > len(best) && strings.HasSuffix(prefix, "/") && strings.HasPrefix(name, prefix) {
			best, found = prefix, r
		}
	}
	return found
}

// Name returns the full method name.
func (m *Method) Name() string { return m.name }

// Service returns the service that the method belongs to.
func (m *Method) Service() *Service { return m.service }

// Policy returns the policy that the method's calls are under.
func (m *Method) Policy() *Policy { return &m.rule.policy }
