// Package printed runs what the documents print: each block of README.md and docs/ that is marked to be run (package
// quic_dist/internal/printed has the marks) is typed into terminals, line by line, as a reader would, and what the page
// shows below a line must be in what the terminal shows.
//
// A page has a machine of its own, made of Linux namespaces, with a copy of the built checkout, an empty folder /srv,
// the addresses 10.0.0.1 to 10.0.0.3 and the names host and host.example.org, so that nothing in a block must be
// replaced, and no port is another program's. A section of a page begins with no terminal open.
package printed
