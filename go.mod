module quic_dist

go 1.26.0

require (
	github.com/quic-go/quic-go v0.65.0
	github.com/youmark/pkcs8 v0.0.0-20240726163527-a2c0da244d78
	golang.org/x/net v0.56.0
	golang.org/x/sys v0.49.0
)

require (
	github.com/spf13/cobra v1.10.2
	github.com/spf13/pflag v1.0.9
	golang.org/x/crypto v0.54.0
)

require github.com/inconshreveable/mousetrap v1.1.0 // indirect
