package main

import (
	"fmt"
	"slices"
)

// print shows what each proxy needed for one load.
func (r result) print() {
	fmt.Printf("\n%v, %d rounds\n", r.load, *rounds)
	fmt.Printf("  %-18s %30s %30s\n", "proxy", "CPU µs/call (min–max)", "mean latency µs (min–max)")
	for _, name := range r.order {
		c, l := r.figures[cpu][name], r.figures[latency][name]
		fmt.Printf("  %-18s %11.2f (%7.2f–%8.2f) %11.0f (%7.0f–%8.0f)\n", name,
			median(c), slices.Min(c), slices.Max(c), median(l), slices.Min(l), slices.Max(l))
	}
}

// printRatios shows Outrigger's share of every peer's figures, load by load.
func printRatios(results []result) {
	fmt.Printf("\nOutrigger ÷ peer %*s %s\n", 22, cpu, fmt.Sprintf("%36s", latency))
	fmt.Printf("  %-10s", "")
	others := proxyNames()[2:] // neither Outrigger nor its own other self
	for range 2 {
		for _, peer := range others {
			fmt.Printf(" %10s", "÷ "+peer)
		}
		fmt.Print("  ")
	}
	fmt.Println()
	for _, r := range results {
		fmt.Printf("  %-10s", r.load.name)
		for _, f := range []figure{cpu, latency} {
			for _, peer := range others {
				cell := "–"
				if share, ok := r.ratio(f, peer); ok {
					cell = fmt.Sprintf("%.2f", share)
				}
				fmt.Printf(" %10s", cell)
			}
			fmt.Print("  ")
		}
		fmt.Println()
	}
}

// printCost shows what the policies cost a call, load by load.
func printCost(results []result) {
	for _, r := range results {
		if added, ok := r.added(); ok {
			fmt.Printf("\n%s: every policy on adds %+.2f µs of CPU a call (%+.2f–%+.2f)", r.load.name, median(added), slices.Min(added), slices.Max(added))
		}
	}
	fmt.Println()
}

// judge prints every goal with what became of it. An error says that one was
// missed.
func judge(results []result) error {
	fmt.Println("\ngoals")
	missed := 0
	for _, g := range goals {
		verdict := "not judged: " + g.load + " was not run"
		for _, r := range results {
			if r.load.name != g.load {
				continue
			}
			switch share, ok := r.ratio(g.figure, g.peer); {
			case !ok:
				verdict = "not judged: " + g.peer + " did not run"
			case share > g.most:
				verdict = fmt.Sprintf("%.2f  MISSED", share)
				missed++
			default:
				verdict = fmt.Sprintf("%.2f  met", share)
			}
		}
		fmt.Printf("  %-10s %-13s ≤ %.2f × %-8s %s\n", g.load, g.figure, g.most, g.peer, verdict)
	}
	verdict := "not judged: " + costLoad + " was not run with policies"
	for _, r := range results {
		if added, ok := r.added(); ok && r.load.name == costLoad {
			verdict = fmt.Sprintf("%.2f  met", median(added))
			if median(added) > mostAdded {
				verdict = fmt.Sprintf("%.2f  MISSED", median(added))
				missed++
			}
		}
	}
	fmt.Printf("  %-10s %-13s ≤ %.2f µs          %s\n", costLoad, "policies add", mostAdded, verdict)
	if missed > 0 {
		return fmt.Errorf("%d of %d goals missed", missed, len(goals)+1)
	}
	return nil
}
