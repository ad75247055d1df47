// Package conformance holds one table of behaviours against the four ways into
// the policies: the core by itself, the relay, the interceptors and the permits
// API. Each row of testdata is a policy as a configuration file has it, and a
// script of calls and answers in virtual time; every door that the row is for
// has to decide the same. testdata/README.md says how rows are written.
//
// All of it is tests: there is nothing to import.
package conformance
