package discovery

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outrigger-rpc/outrigger/balancer"
)

// page is a file as the source sees it, whose writes the test makes.
type page struct {
	mu      sync.Mutex
	list    []balancer.Spec
	err     error
	changed func()
	broken  chan error
}

func (p *page) load(string) ([]balancer.Spec, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.list, p.err
}

func (p *page) watch(ctx context.Context, _ string, changed func()) error {
	p.mu.Lock()
	p.changed = changed
	p.mu.Unlock()
	select {
	case err := <-p.broken:
		return err
	case <-ctx.Done():
		return nil
	}
}

// write changes the file; an event tells of it.
func (p *page) write(err error, addresses ...string) {
	p.mu.Lock()
	p.list, p.err = nil, err
	for _, a := range addresses {
		p.list = append(p.list, balancer.Spec{Address: a, Weight: 1})
	}
	changed := p.changed
	p.mu.Unlock()
	if changed != nil {
		changed()
	}
}

func paged(t *testing.T, test func(*page, *Feed, *delivered)) {
	synctest.Test(t, func(*testing.T) {
		p, got := &page{broken: make(chan error)}, &delivered{}
		p.write(nil, "a:1")
		f := NewFeed(FeedOptions{Source: NewFile(FileOptions{Path: "e.yaml", Load: p.load, Watch: p.watch}), Deliver: got.deliver})
		f.Start()
		synctest.Wait()
		test(p, f, got)
		f.Stop()
	})
}

func TestAFileIsReadAtFirstAndWhenItChanges(t *testing.T) {
	paged(t, func(p *page, f *Feed, got *delivered) {
		if !got.have("a:1")() || f.Status().Source != "file e.yaml" {
			t.Fatalf("%v, %+v", got.last(), f.Status())
		}
		p.write(nil, "a:1", "b:1")
		time.Sleep(DefaultCoalesce)
		synctest.Wait()
		if !got.have("a:1", "b:1")() {
			t.Errorf("%v", got.last())
		}
	})
}

func TestAFileThatIsWrongKeepsTheLastSet(t *testing.T) {
	paged(t, func(p *page, f *Feed, got *delivered) {
		p.write(errors.New("e.yaml:3:5: want a list"))
		time.Sleep(time.Minute)
		synctest.Wait()
		if s := f.Status(); !s.Stale || s.Problem != "e.yaml:3:5: want a list" || s.Age < time.Minute || !got.have("a:1")() {
			t.Errorf("%+v, %v", s, got.last())
		}

		p.mu.Lock()
		p.err = nil // put back as it was: the same content is no change
		p.list = []balancer.Spec{{Address: "a:1"}}
		p.mu.Unlock()
		time.Sleep(fileAgain)
		synctest.Wait()
		if s := f.Status(); s.Stale || s.Problem != "" || len(got.all()) != 1 {
			t.Errorf("%+v, %v", s, got.all())
		}
	})
}

func TestAFileThatVanishedUnseenIsNoticed(t *testing.T) {
	paged(t, func(p *page, f *Feed, got *delivered) {
		p.mu.Lock()
		p.err = errors.New("no such file")
		p.mu.Unlock()
		time.Sleep(fileLook + time.Second)
		synctest.Wait()
		if s := f.Status(); !s.Stale || !got.have("a:1")() {
			t.Errorf("%+v, %v", s, got.last())
		}
	})
}

func TestAWatchThatFailsIsTriedAgain(t *testing.T) {
	paged(t, func(p *page, f *Feed, got *delivered) {
		p.broken <- errors.New("no space left on device")
		synctest.Wait()
		if s := f.Status(); s.Problem != "e.yaml is not watched: no space left on device" {
			t.Errorf("%+v", s)
		}
		time.Sleep(time.Second)
		p.write(nil, "c:1")
		time.Sleep(time.Second + DefaultHold)
		synctest.Wait()
		if s := f.Status(); s.Problem != "" || !got.have("c:1")() {
			t.Errorf("%+v, %v", s, got.last())
		}
	})
}

func TestAnEmptyListSaysSo(t *testing.T) {
	paged(t, func(p *page, f *Feed, got *delivered) {
		p.write(nil)
		time.Sleep(DefaultHold + time.Second)
		synctest.Wait()
		if s := f.Status(); s.Stale || s.Problem != "e.yaml lists no endpoints" || !got.have()() {
			t.Errorf("%+v, %v", s, got.last())
		}
	})
}
