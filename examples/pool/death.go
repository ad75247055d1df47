package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/outrigger-rpc/outrigger/guard"
)

// death: a worker that dies gives its connection back.
func (p *pool) death(ctx context.Context) error {
	fmt.Println("-- a worker, a process of its own, is killed in mid-work")
	self, err := os.Executable()
	if err != nil {
		return err
	}
	worker := exec.CommandContext(ctx, self, "worker", p.api, p.book.path)
	worker.Stderr = os.Stderr
	out, err := worker.StdoutPipe()
	if err != nil {
		return err
	}
	if err := worker.Start(); err != nil {
		return err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	id, parsed := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
	if err != nil || parsed != nil {
		_ = worker.Process.Kill()
		return fmt.Errorf("the worker says %q: %w", line, worker.Wait())
	}
	held, err := p.take(ctx, connections-1)
	if err != nil {
		return err
	}
	r := request()
	r.Wait = guard.NoWait
	_, full := p.client.Acquire(ctx, r)
	fmt.Println("while it works:", full)

	if err := p.book.leave(ctx, id); err != nil { // it can't write that down itself
		return err
	}
	begun := time.Now()
	if err := worker.Process.Kill(); err != nil {
		return err
	}
	next, err := p.client.Acquire(ctx, request())
	if err != nil {
		return err
	}
	took := time.Since(begun)
	fmt.Printf("the next one in turn has its connection %d ms after its death\n", took.Milliseconds())
	_ = worker.Wait() // killed
	for _, permit := range append(held, next) {
		permit.Done(nil)
	}
	if guard.Reason(full) != "CONCURRENCY_LIMIT" {
		return fmt.Errorf("the pool was not full: %w", full)
	}
	if took > 3*time.Second {
		return fmt.Errorf("its connection came back after %v", took)
	}
	return nil
}

// workUntilKilled is the worker: it takes a permit, says which visit it begins,
// and never ends.
func workUntilKilled(api, path string) error {
	client, err := guard.Dial(api)
	if err != nil {
		return err
	}
	defer client.Close()
	ctx := context.Background()
	if _, err := client.Acquire(ctx, request()); err != nil {
		return err
	}
	db, err := connect(path)
	if err != nil {
		return err
	}
	defer db.Close()
	id, err := begin(ctx, db, "the worker that dies")
	if err != nil {
		return err
	}
	fmt.Println(id)
	time.Sleep(time.Minute) // whoever forgets to kill it does not have it for ever
	return nil
}
