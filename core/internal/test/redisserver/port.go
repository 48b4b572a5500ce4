package redisserver

import (
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
)

const (
	// Ports are taken from below those that systems give to outgoing connections (from 32768 on Linux, from 49152
	// elsewhere): a server that is down must find its port free when it comes back.
	lowestPort  = 11000
	highestPort = 22000

	// busOffset is from a cluster node's port to that of its bus.
	busOffset = 10000
)

// loopback is where everything of this package listens.
const loopback = "127.0.0.1"

func loopbackAddr(port int) string { return net.JoinHostPort(loopback, strconv.Itoa(port)) }

// freePort finds a port that is free, as is that of the bus. Someone may take it before its user does.
func freePort() (int, error) {
	for range 1000 {
		port := lowestPort + rand.IntN(highestPort-lowestPort)
		if free(port) && free(port+busOffset) {
			return port, nil
		}
	}
	return 0, errors.New("no free port found")
}

func free(port int) bool {
	l, err := net.Listen("tcp", loopbackAddr(port))
	if err != nil {
		return false
	}
	return l.Close() == nil
}
