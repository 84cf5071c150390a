//go:build tools

// Package crictl pins the CRI client that Corten is tested with.
package crictl

import _ "sigs.k8s.io/cri-tools/cmd/crictl"
