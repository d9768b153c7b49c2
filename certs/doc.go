// Package certs is the command quicdistd cert: it makes, shows and checks the certificates of nodes, so that nobody has to learn
// another tool for that. What it makes is what streams/WIRE.md, section 6, asks for; what it checks it asks package streams.
//
// # Limitations
//
// The authority's key is a file like any other: it is not encrypted, and there are no requests to sign, no lists of revoked
// certificates and no authorities below the first. Who needs these has an authority already, whose certificates serve as well.
package certs
