package agent

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

// half is an endpoint whose health check by HTTP passes or fails as it is told,
// and that ends every connection for calls. It keeps a book: "f" and "p" are
// checks that failed and passed, "c" is a connect for calls, and a test adds its
// own. Checks come every 100 ms, so they tell in the book how much time passed.
type half struct {
	address string
	mu      sync.Mutex
	well    bool
	book    []string
}

func startHalf(t *testing.T) *half {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := &half{address: l.Addr().String()}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { h.answer(nc) })
		}
	})
	t.Cleanup(func() { l.Close(); serving.Wait() })
	return h
}

func (h *half) answer(nc net.Conn) {
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(5 * time.Second))
	line, err := bufio.NewReader(nc).ReadString('\n')
	if err != nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case !strings.HasPrefix(line, "GET "):
		h.book = append(h.book, "c")
	case h.well:
		h.book = append(h.book, "p")
		fmt.Fprint(nc, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
	default:
		h.book = append(h.book, "f")
		fmt.Fprint(nc, "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
	}
}

// note adds to the book.
func (h *half) note(what string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.book = append(h.book, what)
}

// since returns the book from the first of some entries on.
func (h *half) since(what string) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := slices.Index(h.book, what)
	if i < 0 {
		return nil
	}
	return slices.Clone(h.book[i:])
}

func (h *half) count(what string) (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, entry := range h.book {
		if entry == what {
			n++
		}
	}
	return n
}

// awaitBackoff waits until the agent has just tried so often in vain that it
// would wait 1.3 s or more, which is a dozen checks.
func (h *half) awaitBackoff(t *testing.T) {
	t.Helper()
	eventually(t, "seven connects", func() bool { return h.count("c") >= 7 })
}

// connectsBefore checks that a connect follows an entry sooner than so many
// checks.
func (h *half) connectsBefore(t *testing.T, mark string, checks int) {
	t.Helper()
	count := func(entries []string) (n int) {
		for _, entry := range entries {
			if entry == "f" || entry == "p" {
				n++
			}
		}
		return n
	}
	eventually(t, fmt.Sprintf("%d checks after %s", checks+1, mark), func() bool { return count(h.since(mark)) > checks })
	after := h.since(mark)
	if first := slices.Index(after, "c"); first < 0 || count(after[:first]) > checks {
		t.Errorf("no connect within %d checks of %s: %v", checks, mark, after)
	}
}

const halfPolicy = "connections: {warm: 1}, health_check: {http: {path: /}, interval: 100ms}"

// TestACheckThatPassesHurriesAConnect: once it is seen that an endpoint is back,
// it is connected without waiting for the rest of its backoff; checks that go on
// passing while connects fail don't make it more often than that.
func TestACheckThatPassesHurriesAConnect(t *testing.T) {
	h := startHalf(t)
	startAgent(t, configOf(halfPolicy, &upstream{address: h.address}))
	h.awaitBackoff(t)

	h.mu.Lock()
	h.well = true
	h.mu.Unlock()

	h.connectsBefore(t, "p", 3)
	eventually(t, "30 checks that passed", func() bool { return h.count("p") >= 30 })
	connects := 0
	for _, entry := range h.since("p") {
		if entry == "c" {
			connects++
		}
	}
	if connects > 10 {
		t.Errorf("%d connects while 30 checks passed and nothing changed", connects)
	}
}

// TestAnEndpointThatIsUndrainedIsConnectedAtOnce: an operator who lets it come
// back need not wait for its backoff.
func TestAnEndpointThatIsUndrainedIsConnectedAtOnce(t *testing.T) {
	h := startHalf(t)
	a := startAgent(t, configOf(halfPolicy, &upstream{address: h.address}))
	a.drainEndpoint(h.address)
	h.awaitBackoff(t)

	h.note("undrained")
	if _, err := a.control().UndrainEndpoint(t.Context(), &outriggerv1.UndrainEndpointRequest{Address: h.address}); err != nil {
		t.Fatal(err)
	}

	h.connectsBefore(t, "undrained", 3)
}

// TestAProgramThatRegistersAgainIsConnectedAtOnce: it has begun anew.
func TestAProgramThatRegistersAgainIsConnectedAtOnce(t *testing.T) {
	h := startHalf(t)
	a := startAgent(t, discovering("{registered: {}}")+"    policy: {"+halfPolicy+"}\n")
	register := func() {
		t.Helper()
		if _, err := a.control().RegisterEndpoint(t.Context(), &outriggerv1.RegisterEndpointRequest{
			Service: "echo", Endpoint: &outriggerv1.Registration{Address: h.address}, Lease: durationpb.New(time.Minute),
		}); err != nil {
			t.Fatal(err)
		}
	}
	register()
	h.awaitBackoff(t)

	h.note("registered anew")
	register()

	h.connectsBefore(t, "registered anew", 3)
}

// TestAnEndpointThatItsSourceNamesAgainIsConnectedAtOnce: it was missing for a
// moment.
func TestAnEndpointThatItsSourceNamesAgainIsConnectedAtOnce(t *testing.T) {
	h, other := startHalf(t), startUpstream(t)
	path := filepath.Join(t.TempDir(), "endpoints.yaml")
	write := func(addresses ...string) {
		t.Helper()
		text := ""
		for _, address := range addresses {
			text += fmt.Sprintf("- address: %q\n", address)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(h.address, other.address)
	a := startAgent(t, discovering(fmt.Sprintf("{file: {path: %q}}", path))+"    policy: {"+halfPolicy+"}\n")
	h.awaitBackoff(t)
	write(other.address)
	eventually(t, "it is missing", func() bool { return a.endpoint(h.address).GetState() == outriggerv1.Endpoint_DRAINING })

	h.note("named again")
	write(h.address, other.address)

	h.connectsBefore(t, "named again", 5) // a change is passed on after 100 ms
}
