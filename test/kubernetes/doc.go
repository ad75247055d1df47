// Package kubernetes holds discovery's Kubernetes source against a real API
// server: kube-apiserver and etcd, both built from their modules, pinned in
// apiserver/go.mod. There is no kubelet and no controller manager: the test
// writes the EndpointSlices.
//
//	make test-kubernetes   # builds both (about 6 minutes the first time) and runs it
//
// Without the two binaries the tests skip, by name.
package kubernetes
