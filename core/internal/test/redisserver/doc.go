// Package redisserver starts real redis-server processes, for tests and for programs, on free ports of the loopback:
// a single server ([Start]), a replica ([StartReplica]), a cluster ([StartCluster]), a master with its sentinels
// ([StartSentinel]). It ends them whatever happens, also when the process that started them is killed with SIGKILL:
// each server runs under a guard, a shell that reads from a pipe that only the starter holds, and that kills its
// server when the pipe ends.
//
// The server is the redis-server of the PATH, or the program that the environment variable LARDER_REDIS_SERVER names.
//
// A [Server] can be frozen, killed, and restarted with the data it had, with those of a snapshot, or with none. A
// [Proxy] stands in for the network between a client and a server.
//
// A function that waits does so for as long as its context allows: give it a deadline. The servers have no password and no TLS.
package redisserver
