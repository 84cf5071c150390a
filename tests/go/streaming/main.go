// A client of Corten's streams, made of what kubectl is made of.
//
//	streaming run [flags] URL          exec and attach: stdin, stdout, stderr, exit code
//	streaming forward [flags] URL PORT...   until stdin ends
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/client-go/util/exec"
)

// The exit code for whatever is not the remote command's.
const failed = 250

func main() {
	if len(os.Args) < 2 {
		fail(errors.New("run or forward?"))
	}
	flags := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	transport := flags.String("transport", "spdy", "spdy or websocket")
	protocols := flags.String("protocols", "", "what is offered, instead of the usual")
	insecure := flags.Bool("insecure", false, "accept any certificate")
	stdin := flags.Bool("stdin", false, "send stdin")
	stdout := flags.Bool("stdout", true, "receive stdout")
	stderr := flags.Bool("stderr", true, "receive stderr")
	tty := flags.Bool("tty", false, "a terminal")
	sizes := flags.String("sizes", "", "its sizes, one after the other: 80x24,132x43")
	flags.Parse(os.Args[2:])
	target, err := url.Parse(flags.Arg(0))
	if err != nil {
		fail(err)
	}
	config := &rest.Config{TLSClientConfig: rest.TLSClientConfig{Insecure: *insecure}}
	if os.Args[1] == "forward" {
		forward(config, *transport, target, flags.Args()[1:])
		return
	}
	options := remotecommand.StreamOptions{Tty: *tty}
	if *stdin {
		options.Stdin = os.Stdin
	}
	if *stdout {
		options.Stdout = os.Stdout
	}
	if *stderr && !*tty {
		options.Stderr = os.Stderr
	}
	if *tty {
		options.TerminalSizeQueue = &queue{left: strings.Split(*sizes, ",")}
	}
	executor, err := executor(config, *transport, *protocols, target)
	if err != nil {
		fail(err)
	}
	finish(executor.StreamWithContext(context.Background(), options))
}

func executor(config *rest.Config, transport, protocols string, target *url.URL) (remotecommand.Executor, error) {
	if transport == "websocket" {
		if protocols == "" {
			return remotecommand.NewWebSocketExecutor(config, "GET", target.String())
		}
		return remotecommand.NewWebSocketExecutorForProtocols(config, "GET", target.String(), strings.Split(protocols, ",")...)
	}
	if protocols == "" {
		return remotecommand.NewSPDYExecutor(config, "POST", target)
	}
	round, upgrader, err := spdy.RoundTripperFor(config)
	if err != nil {
		return nil, err
	}
	return remotecommand.NewSPDYExecutorForProtocols(round, upgrader, "POST", target, strings.Split(protocols, ",")...)
}

func forward(config *rest.Config, transport string, target *url.URL, ports []string) {
	stop, ready := make(chan struct{}), make(chan struct{})
	go func() {
		io.Copy(io.Discard, os.Stdin)
		close(stop)
	}()
	run := func(forwarder *portforward.PortForwarder, err error) {
		if err == nil {
			err = forwarder.ForwardPorts()
		}
		if err != nil {
			fail(err)
		}
	}
	if transport == "websocket" {
		dialer, err := portforward.NewSPDYOverWebsocketDialer(target, config)
		if err != nil {
			fail(err)
		}
		run(portforward.NewOnAddresses(dialer, []string{"127.0.0.1"}, ports, stop, ready, os.Stdout, os.Stderr))
		return
	}
	round, upgrader, err := spdy.RoundTripperFor(config)
	if err != nil {
		fail(err)
	}
	dialer := spdy.NewDialer(upgrader, &http.Client{Transport: round}, "POST", target)
	run(portforward.NewOnAddresses(dialer, []string{"127.0.0.1"}, ports, stop, ready, os.Stdout, os.Stderr))
}

// Sizes to tell, a moment apart, so that none overtakes the one before it.
type queue struct {
	left []string
	told bool
}

func (q *queue) Next() *remotecommand.TerminalSize {
	if len(q.left) == 0 {
		return nil
	}
	if q.told {
		time.Sleep(100 * time.Millisecond)
	}
	q.told = true
	size := new(remotecommand.TerminalSize)
	if _, err := fmt.Sscanf(q.left[0], "%dx%d", &size.Width, &size.Height); err != nil {
		return nil
	}
	q.left = q.left[1:]
	return size
}

func finish(err error) {
	var code exec.CodeExitError
	if errors.As(err, &code) {
		os.Exit(code.Code)
	}
	if err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "streaming:", err)
	os.Exit(failed)
}
