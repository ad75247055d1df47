// Package slabench measures package sla beside HdrHistogram and DDSketch. It is
// a module of its own, so that peers never become dependencies of the product.
package slabench
