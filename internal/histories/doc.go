// Package histories records what concurrent clients ask of an organization and
// what they are answered, and checks with porcupine that one serial order
// explains it all: every vend, approval, revocation, suspension, rotation and
// replacement took effect at one moment between its call and its return. A vend
// that succeeds after a revocation returned has no place in such an order.
//
// A history is checked as a whole. Suspending an agent changes all its grants,
// and replacing a credential changes what every agent gets; cut into parts by
// agent and tool, such a history could look right in each part although those
// changes were never made at one moment.
//
// The package is for tests. It never reads the clock: the order of calls and
// returns is counted.
package histories
