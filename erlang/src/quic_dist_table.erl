%% @doc A table of the links of this node, for the shell: as `inet:i/0' is for sockets.
-module(quic_dist_table).

-export([print/0, lines/2]).

%% @doc Prints a line for each peer, links over HTTP and by the option `fallback' included, to the
%% caller's group leader.
%%
%% ```
%% Node    Carrier Link     Round trip Sent    Received Queued Since
%% b@host  quic    dialled  0.41 ms    1.05 MB 2.3 kB   0 B    2026-11-30 06:31:12
%% c@host  https   accepted            12 kB   9 kB     0 B    2026-11-30 06:33:40
%% '''
%%
%% The round trip is the smoothed one; a local link and one over HTTP have none. Bytes are those of
%% packets over QUIC, and else of this VM's socket. `Queued' bytes wait to be sent. `Since' is local
%% time. A link whose distribution handshake is not over has `(handshake)', one that waits for a
%% QUIC connection `(waiting)', and one that has had outages their number, `(3 outages)'.
-spec print() -> ok.
print() ->
    Lines = lines(quic_dist_info:info(), erlang:system_time(second)),
    io:put_chars([[Line, $\n] || Line <- Lines]).

%% @private The lines for what {@link quic_dist_info:info/0} has said at a time.
-spec lines(quic_dist_info:info() | {error, quic_dist_sidecar:reason()}, Now :: integer()) ->
    [unicode:chardata()].
lines({error, {_, Text}}, _) ->
    [Text];
lines(#{peers := Peers} = Info, Now) ->
    Sorted = lists:sort([{text(Node), Peer} || {Node, Peer} <- maps:to_list(Peers)]),
    trouble(Info) ++ table([[Node | row(Peer, Now)] || {Node, Peer} <- Sorted]).

trouble(#{state := {down, Text}}) -> ["There is no sidecar: " ++ Text];
trouble(#{error := {_, Text}}) -> ["There are no figures of links over QUIC: " ++ Text];
trouble(_) -> [].

table([]) ->
    ["No peer is connected."];
table(Rows) ->
    Head = ["Node", "Carrier", "Link", "Round trip", "Sent", "Received", "Queued", "Since"],
    Widths = lists:foldl(fun widen/2, [0 || _ <- Head], [Head | Rows]),
    [string:trim(pad(Row, Widths), trailing) || Row <- [Head | Rows]].

widen(Row, Widths) ->
    lists:zipwith(fun(Text, Width) -> max(string:length(Text), Width) end, Row, Widths).

pad(Row, Widths) ->
    Pad = fun(Text, Width) -> lists:flatten(string:pad(Text, Width + 1)) end,
    lists:append(lists:zipwith(Pad, Row, Widths)).

row(#{carrier := Carrier, direction := Direction, state := State} = Peer, Now) ->
    #{sent := #{bytes := Sent}, received := #{bytes := Received}} = Peer,
    #{queued := Queued, uptime := Uptime} = Peer,
    [
        atom_to_list(Carrier),
        atom_to_list(Direction) ++ remarks(State, maps:get(outages, Peer, none)),
        round_trip(Peer),
        bytes(Sent),
        bytes(Received),
        bytes(Queued),
        since(Now - Uptime div 1000)
    ].

remarks(State, Outages) ->
    Remarks = ["handshake" || State =:= handshake] ++ outages(Outages),
    lists:append([" (" ++ lists:append(lists:join(", ", Remarks)) ++ ")" || Remarks =/= []]).

outages(#{count := Count, down := Down}) ->
    ["waiting" || Down > 0] ++ [format("~w outage~s", [Count, plural(Count)]) || Count > 0];
outages(none) ->
    [].

plural(1) -> "";
plural(_) -> "s".

round_trip(#{round_trip := #{smoothed := Microseconds}}) when Microseconds < 10000 ->
    format("~.2f ms", [Microseconds / 1000]);
round_trip(#{round_trip := #{smoothed := Microseconds}}) ->
    format("~.1f ms", [Microseconds / 1000]);
round_trip(_) ->
    "".

bytes(N) when N < 1000 -> format("~w B", [N]);
bytes(N) -> bytes(N / 1000, ["kB", "MB", "GB", "TB"]).

bytes(N, [_ | [_ | _] = Units]) when N >= 1000 -> bytes(N / 1000, Units);
bytes(N, [Unit | _]) when N < 10 -> format("~.2f ~s", [N, Unit]);
bytes(N, [Unit | _]) when N < 100 -> format("~.1f ~s", [N, Unit]);
bytes(N, [Unit | _]) -> format("~w ~s", [round(N), Unit]).

since(Time) ->
    {{Y, Mo, D}, {H, Mi, S}} = calendar:system_time_to_local_time(Time, second),
    format("~4..0w-~2..0w-~2..0w ~2..0w:~2..0w:~2..0w", [Y, Mo, D, H, Mi, S]).

format(Format, Arguments) ->
    lists:flatten(io_lib:format(Format, Arguments)).

text(Node) when is_atom(Node) -> atom_to_list(Node);
text(Node) -> unicode:characters_to_list(Node).
