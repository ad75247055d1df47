// Command pool shows Guard as a bounded pool of database connections: workers of
// several processes and languages share at most three connections to one SQLite
// database, and wait for them in turn.
//
//	cd examples/pool && go run .
//
// It is a module of its own, so that what SQLite needs reaches nobody else.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/outrigger-rpc/outrigger/examples/internal/stage"
	"github.com/outrigger-rpc/outrigger/guard"
)

// connections is max_in_flight of outrigger.yaml.
const connections = 3

func main() {
	if len(os.Args) == 4 && os.Args[1] == "worker" {
		if err := workUntilKilled(os.Args[2], os.Args[3]); err != nil {
			fmt.Fprintln(os.Stderr, "worker:", err)
			os.Exit(1)
		}
		return
	}
	stage.Main("pool", run)
}

func run(ctx context.Context) error {
	if err := os.Chdir("../.."); err != nil { // stage found this module's root; the agent is in the repository's
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute) // the first run installs grpcio
	defer cancel()
	dir, err := os.MkdirTemp("", "pool")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	book, err := openBook(filepath.Join(dir, "visits.db"))
	if err != nil {
		return err
	}
	defer book.Close()
	agent, err := stage.StartAgent(ctx, "examples/pool/outrigger.yaml")
	if err != nil {
		return err
	}
	defer agent.Stop()
	client, err := guard.Dial(agent.API)
	if err != nil {
		return err
	}
	defer client.Close()
	p := &pool{client: client, book: book, api: agent.API}
	for _, part := range []func(context.Context) error{p.share, p.queue, p.timedWait, p.death, p.lease, p.python} {
		if err := part(ctx); err != nil {
			return err
		}
	}
	visits, most, err := book.peak(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("-- %d visits in all, by the database's own account at most %d at once\n", visits, most)
	if most != connections {
		return fmt.Errorf("at most %d at once; want %d", most, connections)
	}
	return nil
}

// pool is the pool as a program uses it.
type pool struct {
	client *guard.Client
	book   *book
	api    string
}

// request is what every worker asks for.
func request() guard.Request { return guard.Request{Service: "database"} }

// share: 12 workers, 3 connections.
func (p *pool) share(ctx context.Context) error {
	fmt.Println("-- 12 workers share 3 connections")
	begun := time.Now()
	err := together(12, func(i int) error {
		for range 4 {
			err := p.client.Do(ctx, request(), func(ctx context.Context, _ *guard.Permit) error {
				return p.book.visit(ctx, fmt.Sprintf("worker %d", i+1), 40*time.Millisecond)
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	fmt.Printf("48 visits of 40 ms in %d ms\n", time.Since(begun).Milliseconds())
	return err
}

// queue: who waits is served in turn.
func (p *pool) queue(ctx context.Context) error {
	fmt.Println("-- who waits is served in turn")
	held, err := p.take(ctx, connections)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	var order []int
	var all sync.WaitGroup
	var failed error
	for i := range 6 {
		all.Go(func() {
			permit, err := p.client.Acquire(ctx, request())
			mu.Lock()
			order, failed = append(order, i+1), errors.Join(failed, err)
			mu.Unlock()
			if err == nil {
				time.Sleep(30 * time.Millisecond)
				permit.Done(nil)
			}
		})
		time.Sleep(30 * time.Millisecond) // so that they come one after the other
	}
	held[0].Done(nil)
	all.Wait()
	for _, permit := range held[1:] {
		permit.Done(nil)
	}
	fmt.Println("they came as 1 2 3 4 5 6, and were served as", order)
	if failed == nil && !slices.IsSorted(order) {
		failed = fmt.Errorf("served as %v", order)
	}
	return failed
}

// timedWait: a wait has an end.
func (p *pool) timedWait(ctx context.Context) error {
	fmt.Println("-- a wait has an end")
	held, err := p.take(ctx, connections)
	if err != nil {
		return err
	}
	begun := time.Now()
	r := request()
	r.Wait = 200 * time.Millisecond
	_, err = p.client.Acquire(ctx, r)
	fmt.Printf("after %d ms: %v\n", time.Since(begun).Milliseconds(), err)
	for _, permit := range held {
		permit.Done(nil)
	}
	if guard.Reason(err) != "QUEUE_TIMEOUT" {
		return fmt.Errorf("the wait ended with %w; want QUEUE_TIMEOUT", err)
	}
	return nil
}

// lease: a worker that hangs loses its connection.
func (p *pool) lease(ctx context.Context) error {
	fmt.Println("-- a worker hangs with its connection, on a lease of 500 ms")
	r := request()
	r.Lease = 500 * time.Millisecond
	hung, err := p.client.Acquire(ctx, r)
	if err != nil {
		return err
	}
	held, err := p.take(ctx, connections-1)
	if err != nil {
		return err
	}
	begun := time.Now()
	next, err := p.client.Acquire(ctx, request())
	if err != nil {
		return err
	}
	took := time.Since(begun)
	fmt.Printf("the next one in turn has it after %d ms\n", took.Milliseconds())
	_, late := hung.Report(ctx, guard.Outcome{})
	fmt.Println("the worker comes back:", late)
	for _, permit := range append(held, next) {
		permit.Done(nil)
	}
	if took > 3*time.Second {
		return fmt.Errorf("the lease ended after %v", took)
	}
	if late == nil {
		return errors.New("its report was taken")
	}
	return nil
}

// take acquires n permits.
func (p *pool) take(ctx context.Context, n int) ([]*guard.Permit, error) {
	held := make([]*guard.Permit, n)
	for i := range held {
		var err error
		if held[i], err = p.client.Acquire(ctx, request()); err != nil {
			return nil, err
		}
	}
	return held, nil
}

// together runs n at once and returns their errors.
func together(n int, do func(i int) error) error {
	errs := make([]error, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { errs[i] = do(i) })
	}
	all.Wait()
	return errors.Join(errs...)
}
