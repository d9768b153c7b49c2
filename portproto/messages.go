package portproto

// The closed lists of PROTOCOL.md, section 4: a tag means one message in each direction.
var (
	fromVM = messagesOf(
		message[VMHello], message[Configure], message[Listen], message[CloseListener], message[Resolve], message[Dial],
		message[Verdict], message[Cancel], message[Close], message[Stop], message[Ping], message[Reload], message[Stats],
		message[Trace], message[Part], message[LookedUp], message[Links], message[Happened],
		message[Register], message[Find], message[Written], message[Names],
		message[WebServe], message[WebDial], message[WebNames],
	)
	fromSidecar = messagesOf(
		message[SidecarHello], message[OK], message[Error], message[Listening], message[Resolved], message[Dialled],
		message[Admit], message[Accepted], message[Closed], message[Log], message[Certificates], message[StatsPage],
		message[Parting], message[LookUp],
		message[Registered], message[Registration], message[Found], message[Port], message[Named],
		message[WebServing], message[WebDialled], message[WebNamed], message[WebAccepted], message[WebChanged],
	)
)
