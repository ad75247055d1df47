package store

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

func TestAFullDiskRefusesAndRecovers(t *testing.T) {
	// Given a store whose file may not grow, which to SQLite is a full disk,
	s := open(t, inFile(t))
	s.start(1, func(_ context.Context, j Job) { s.finish(j, Completed(nil)) })
	limit := func(pages string) {
		var n int
		if err := s.exec.QueryRow(context.Background(), "PRAGMA max_page_count = "+pages).Scan(&n); err != nil {
			t.Error(err)
		}
	}
	limit("1") // as many as it has

	// when a large task is submitted,
	_, err := s.Insert(t.Context(), []New{{Kind: "echo", Queue: "default", MaxAttempts: 1, Body: bytes.Repeat([]byte("x"), 1<<20)}})

	// then it is refused, in plain words,
	var why *Unavailable
	if !errors.As(err, &why) || !strings.Contains(why.Why, "full") {
		t.Fatalf("%v, want that the disk is full", err)
	}

	// and once there is room, tasks are accepted and run without a restart.
	limit("1000000")
	deadline := time.Now().Add(15 * time.Second)
	for {
		in, err := s.Insert(t.Context(), []New{{Kind: "echo", Queue: "default", MaxAttempts: 1, Body: bytes.Repeat([]byte("x"), 1<<20)}})
		if err == nil {
			s.eventually(in[0].Job.ID, Done)
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	if p := s.Problem(); p != "" {
		t.Error(p)
	}
}
