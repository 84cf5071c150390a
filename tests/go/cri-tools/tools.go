//go:build tools

// Package tools pins what Corten is tested with: crictl, critest, and the
// runner that critest starts to run specs in parallel.
package tools

import (
	_ "github.com/onsi/ginkgo/v2/ginkgo"
	_ "sigs.k8s.io/cri-tools/cmd/crictl"
	// critest is a test program: what it imports.
	_ "sigs.k8s.io/cri-tools/pkg/benchmark"
	_ "sigs.k8s.io/cri-tools/pkg/validate"
)
