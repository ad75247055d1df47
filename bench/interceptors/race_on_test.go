//go:build race

package interceptors

const raceDetector = true
