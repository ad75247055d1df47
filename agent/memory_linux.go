package agent

import (
	"bufio"
	"bytes"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// forgetStartup takes the pages of the program file that only starting needed
// (reading the configuration runs a whole rule compiler) out of the process's
// memory. They are clean: what is needed after all comes back from the page
// cache on its next use.
func forgetStartup() {
	file, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return
	}
	lines := bufio.NewScanner(bytes.NewReader(maps))
	for lines.Scan() {
		if start, length, ok := readOnlyMapping(lines.Text(), file); ok {
			// The range is the program's own text or constants, mapped for its
			// whole life and not writable: nothing can be lost.
			_, _, _ = unix.RawSyscall(unix.SYS_MADVISE, start, uintptr(length), unix.MADV_DONTNEED)
		}
	}
}

// readOnlyMapping reads a line of /proc/PID/maps; ok says that it maps the file
// and can't be written.
func readOnlyMapping(line, file string) (start uintptr, length int, ok bool) {
	fields := bytes.Fields([]byte(line))
	if len(fields) != 6 || string(fields[5]) != file || len(fields[1]) < 4 || fields[1][0] != 'r' || fields[1][1] == 'w' {
		return 0, 0, false
	}
	from, to, found := bytes.Cut(fields[0], []byte("-"))
	if !found {
		return 0, 0, false
	}
	a, errA := strconv.ParseUint(string(from), 16, 64)
	b, errB := strconv.ParseUint(string(to), 16, 64)
	if errA != nil || errB != nil || b <= a {
		return 0, 0, false
	}
	return uintptr(a), int(b - a), true
}
