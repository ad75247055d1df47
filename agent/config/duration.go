package config

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
)

const day = 24 * time.Hour

// parseDuration is time.ParseDuration with days before the rest: 30d, 1d12h.
// A day is 24 hours.
func parseDuration(text string) (time.Duration, error) {
	number, rest, hasDays := strings.Cut(text, "d")
	if !hasDays {
		return time.ParseDuration(text)
	}
	days, err := strconv.ParseUint(number, 10, 16)
	if err != nil {
		return 0, errors.New("days are whole numbers and come first")
	}
	d := time.Duration(days) * day
	if rest == "" {
		return d, nil
	}
	more, err := time.ParseDuration(rest)
	switch {
	case err != nil:
		return 0, err
	case rest[0] == '+', rest[0] == '-', more > math.MaxInt64-d:
		return 0, errors.New("want what is left of the days")
	}
	return d + more, nil
}

// durations decodes them for protoyaml, which knows no days.
type durations struct{}

// Unmarshal implements protoyaml.CustomUnmarshaler.
func (durations) Unmarshal(node *yaml.Node, message proto.Message) (bool, error) {
	d, ok := message.(*durationpb.Duration)
	if !ok || node.Kind != yaml.ScalarNode || isNull(node) {
		return false, nil
	}
	parsed, err := parseDuration(node.Value)
	if err != nil {
		return true, err
	}
	d.Seconds, d.Nanos = int64(parsed/time.Second), int32(parsed%time.Second)
	return true, nil
}

// short writes a duration as a user would: 5m and not 5m0s, 30d and not
// 720h0m0s.
func short(d time.Duration) string {
	if d >= day && d%day == 0 {
		return strconv.FormatInt(int64(d/day), 10) + "d"
	}
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
