module quic_dist

go 1.26.0

require (
	github.com/quic-go/quic-go v0.65.0
	github.com/youmark/pkcs8 v0.0.0-20240726163527-a2c0da244d78
	golang.org/x/net v0.56.0
	golang.org/x/sys v0.49.0
)

require golang.org/x/crypto v0.54.0

require (
	github.com/coder/websocket v1.8.15
	github.com/quic-go/qpack v0.6.0 // indirect
	golang.org/x/text v0.40.0 // indirect
)
