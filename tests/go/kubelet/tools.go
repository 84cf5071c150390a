//go:build tools

// Package kubelet pins the kubelet that Corten is tested under.
package kubelet

import _ "k8s.io/kubernetes/cmd/kubelet"
