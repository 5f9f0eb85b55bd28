//go:build race

package pmemsim

const raceDetector = true
