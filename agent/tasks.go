package agent

import "github.com/outrigger-rpc/outrigger/agent/api"

func (a *Agent) taskPromises() []api.Promise { return nil }
