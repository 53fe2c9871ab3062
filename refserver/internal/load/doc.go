// Package load puts HTTP servers of this machine under load and says what it saw:
// how many requests a second, how long they took, and what the server's process
// used meanwhile. Its client does as little as a client can, because it shares the
// processors with the server.
package load
