package main

// This file is attacks whose weapon is the number of connections.

// greeting opens the connection as a good client does and leaves it idle.
type greeting struct{}

func (greeting) strike(p *peer) error {
	if err := p.hello(); err != nil {
		return err
	}
	p.watch()
	return p.stay()
}
