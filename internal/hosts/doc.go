// Package hosts finds the addresses of host names, and connects to hosts that have several.
//
// A [Resolver] asks the Erlang VM that this process serves, and Go's resolver. Erlang knows hosts that Go does
// not (inetrc, inet_db, modules of the C library's name service), and TCP carriers use its answers, so its
// answer counts. The resolver asks both at once, so that a slow one does not delay an answer that the other
// has. [Race] tries several addresses.
//
// The package keeps no answers. It owns the questions and attempts under way, which end with their context;
// each function waits for those that it has started.
package hosts
