// Package apiserver pins what test/kubernetes runs against: a real API server
// and the store behind it. `go build k8s.io/kubernetes/cmd/kube-apiserver` and
// `go build go.etcd.io/etcd/server/v3` in this module make them.
package apiserver
