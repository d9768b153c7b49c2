// Package cert is the command quicdistd cert: it makes, shows and checks the certificates of nodes, so that no other
// tool is needed. It makes what streams/WIRE.md, section 6, demands. It checks a certificate by the code that judges
// peers.
//
// # Limitations
//
// The authority's key is a plain file, not encrypted. There are no certificate requests, no revocation lists and no
// intermediate authorities. Whoever needs these has an authority already, and its certificates serve as well.
package cert
