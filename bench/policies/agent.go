package main

import (
	"fmt"
	"strings"

	"google.golang.org/grpc"

	"github.com/outrigger-rpc/outrigger/bench/memory/sidecar"
)

// service is the name that the agents serve the upstreams under.
const service = "upstream"

// throughAgent starts an agent before the upstreams with a policy in YAML,
// one field a line, and opens connections to it. Empty: the default policies.
func throughAgent(policy string, n int, to ...*upstream) (ccs []*grpc.ClientConn, shut func() error, err error) {
	var endpoints []string
	for _, u := range to {
		endpoints = append(endpoints, fmt.Sprintf("{address: %q}", u.address))
	}
	config := fmt.Sprintf(`
egress: {address: "127.0.0.1:0"}
api: {address: "127.0.0.1:0"}
admin: {address: "127.0.0.1:0"}
services:
  - name: %s
    endpoints: {static: [%s]}
`, service, strings.Join(endpoints, ", "))
	if policy != "" {
		config += "    policy:\n"
	}
	for line := range strings.Lines(policy) {
		config += "      " + line
	}
	agent, err := sidecar.Start(*binary, config)
	if err != nil {
		return nil, nil, err
	}
	ccs, leave, err := connect(agent.Egress, service, n)
	if err != nil {
		agent.Stop()
		return nil, nil, err
	}
	return ccs, func() error {
		defer agent.Stop()
		return leave()
	}, nil
}
