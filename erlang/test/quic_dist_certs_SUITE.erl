%% @doc Certificates decide which peers get in where nodes have an authority: the cases assert
%% acceptance, refusals and their words, and changes of the files. The files of `quicdistd cert'
%% are all that a node needs.
%%
%% Every refusal is asserted threefold: it is there in time, the log of the side that refuses says
%% why, and its net_kernel has not been asked to accept anything. The certificates are made by the
%% tool, and by fakecerts of test/fakes, in the run's own folder.
-module(quic_dist_certs_SUITE).

-export([all/0, groups/0, suite/0]).
-export([init_per_suite/1, end_per_suite/1]).
-export([
    made_by_the_tool/1,
    the_printed_line/1,
    host_certificates/1,
    dynamic_name/1,
    bad_certificates_are_refused/1,
    other_mode_is_refused/1,
    other_name_in_the_hello/1,
    other_name_in_the_handshake/1,
    own_certificate_of_another/1,
    renewed/1,
    broken_files/1,
    revoked/1,
    expiry/1,
    insecure/1
]).

-include_lib("common_test/include/ct.hrl").
-include_lib("stdlib/include/assert.hrl").
-include_lib("kernel/include/dist_util.hrl").

-import(quic_dist_fixtures, [cert/1, cert/2]).
-import(quic_dist_node, [
    call/2, call/4, connect/2, info/1, log/1, log_lines/2, name/1, wait_log/3
]).
-import(quic_dist_wait, [wait_until/2]).

%% Milliseconds in which a refusal is known: one round trip, and a slow machine.
-define(REFUSED, 1000).

suite() ->
    [{ct_hooks, [quic_dist_hooks]}, {timetrap, quic_dist_wait:scale(90000)}].

all() ->
    [{group, Group} || {Group, _, _} <- groups()].

groups() ->
    [
        {good, [], [made_by_the_tool, the_printed_line, host_certificates, dynamic_name]},
        {bad, [], [
            bad_certificates_are_refused,
            other_mode_is_refused,
            other_name_in_the_hello,
            other_name_in_the_handshake,
            own_certificate_of_another
        ]},
        {changes, [], [renewed, broken_files, revoked, expiry, insecure]}
    ].

init_per_suite(Config) ->
    Dir = filename:join(quic_dist_run:dir(), "certs"),
    quic_dist_fixtures:fakes(),
    cert(["ca", "-out", Dir]),
    [{certs, Dir} | Config].

end_per_suite(_Config) ->
    ok.

%% Certificates and nodes

%% quicdistd cert, as a user runs it.
fakes(Dir, Node, Other) ->
    Executable = filename:join(quic_dist_fixtures:dir(), "fakecerts"),
    quic_dist_fixtures:shell(Dir, [Executable, $\s, Dir, $\s, Node, $\s, Other]).

file(Config, Name) ->
    filename:join(?config(certs, Config), Name).

%% A name whose port is free, as text.
new_name() ->
    integer_to_list(quic_dist_run:free_port()) ++ "@127.0.0.1".

%% The options of a node with a certificate of its own.
identity(Config, Name) -> identity(Config, Name, "397").

identity(Config, Name, Days) ->
    Out = ?config(certs, Config),
    cert(["node", Name, "-ca", file(Config, "ca.pem"), "-out", Out, "-days", Days]),
    with(Config, Name ++ ".pem") ++ [{keyfile, file(Config, Name ++ ".key")}].

with(Config, CertFile) ->
    [{certfile, file(Config, CertFile)}, {cacertfile, file(Config, "ca.pem")}].

start(Name, Options) ->
    Node = quic_dist_node:start(#{
        name => {long, Name}, args => ["-no_epmd"], quic_dist => Options
    }),
    %% How often net_kernel has a connection accepted.
    1 = call(Node, erlang, trace_pattern, [{quic_dist, accept_connection, 5}, true, [call_count]]),
    Node.

%% A node with a good certificate.
member(Config) -> member(Config, []).

member(Config, Options) ->
    Name = new_name(),
    start(Name, identity(Config, Name) ++ Options).

accepted(Node) ->
    {call_count, Count} =
        call(Node, erlang, trace_info, [{quic_dist, accept_connection, 5}, call_count]),
    Count.

%% Neither side gets through to the other.
refused_both_ways(Good, Bad, Words) ->
    refused(Bad, Good, Good, Words),
    refused(Good, Bad, Good, Words).

%% `From' cannot connect to `To', soon, since `Judge' does not want it; its log says so in these
%% words, once more than before, and its BEAM has not been asked to accept anything.
refused(From, To, Judge, Words) ->
    Before = length(log_lines(Judge, Words)),
    Accepted = accepted(Judge),
    {Took, false} = timer:tc(fun() -> call(From, net_kernel, connect_node, [name(To)]) end),
    ?assert(Took div 1000 < quic_dist_wait:scale(?REFUSED), {took, Took}),
    wait_until(
        {log, Words, log(Judge)},
        fun() -> length(log_lines(Judge, Words)) > Before end
    ),
    ?assertEqual(Accepted, accepted(Judge)),
    _ = wait_log(From, "cannot connect to " ++ atom_to_list(name(To)), 2000),
    ok.

%% Good ones

%% Two nodes started with the lines that the tool prints connect, each from its side; nothing is
%% logged, and info tells of the certificates.
made_by_the_tool(Config) ->
    [A, B] = [by_printed_lines(Config, new_name()) || _ <- [a, b]],
    connect(A, B),
    NodeB = name(B),
    true = call(A, fun() -> erlang:disconnect_node(NodeB) end),
    wait_until(disconnected, fun() -> call(B, fun() -> nodes() end) =:= [] end),
    connect(B, A),
    #{certificates := [Own, Authority]} = info(A),
    OwnFile = unicode:characters_to_binary(file(Config, atom_to_list(name(A)) ++ ".pem")),
    #{option := certfile, file := OwnFile, days_left := OwnDays} = Own,
    #{option := cacertfile, days_left := Days} = Authority,
    ?assert(is_about(397, OwnDays) andalso is_about(3650, Days), {OwnDays, Days}),
    #{subject := Subject, expires := Expires} = Own,
    ?assertEqual(<<"CN=", (atom_to_binary(name(A)))/binary>>, Subject),
    ?assert(calendar:rfc3339_to_system_time(binary_to_list(Expires)) > erlang:system_time(second)),
    [?assertEqual([], log_lines(Node, "^(warning|error)")) || Node <- [A, B]].

%% The days that are left of so many: whole ones, unless no second has passed.
is_about(Days, Left) -> Left =:= Days orelse Left =:= Days - 1.

by_printed_lines(Config, Name) ->
    Args = filename:join(quic_dist_run:dir(), quic_dist_run:unique("vm") ++ ".args"),
    cert(["node", Name, "-ca", file(Config, "ca.pem"), "-out", ?config(certs, Config)], Args),
    quic_dist_node:start(#{
        carrier => [], name => none, args => ["-args_file", Args, "-no_epmd"]
    }).

%% The line of `-proto_dist' that the tool prints has all that a node needs, wherever a release has
%% it: in vm.args, in ERL_FLAGS (relx's ping, rpc, stop), and as words of a shell that keep their
%% quotes (relx's remote_console). The folder's name has what means something in one of them.
the_printed_line(Config) ->
    Out = filename:join(?config(certs, Config), "a b$HOME*#\"(ü)"),
    Lines = filename:join(quic_dist_run:dir(), quic_dist_run:unique("printed")),
    cert(["node", "127.0.0.1", "-ca", file(Config, "ca.pem"), "-out", Out], Lines),
    {ok, Printed} = file:read_file(Lines),
    [Line] = [L || <<"-proto_dist ", _/binary>> = L <- binary:split(Printed, <<"\n">>, [global])],
    Args = filename:join(quic_dist_run:dir(), quic_dist_run:unique("vm") ++ ".args"),
    ok = file:write_file(Args, [Line, $\n]),
    Peer = member(Config),
    lists:foreach(
        fun(Options) ->
            More = ["-no_epmd" | maps:get(args, Options, [])],
            Node = quic_dist_node:start(Options#{
                carrier => [], name => {long, new_name()}, args => More
            }),
            #{certificates := [#{option := certfile, file := File}, _]} = info(Node),
            ?assertEqual(unicode:characters_to_binary(filename:join(Out, "127.0.0.1.pem")), File),
            connect(Node, Peer)
        end,
        [
            #{args => ["-args_file", Args]},
            #{env => [{"ERL_FLAGS", unicode:characters_to_list(Line)}]},
            #{args => [unicode:characters_to_list(W) || W <- binary:split(Line, <<" ">>, [global])]}
        ]
    ).

%% A certificate of a host serves all its nodes, unless whole names are demanded; one of a node
%% serves where hosts are demanded, for other nodes of its host too.
host_certificates(Config) ->
    cert(["node", "127.0.0.1", "-ca", file(Config, "ca.pem"), "-out", ?config(certs, Config)]),
    Host = with(Config, "127.0.0.1.pem") ++ [{keyfile, file(Config, "127.0.0.1.key")}],
    [A, B] = [start(new_name(), Host) || _ <- [a, b]],
    connect(A, B),
    Strict = member(Config, [{certificate_names, node}]),
    refused(A, Strict, Strict, "names host 127.0.0.1, and the node's whole name is demanded"),
    refused(Strict, A, Strict, "names host 127.0.0.1, and the node's whole name is demanded"),
    connect(member(Config), Strict),
    Lax = member(Config, [{certificate_names, host}]),
    Other = start(new_name(), identity(Config, new_name())),
    connect(Other, Lax).

%% A node that asks for its name is known by its host, before and after it has one.
dynamic_name(Config) ->
    cert(["node", "127.0.0.9", "-ca", file(Config, "ca.pem"), "-out", ?config(certs, Config)]),
    Host = with(Config, "127.0.0.9.pem") ++ [{keyfile, file(Config, "127.0.0.9.key")}],
    A = member(Config),
    Nameless = quic_dist_node:start(#{
        name => {long, "undefined@127.0.0.9"}, args => ["-no_epmd"], quic_dist => Host
    }),
    connect(Nameless, A),
    Named = call(Nameless, erlang, node, []),
    ?assertMatch([_, "127.0.0.9"], string:split(atom_to_list(Named), "@")),
    B = member(Config),
    connect(Nameless, B),
    ?assertEqual([Named], call(B, fun() -> nodes(hidden) end) -- [name(A)]),
    Stranger = quic_dist_node:start(#{
        name => {long, "undefined@127.0.0.8"}, args => ["-no_epmd"], quic_dist => Host
    }),
    false = call(Stranger, net_kernel, connect_node, [name(A)]),
    _ = wait_log(A, "undefined@127.0.0.8 in its hello; .* names host 127.0.0.9, and", 2000).

%% Bad ones

%% Each certificate that is not good in one respect is refused, dialling and being dialled.
bad_certificates_are_refused(Config) ->
    Good = member(Config),
    Refuses = "this node refuses the peer's certificate \\(CN=",
    lists:foreach(
        fun({Kind, Words}) ->
            Name = new_name(),
            fakes(?config(certs, Config), Name, "other@127.0.0.1"),
            Bad = start(Name, with(Config, Kind ++ ".pem")),
            ct:log("~ts", [Kind]),
            refused_both_ways(Good, Bad, Words),
            ok = quic_dist_node:stop(Bad)
        end,
        [
            {"other-ca", Refuses ++ "other-ca\\): it was issued by CN=another authority, and no"},
            {"self-signed", Refuses ++ "self-signed\\): it is self-signed, and cacertfile"},
            {"expired", Refuses ++ "expired\\): it expired at 20.*Z: renew it"},
            {"not-yet-valid", Refuses ++ "not-yet-valid\\): it is not valid before 20.*Z: check"},
            {"code-signing", Refuses ++ "code-signing\\): it is not for (client|server) auth"},
            {"below", Refuses ++ "below\\): that of its issuer .* no further authority"},
            {"other-node", "hello; its certificate \\(CN=other-node\\) names node other@127"},
            {"other-host", "\\(CN=other-host\\) names host 10.9.8.7, and the host 127.0.0.1 is"},
            {"no-san", "names no node and no host, and the host 127.0.0.1 is demanded"}
        ]
    ),
    connect(member(Config), Good).

%% A node without certificates and a node with an authority do not connect, in either direction:
%% neither can talk the other into less.
other_mode_is_refused(Config) ->
    Good = member(Config),
    Name = new_name(),
    Without = start(Name, []),
    Words =
        "this node refuses the peer: it shows no certificate of its own \\(it has no certfile\\)",
    refused_both_ways(Good, Without, Words),
    %% An authority without a certificate of one's own does not help.
    HalfName = new_name(),
    Half = start(HalfName, [{cacertfile, file(Config, "ca.pem")}]),
    refused(Half, Good, Good, Words).

%% A member that gives its sidecar another's name, the other side's own included, is refused.
other_name_in_the_hello(Config) ->
    A = member(Config),
    B = member(Config),
    C = new_name(),
    {error, {peer_refused, _}} = dial(A, C, B),
    Named = atom_to_list(name(A)),
    _ = wait_log(B, ["calls itself ", C, " in its hello; .* names node ", Named], 2000),
    {error, {peer_refused, _}} = dial(A, atom_to_list(name(B)), B),
    ?assertEqual(0, accepted(B)),
    connect(A, B).

%% Opens a channel from A to B in the name of `Local', owned by the process that the fun runs in.
dial(A, Local, B) ->
    call(A, fun() -> dial_here(Local, name(B)) end).

dial_here(Local, To) ->
    [Port, Host] = string:split(atom_to_list(To), "@"),
    quic_dist_channel:dial(#{
        node => atom_to_binary(To),
        local => list_to_binary(Local),
        targets => [{list_to_binary(Host), list_to_integer(Port)}],
        timeout => 5000
    }).

%% A member that keeps its name in the hello and gives another in the distribution handshake is
%% refused before net_kernel hears of that name, and a connection of that name is left in peace.
other_name_in_the_handshake(Config) ->
    A = member(Config),
    B = member(Config),
    C = member(Config),
    connect(C, B),
    Names = {NameA, _, NameC} = {name(A), name(B), name(C)},
    closed = call(A, fun() -> spoof(Names, NameC) end),
    closed = call(A, fun() -> spoof(Names, 'nobody@127.0.0.1') end),
    [_] = wait_log(B, lists:concat([
        "inbound connection turned away .*the peer calls itself ", NameC,
        " in the distribution handshake and ", NameA, " in its hello; its certificate names node ",
        NameA
    ]), 2000),
    [_] = wait_log(B, "calls itself nobody@127.0.0.1 in the distribution handshake", 2000),
    ?assertEqual([NameC], call(B, fun() -> nodes() end)),
    ?assertEqual([], call(B, fun() -> ets:lookup(sys_dist, 'nobody@127.0.0.1') end)),
    connect(A, B).

%% On a node: what a handshake in another's name comes to.
spoof({NameA, NameB, _}, Spoofed) ->
    {ok, Channel} = dial_here(atom_to_list(NameA), NameB),
    {ok, Ctrl} = quic_dist_plane:open(Channel),
    #hs_data{f_send = Send, f_recv = Receive, socket = Socket} = quic_dist_plane:hs_data(Ctrl),
    Name = atom_to_binary(Spoofed, latin1),
    Flags = element(2, erts_internal:get_dflags()),
    ok = Send(Socket, [<<$N, Flags:64, 1:32, (byte_size(Name)):16>>, Name]),
    case Receive(Socket, 0, infinity) of
        {error, closed} -> closed;
        Other -> Other
    end.

%% A node whose certificate is another's is told so itself, when it listens and when it is refused.
own_certificate_of_another(Config) ->
    Good = member(Config),
    Name = new_name(),
    Wrong = start(Name, identity(Config, new_name())),
    _ = wait_log(Wrong, "^warning .*peers refuse this node, " ++ Name ++ ": its certificate", 2000),
    false = call(Wrong, net_kernel, connect_node, [name(Good)]),
    _ = wait_log(Wrong, "cannot connect to .*See its log.*peers refuse this node", 2000).

%% Changes

%% A folder of its own for a node whose files change.
own_files(Config, Name) ->
    Dir = filename:join(quic_dist_run:dir(), quic_dist_run:unique("own")),
    ok = file:make_dir(Dir),
    Own = [
        {certfile, filename:join(Dir, "node.pem")},
        {keyfile, filename:join(Dir, "node.key")},
        {cacertfile, filename:join(Dir, "ca.pem")}
    ],
    put_files(identity(Config, Name), Own),
    Own.

put_files(From, To) ->
    [put_file(proplists:get_value(Key, From), File) || {Key, File} <- To].

%% As careful administrators do it: another file takes the name.
put_file(From, To) ->
    {ok, _} = file:copy(From, To ++ ".new"),
    ok = file:change_mode(To ++ ".new", 8#600),
    ok = file:rename(To ++ ".new", To).

%% Another certificate for the same name, valid for so many days.
renew(Config, Name, Own, Days) ->
    [ok = file:delete(file(Config, Name ++ Ending)) || Ending <- [".pem", ".key"]],
    put_files(identity(Config, Name, integer_to_list(Days)), Own).

days_left(Node) ->
    #{certificates := [#{option := certfile, days_left := Days} | _]} = info(Node),
    Days.

%% New files are in use after reload/0, and without it some seconds later; links stay.
renewed(Config) ->
    Name = new_name(),
    Own = own_files(Config, Name),
    A = start(Name, Own),
    B = member(Config),
    connect(B, A),
    ok = call(A, quic_dist, reload, []),
    ?assert(is_about(397, days_left(A))),
    NodeB = name(B),
    renew(Config, Name, Own, 100),
    ok = call(A, quic_dist, reload, []),
    ?assert(is_about(100, days_left(A))),
    ?assertEqual([NodeB], call(A, fun() -> nodes() end)),
    connect(member(Config), A),
    renew(Config, Name, Own, 200),
    wait_until(noticed, fun() -> is_about(200, days_left(A)) end),
    connect(member(Config), A),
    connect(A, member(Config)),
    ?assert(lists:member(NodeB, call(A, fun() -> nodes() end))),
    ?assertEqual([], log_lines(A, "^(warning|error)")).

%% Unusable files leave the former ones in use. reload/0 says why, and the log says it unasked.
broken_files(Config) ->
    Name = new_name(),
    Own = own_files(Config, Name),
    A = start(Name, Own),
    B = member(Config),
    connect(B, A),
    CertFile = proplists:get_value(certfile, Own),
    ok = file:write_file(CertFile, "rubbish\n"),
    {error, {bad_certificate, Text}} = call(A, quic_dist, reload, []),
    ?assertMatch({match, _}, re:run(Text, CertFile ++ ": is not PEM")),
    _ = wait_log(
        A, "^error .*changed certificate files cannot be used, the ones before.*is not PEM", 10000
    ),
    connect(member(Config), A),
    connect(A, member(Config)),
    ?assert(lists:member(name(B), call(A, fun() -> nodes() end))),
    ?assertMatch(#{state := up, certificates := [_, _]}, info(A)).

%% An authority that is taken out of cacertfile is not trusted any more. The link to a peer that it
%% vouches for goes on, unless close_untrusted says otherwise.
revoked(Config) ->
    Other = filename:join(quic_dist_run:dir(), "other"),
    cert(["ca", "-out", Other]),
    OtherConfig = [{certs, Other} | Config],
    lists:foreach(
        fun(Closes) ->
            Name = new_name(),
            Own = own_files(Config, Name),
            CaFile = proplists:get_value(cacertfile, Own),
            Both = both(file(Config, "ca.pem"), file(OtherConfig, "ca.pem")),
            ok = file:write_file(CaFile, Both),
            A = start(Name, Own ++ [{close_untrusted, Closes}]),
            %% Of the other authority, and trusting both.
            BName = new_name(),
            BothFile = CaFile ++ ".both",
            ok = file:write_file(BothFile, Both),
            [Cert, _, Key] = identity(OtherConfig, BName),
            B = start(BName, [Cert, Key, {cacertfile, BothFile}]),
            C = member(Config),
            connect(B, A),
            connect(C, A),
            put_file(file(Config, "ca.pem"), CaFile),
            ok = call(A, quic_dist, reload, []),
            Left = fun() -> lists:sort(call(A, fun() -> nodes() end)) end,
            case Closes of
                true ->
                    wait_until(closed, fun() -> Left() =:= [name(C)] end),
                    [_] = wait_log(
                        A, "^warning .*link closed, .* not trusted any more node=" ++ BName, 2000
                    );
                false ->
                    ?assertEqual(lists:sort([name(B), name(C)]), Left()),
                    ?assertEqual([], log_lines(A, "link closed")),
                    true = call(A, erlang, disconnect_node, [name(B)]),
                    wait_until(disconnected, fun() -> Left() =:= [name(C)] end)
            end,
            wait_until(noticed, fun() -> not lists:member(name(A), call(B, erlang, nodes, [])) end),
            refused(
                B, A, A, "this node refuses the peer's certificate .*: it was issued by .*, and no"
            ),
            [ok = quic_dist_node:stop(Node) || Node <- [A, B, C]]
        end,
        [true, false]
    ).

both(One, Other) ->
    [element(2, {ok, _} = file:read_file(File)) || File <- [One, Other]].

%% A certificate that expires soon is warned of when the node starts, and info counts the days.
expiry(Config) ->
    Name = new_name(),
    fakes(?config(certs, Config), Name, "other@127.0.0.1"),
    A = start(Name, with(Config, "expiring.pem")),
    Expires = "expiring.pem: the certificate .* expires at .*, in 10 days",
    [_] = wait_log(A, "^warning .*" ++ Expires, 2000),
    ?assertMatch(#{certificates := [#{days_left := 10}, _]}, info(A)),
    connect(A, member(Config)),
    Gone = start(new_name(), with(Config, "expired.pem")),
    Expired = "expired.pem: the certificate .* expired at .*: renew it",
    [_] = wait_log(Gone, "^warning .*" ++ Expired, 2000),
    ?assertMatch(#{certificates := [#{days_left := -2} | _]}, info(Gone)).

%% insecure_no_verify has everybody taken, and each boot says so.
insecure(Config) ->
    Warning = "^warning .*insecure_no_verify is set: peers are not authenticated",
    Name = new_name(),
    Careless = start(Name, identity(Config, Name) ++ [{insecure_no_verify, true}]),
    [_] = wait_log(Careless, Warning, 2000),
    Stranger = start(new_name(), [{insecure_no_verify, true}]),
    [_] = wait_log(Stranger, Warning, 2000),
    connect(Stranger, Careless),
    Other = start(new_name(), [{insecure_no_verify, true}]),
    connect(Careless, Other),
    %% It weakens nobody else.
    Good = member(Config),
    refused_both_ways(Good, Stranger, "it shows no certificate of its own").
