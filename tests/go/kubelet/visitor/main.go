// Visitor speaks with a kubelet as the API server does, by Kubernetes' own
// client library, and serves the health check that probes of type grpc ask.
//
//	visitor get URL
//	visitor exec|attach [-websocket] [-tty] [-stdin] URL
//	visitor forward [-websocket] URL LOCAL:REMOTE
//	visitor health ADDRESS
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/client-go/util/exec"
)

// The kubelet under test signs its own certificate.
var config = &rest.Config{TLSClientConfig: rest.TLSClientConfig{Insecure: true}}

func main() {
	if err := run(os.Args[1:]); err != nil {
		var ended exec.CodeExitError
		if errors.As(err, &ended) {
			os.Exit(ended.Code)
		}
		fmt.Fprintln(os.Stderr, "visitor:", err)
		os.Exit(255)
	}
}

func run(arguments []string) error {
	if len(arguments) == 0 {
		return errors.New("usage: visitor get|exec|attach|forward|health …")
	}
	flags := flag.NewFlagSet(arguments[0], flag.ExitOnError)
	websocket := flags.Bool("websocket", false, "WebSocket instead of SPDY")
	tty := flags.Bool("tty", false, "ask for a terminal")
	stdin := flags.Bool("stdin", false, "send standard input")
	if err := flags.Parse(arguments[1:]); err != nil {
		return err
	}
	switch arguments[0] {
	case "get":
		return get(flags.Arg(0))
	case "exec", "attach":
		return stream(flags.Arg(0), *websocket, *tty, *stdin)
	case "forward":
		return forward(flags.Arg(0), flags.Arg(1), *websocket)
	case "health":
		return serveHealth(flags.Arg(0))
	default:
		return fmt.Errorf("no command %q", arguments[0])
	}
}

func get(address string) error {
	transport, err := rest.TransportFor(config)
	if err != nil {
		return err
	}
	response, err := (&http.Client{Transport: transport}).Get(address)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if _, err := io.Copy(os.Stdout, response.Body); err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return errors.New(response.Status)
	}
	return nil
}

func stream(address string, websocket, tty, stdin bool) error {
	executor, err := executor(address, websocket)
	if err != nil {
		return err
	}
	options := remotecommand.StreamOptions{Stdout: os.Stdout, Tty: tty}
	if stdin {
		options.Stdin = os.Stdin
	}
	if !tty {
		options.Stderr = os.Stderr
	}
	return executor.StreamWithContext(context.Background(), options)
}

func executor(address string, websocket bool) (remotecommand.Executor, error) {
	if websocket {
		return remotecommand.NewWebSocketExecutor(config, http.MethodGet, address)
	}
	parsed, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	return remotecommand.NewSPDYExecutor(config, http.MethodPost, parsed)
}

// forward runs until it is killed; "Forwarding from" on standard output says
// that it is ready.
func forward(address, ports string, websocket bool) error {
	parsed, err := url.Parse(address)
	if err != nil {
		return err
	}
	transport, upgrader, err := spdy.RoundTripperFor(config)
	if err != nil {
		return err
	}
	dialer := spdy.NewDialer(upgrader, &http.Client{Transport: transport}, http.MethodPost, parsed)
	if websocket {
		if dialer, err = portforward.NewSPDYOverWebsocketDialer(parsed, config); err != nil {
			return err
		}
	}
	forwarder, err := portforward.New(dialer, []string{ports}, nil, nil, os.Stdout, os.Stderr)
	if err != nil {
		return err
	}
	return forwarder.ForwardPorts()
}

func serveHealth(address string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	healthv1.RegisterHealthServer(server, health.NewServer())
	return server.Serve(listener)
}
