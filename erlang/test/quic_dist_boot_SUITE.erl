%% @doc How a node comes to life over QUIC: under every form of name, by every way to start and
%% configure it; and how one that cannot says why.
-module(quic_dist_boot_SUITE).

-export([all/0, groups/0, suite/0]).
-export([init_per_suite/1, end_per_suite/1, end_per_testcase/2]).
-export([
    port_in_the_name/1,
    stock_epmd_with_long_names/1,
    stock_epmd_with_short_names/1,
    nodes_table/1,
    listen_port_option/1,
    kernel_listen_range/1,
    fixed_port_without_epmd/1,
    ipv6_names/1,
    ipv4_and_ipv6/1,
    listen_address_option/1,
    kernel_interface/1,
    addressing_epmd_module/1,
    porting_epmd_module/1
]).
-export([
    bare_command_line/1,
    args_file/1,
    detached/1,
    without_listening/1,
    dynamic_long_name/1,
    dynamic_short_name/1,
    remote_shell/1,
    remote_shell_without_a_name/1,
    started_and_stopped_twenty_times/1,
    embedded_mode/1,
    two_carriers/1,
    socket_backend/1,
    the_first_session/1
]).
-export([
    configuration_sources/1,
    precedence_of_sources/1,
    wrong_options/1,
    wrong_options_without_listening/1,
    wrong_options_of_a_running_node/1,
    name_in_use/1
]).

-include_lib("stdlib/include/assert.hrl").
-include_lib("kernel/include/net_address.hrl").

-import(quic_dist_terminal, [terminal/1, keys/2, screen/2]).
-import(quic_dist_node, [call/2, connect/2, scale/1]).

suite() ->
    [{timetrap, scale(90000)}].

all() ->
    [{group, names}, {group, forms}, {group, configuration}].

groups() ->
    [
        {names, [], [
            port_in_the_name,
            stock_epmd_with_long_names,
            stock_epmd_with_short_names,
            nodes_table,
            listen_port_option,
            kernel_listen_range,
            fixed_port_without_epmd,
            ipv6_names,
            ipv4_and_ipv6,
            listen_address_option,
            kernel_interface,
            addressing_epmd_module,
            porting_epmd_module
        ]},
        {forms, [], [
            bare_command_line,
            args_file,
            detached,
            without_listening,
            dynamic_long_name,
            dynamic_short_name,
            remote_shell,
            remote_shell_without_a_name,
            started_and_stopped_twenty_times,
            embedded_mode,
            two_carriers,
            socket_backend,
            the_first_session
        ]},
        {configuration, [], [
            configuration_sources,
            precedence_of_sources,
            wrong_options,
            wrong_options_without_listening,
            wrong_options_of_a_running_node,
            name_in_use
        ]}
    ].

init_per_suite(Config) ->
    %% The epmd modules go where the nodes find them.
    Out = filename:join(quic_dist_node:dir(), "epmd_modules"),
    ok = file:make_dir(Out),
    [
        {ok, _} = compile:file(
            filename:join(proplists:get_value(data_dir, Config), Module), [{outdir, Out}]
        )
     || Module <- ["addressing_epmd", "porting_epmd"]
    ],
    [{epmd_modules, Out} | Config].

end_per_suite(_Config) ->
    quic_dist_node:end_run().

%% Whatever a case leaves is ended; a node that needed to be killed fails the case.
end_per_testcase(_Case, Config) ->
    quic_dist_node:end_case(Config).

start(Options) -> quic_dist_node:start(Options).

name(#{node := Node}) -> Node.

listens(Node) -> maps:get(listen, quic_dist_node:info(Node)).

ping(Node, To) -> quic_dist_node:call(Node, net_adm, ping, [To]).

%% Both directions, each on a connection of its own.
ping_both_ways(A, B) ->
    NodeA = name(A),
    NodeB = name(B),
    ?assertEqual(pong, ping(A, NodeB)),
    true = call(A, fun() -> erlang:disconnect_node(NodeB) end),
    quic_dist_node:wait_until(disconnected, fun() ->
        call(B, fun() -> nodes(connected) end) =:= []
    end),
    ?assertEqual(pong, ping(B, NodeA)),
    ?assertEqual([NodeA], call(B, fun() -> nodes() end)).

port() -> quic_dist_node:free_port().

port_name(Port) -> port_name(Port, "127.0.0.1").

port_name(Port, Host) -> integer_to_list(Port) ++ "@" ++ Host.

%% Names

%% A name of the form port@host is all that two nodes without epmd need; the sidecar has that UDP
%% port, at the loopback address of the name, and no other.
port_in_the_name(_Config) ->
    [P1, P2] = [port(), port()],
    [A, B] = [start(#{name => {long, port_name(P)}, args => ["-no_epmd"]}) || P <- [P1, P2]],
    ?assertEqual({{127, 0, 0, 1}, P1}, listens(A)),
    ?assertEqual([{{127, 0, 0, 1}, P1}], quic_dist_node:udp_sockets(quic_dist_node:sidecar(A))),
    ping_both_ways(A, B).

%% With stock epmd any long name works; epmd knows the name with the UDP port until the node ends.
stock_epmd_with_long_names(_Config) ->
    stock_epmd(long, "127.0.0.1").

%% With stock epmd any short name works, its host resolved by the sidecar.
stock_epmd_with_short_names(_Config) ->
    {ok, Host} = inet:gethostname(),
    stock_epmd(short, Host).

stock_epmd(Form, Host) ->
    [NameA, NameB] = [quic_dist_node:unique(Prefix) || Prefix <- ["a", "b"]],
    A = start(#{name => {Form, full_name(Form, NameA, Host)}}),
    B = start(#{name => {Form, full_name(Form, NameB, Host)}}),
    ?assertEqual(list_to_atom(NameA ++ "@" ++ Host), name(A)),
    {_, Port} = listens(A),
    Registered = fun() -> call(B, fun() -> element(2, erl_epmd:names({127, 0, 0, 1})) end) end,
    ?assertEqual(Port, proplists:get_value(NameA, Registered())),
    ping_both_ways(A, B),
    quic_dist_node:stop(A),
    quic_dist_node:wait_until(unregistered, fun() ->
        proplists:get_value(NameA, Registered()) =:= undefined
    end).

full_name(long, Name, Host) -> Name ++ "@" ++ Host;
full_name(short, Name, _) -> Name.

%% The table `nodes' replaces epmd: names of any form, hosts by name or by address, one table for
%% all.
nodes_table(_Config) ->
    [PA, PB] = [port(), port()],
    Table = [{'a@x.invalid', "localhost", PA}, {'b@y.invalid', {127, 0, 0, 1}, PB}],
    [A, B] = [
        start(#{
            name => {long, Name},
            args => ["-no_epmd"],
            quic_dist => [{nodes, Table}, {listen_port, Port}]
        })
     || {Name, Port} <- [{"a@x.invalid", PA}, {"b@y.invalid", PB}]
    ],
    ping_both_ways(A, B).

%% listen_port is the UDP port, or the range in which each node takes the first free one; in a
%% range that is used up the boot fails and says so.
listen_port_option(_Config) ->
    [Port, Min] = [port(), port()],
    Max = Min + 1,
    true = Max =:= port(),
    Node = fun(Value) ->
        start(#{
            name => {long, quic_dist_node:unique("n") ++ "@127.0.0.1"},
            quic_dist => [{listen_port, Value}]
        })
    end,
    [Fixed, First, Second, Any] = [Node(Value) || Value <- [Port, {Min, Max}, {Min, Max}, 0]],
    ?assertEqual({{127, 0, 0, 1}, Port}, listens(Fixed)),
    ?assertEqual([Min, Max], [element(2, listens(N)) || N <- [First, Second]]),
    ?assert(element(2, listens(Any)) > 0),
    ping_both_ways(First, Second),
    Range = lists:flatten(io_lib:format("{~w,~w}", [Min, Max])),
    Name = quic_dist_node:unique("n") ++ "@127.0.0.1",
    {exit_status, 1, Output} = boot(["-name", Name, "-quic_dist", "listen_port", Range]),
    ?assertMatch({match, _}, re:run(Output, integer_to_list(Max) ++ ".*in use")).

%% Kernel's inet_dist_listen_min and inet_dist_listen_max bound the UDP port as they do inet_tcp's.
kernel_listen_range(_Config) ->
    Min = port(),
    Max = port(),
    Kernel = [{inet_dist_listen_min, Min}, {inet_dist_listen_max, Max}],
    [First, Second] = [
        start(#{
            name => {long, quic_dist_node:unique("n") ++ "@127.0.0.1"},
            args => ["-no_epmd"],
            kernel => Kernel
        })
     || _ <- [1, 2]
    ],
    ?assertEqual([Min, Max], [element(2, listens(Node)) || Node <- [First, Second]]).

%% With -start_epmd false and -erl_epmd_port every node has that UDP port at an address of its own.
fixed_port_without_epmd(_Config) ->
    Port = port(),
    [A, B] = [
        start(#{
            name => {long, quic_dist_node:unique("n") ++ "@" ++ Host},
            args => ["-start_epmd", "false", "-erl_epmd_port", integer_to_list(Port)]
        })
     || Host <- ["127.0.0.1", "127.0.0.2"]
    ],
    ?assertEqual([{{127, 0, 0, 1}, Port}, {{127, 0, 0, 2}, Port}], [listens(N) || N <- [A, B]]),
    ping_both_ways(A, B).

%% An IPv6 address is a host like any other: in names with a port, in the table `nodes', and with
%% stock epmd.
ipv6_names(_Config) ->
    case has_ipv6() of
        false ->
            {skip, "this machine has no IPv6 loopback address"};
        true ->
            Loopback = {0, 0, 0, 0, 0, 0, 0, 1},
            [A, B] = [start(#{name => {numbered, "::1"}}) || _ <- [1, 2]],
            ?assertMatch({Loopback, _}, listens(A)),
            ping_both_ways(A, B),
            [C, D] = [
                start(#{name => {long, quic_dist_node:unique("n") ++ "@::1"}})
             || _ <- [1, 2]
            ],
            ?assertMatch({Loopback, _}, listens(C)),
            ping_both_ways(C, D),
            [PE, PF] = [port(), port()],
            Table = [{'e@x.invalid', "::1", PE}, {'f@x.invalid', Loopback, PF}],
            [E, F] = [
                start(#{
                    name => {long, Name},
                    args => ["-no_epmd"],
                    quic_dist => [{nodes, Table}, {listen_port, P}, {listen_address, "::1"}]
                })
             || {Name, P} <- [{"e@x.invalid", PE}, {"f@x.invalid", PF}]
            ],
            ping_both_ways(E, F)
    end.

has_ipv6() ->
    case gen_udp:open(0, [inet6, {ip, {0, 0, 0, 0, 0, 0, 0, 1}}]) of
        {ok, Socket} -> gen_udp:close(Socket) =:= ok;
        {error, _} -> false
    end.

%% A node whose name says no loopback address is reached over IPv4 and IPv6 at the same UDP port.
ipv4_and_ipv6(_Config) ->
    case has_ipv6() of
        false ->
            {skip, "this machine has no IPv6 loopback address"};
        true ->
            Port = port(),
            Name = quic_dist_node:unique("dual") ++ "@x.invalid",
            Dual = start(#{
                name => {long, Name}, args => ["-no_epmd"], quic_dist => [{listen_port, Port}]
            }),
            [
                begin
                    Node = start(#{quic_dist => [{nodes, [{name(Dual), Host, Port}]}]}),
                    ?assertEqual(pong, ping(Node, name(Dual))),
                    Peers = [Address || Address <- peer_addresses(Node)],
                    {ok, Ip} = inet:parse_strict_address(Host),
                    ?assertEqual([{Ip, Port}], Peers)
                end
             || Host <- ["127.0.0.1", "::1"]
            ]
    end.

%% {IP, UDP port} of each connection, as net_kernel has them.
peer_addresses(Node) ->
    call(Node, fun() ->
        {ok, Infos} = net_kernel:nodes_info(),
        [element(2, proplists:get_value(address, Info)) || {_, Info} <- Infos]
    end).

%% listen_address is the only address that the sidecar has.
listen_address_option(_Config) ->
    [
        begin
            Node = start(#{
                name => {long, quic_dist_node:unique("n") ++ "@x.invalid"},
                args => ["-no_epmd"],
                quic_dist => [{listen_address, Value}]
            }),
            {Ip, Port} = listens(Node),
            ?assertEqual({127, 0, 0, 1}, Ip),
            Sockets = quic_dist_node:udp_sockets(quic_dist_node:sidecar(Node)),
            ?assertEqual([{{127, 0, 0, 1}, Port}], Sockets)
        end
     || Value <- ["127.0.0.1", {127, 0, 0, 1}]
    ].

%% Kernel's inet_dist_use_interface is heeded where listen_address is not given.
kernel_interface(_Config) ->
    Name = fun() -> {long, quic_dist_node:unique("n") ++ "@x.invalid"} end,
    Options = #{args => ["-no_epmd"], kernel => [{inet_dist_use_interface, {127, 0, 0, 2}}]},
    Kernel = start(Options#{name => Name()}),
    ?assertMatch({{127, 0, 0, 2}, _}, listens(Kernel)),
    Ours = start(Options#{name => Name(), quic_dist => [{listen_address, "127.0.0.3"}]}),
    ?assertMatch({{127, 0, 0, 3}, _}, listens(Ours)).

%% An epmd module with address_please/3 that knows the port too is asked just what inet_tcp_dist
%% asks it, and believed.
addressing_epmd_module(Config) ->
    epmd_module(addressing_epmd, Config).

%% An epmd module with port_please/2 only is asked just what inet_tcp_dist asks it, and believed.
porting_epmd_module(Config) ->
    epmd_module(porting_epmd, Config).

epmd_module(Module, Config) ->
    [Tcp, Quic] = [epmd_calls(Module, Carrier, Config) || Carrier <- [inet_tcp, quic]],
    ct:log("inet_tcp: ~p~nquic: ~p", [Tcp, Quic]),
    ?assert(length(Tcp) > 1),
    ?assertEqual(Tcp, Quic).

%% Two nodes, one connects to the other; the calls that the first made, with ports and what differs
%% from run to run or from release to release made the same.
epmd_calls(Module, Carrier, Config) ->
    Dir = filename:join(quic_dist_node:dir(), quic_dist_node:unique("epmd")),
    ok = file:make_dir(Dir),
    Ports = [port(), port()],
    [A, B] = [
        start(#{
            carrier => Carrier,
            name => {long, "p" ++ integer_to_list(Port) ++ "@127.0.0.1"},
            args => ["-start_epmd", "false", "-epmd_module", atom_to_list(Module)],
            env => [{"EPMD_DIR", Dir}],
            paths => [proplists:get_value(epmd_modules, Config)]
        })
     || Port <- Ports
    ],
    ?assertEqual(pong, ping(A, name(B))),
    Calls = call(A, fun() -> Module:calls() end),
    {ok, Names} = {ok, lists:zip(["p" ++ integer_to_list(Port) || Port <- Ports], [a, b])},
    lists:foreach(fun quic_dist_node:stop/1, [A, B]),
    [same(Call, Names) || Call <- Calls].

same({register_node, [Name, Port, Family]}, Names) when is_integer(Port), Port > 0 ->
    true = lists:member(Family, [inet, inet_tcp]),
    {register_node, [alias(Name, Names), port, family]};
same({Function, [Name | Rest]}, Names) ->
    {Function, [alias(Name, Names) | Rest]}.

%% Whether it is called with an atom or a string is part of the contract.
alias(Name, Names) when is_atom(Name) -> proplists:get_value(atom_to_list(Name), Names);
alias(Name, Names) -> {string, proplists:get_value(Name, Names)}.

%% Boot forms

%% erl with nothing but -proto_dist quic, -pa and a name starts a node that reaches others.
bare_command_line(_Config) ->
    Peer = start(#{}),
    Result = boot(["-name", port_name(port()), "-no_epmd" | ping_and_halt(Peer)]),
    ?assertEqual({exit_status, 0, "pong\n"}, Result).

%% Boots a bare node with the least arguments, and waits for its end.
boot(Args) -> boot(Args, #{}).

boot(Args, Options) ->
    quic_dist_node:run(
        ["-noinput", "-setcookie", atom_to_list(quic_dist_node:cookie()), "-proto_dist", "quic",
            "-pa", quic_dist_node:ebin() | Args],
        Options
    ).

ping_and_halt(#{node := Node}) ->
    Expression = "io:format(\"~~p~~n\", [net_adm:ping('~ts')]), halt().",
    ["-eval", lists:flatten(io_lib:format(Expression, [Node]))].

%% The same arguments in a vm.args file, as releases have it, do the same.
args_file(_Config) ->
    Peer = start(#{}),
    File = write("vm.args", [
        "## A comment.\n",
        "-name ", port_name(port()), "\n",
        "-no_epmd\n",
        "-proto_dist quic\n",
        "-setcookie ", atom_to_list(quic_dist_node:cookie()), "\n",
        "-quic_dist log_level info\n",
        "-pa ", quic_dist_node:ebin(), "\n"
    ]),
    Args = ["-noinput", "-args_file", File | ping_and_halt(Peer)],
    ?assertEqual({exit_status, 0, "pong\n"}, quic_dist_node:run(Args, #{})).

%% A detached node, which has no standard input, output or error, is reached like others, and leaves
%% no sidecar when it halts.
detached(_Config) ->
    Peer = start(#{}),
    Others = quic_dist_node:sidecars(),
    Name = port_name(port()),
    Node = list_to_atom(Name),
    {exit_status, 0, ""} = boot(["-detached", "-name", Name, "-no_epmd"]),
    quic_dist_node:wait_until(reached, fun() -> ping(Peer, Node) =:= pong end),
    ?assertMatch([_], quic_dist_node:sidecars() -- Others),
    call(Peer, fun() -> erpc:cast(Node, erlang, halt, [0]) end),
    quic_dist_node:wait_until(gone, fun() -> quic_dist_node:sidecars() -- Others =:= [] end).

write(Name, Text) ->
    Dir = filename:join(quic_dist_node:dir(), quic_dist_node:unique("files")),
    ok = file:make_dir(Dir),
    File = filename:join(Dir, Name),
    ok = file:write_file(File, Text),
    File.

%% A node with -dist_listen false has no listener, connects to others, to whom it is hidden, and
%% nobody connects to it.
without_listening(_Config) ->
    Peer = start(#{}),
    Port = port(),
    Node = start(#{
        name => {long, port_name(Port)}, args => ["-no_epmd", "-dist_listen", "false"]
    }),
    ?assertEqual(undefined, listens(Node)),
    ?assertEqual([], quic_dist_node:udp_sockets(quic_dist_node:sidecar(Node))),
    connect(Node, Peer),
    ?assertEqual({[], [name(Node)]}, call(Peer, fun() -> {nodes(), nodes(hidden)} end)),
    NodeName = name(Node),
    ?assertEqual(NodeName, call(Peer, fun() -> erpc:call(NodeName, erlang, node, []) end)),
    true = call(Peer, fun() -> erlang:disconnect_node(NodeName) end),
    quic_dist_node:wait_until(disconnected, fun() ->
        call(Node, fun() -> nodes(connected) end) =:= []
    end),
    ?assertEqual(pang, ping(Peer, NodeName)),
    connect(Node, Peer).

%% A node called `undefined' gets its name from the first node it connects to and is known under it,
%% has none when that connection has ended, and a name again when it connects again.
dynamic_long_name(_Config) ->
    dynamic_name(["-name", "undefined@127.0.0.1"], numbered).

%% The same with short names.
dynamic_short_name(_Config) ->
    Name = {short, integer_to_list(port()) ++ "@localhost"},
    dynamic_name(["-sname", "undefined@localhost"], Name).

dynamic_name(Args, PeerName) ->
    Peer = start(#{name => PeerName, args => ["-no_epmd"]}),
    PeerNode = name(Peer),
    Node = start(#{name => none, args => ["-no_epmd" | Args]}),
    ?assertEqual('nonode@nohost', name(Node)),
    Connect = fun() ->
        %% net_adm:ping asks before it has a name, and is refused.
        connect(Node, Peer),
        Name = call(Node, fun() -> node() end),
        ?assertNotEqual('nonode@nohost', Name),
        ?assertEqual([Name], call(Peer, fun() -> nodes(hidden) end)),
        ?assertEqual(Name, call(Peer, fun() -> erpc:call(Name, erlang, node, []) end)),
        ?assertEqual(pong, ping(Node, PeerNode)),
        Name
    end,
    Name = Connect(),
    true = call(Peer, fun() -> erlang:disconnect_node(Name) end),
    quic_dist_node:wait_until(unnamed, fun() ->
        call(Node, fun() -> {node(), nodes(connected)} end) =:= {'nonode@nohost', []}
    end),
    Connect().

%% erl -remsh gives a shell on another node: what is typed is evaluated there.
remote_shell(_Config) ->
    remote_shell_with(["-name", port_name(port())], numbered).

%% erl -remsh without a name of its own does so too: it takes a dynamic short name.
remote_shell_without_a_name(_Config) ->
    remote_shell_with([], {short, port_name(port(), "localhost")}).

remote_shell_with(NameArgs, NodeName) ->
    Node = start(#{name => NodeName, args => ["-no_epmd"]}),
    Name = atom_to_list(name(Node)),
    Shell = terminal(
        NameArgs ++
            ["-no_epmd", "-setcookie", atom_to_list(quic_dist_node:cookie()), "-proto_dist", "quic",
                "-pa", quic_dist_node:ebin(), "-remsh", Name]
    ),
    screen(Shell, ["\\(", Name, "\\)1> "]),
    keys(Shell, "{on, node(), os:getpid()}.\n"),
    screen(Shell, io_lib:format("{on,'~ts',\"~w\"}", [Name, maps:get(os_pid, Node)])),
    keys(Shell, "persistent_term:put(typed, here).\n"),
    quic_dist_node:wait_until(evaluated, fun() ->
        call(Node, fun() -> persistent_term:get(typed, nothing) end) =:= here
    end),
    %% The only other node is the one whose terminal this is.
    keys(Shell, "[erpc:cast(Other, erlang, halt, []) || Other <- nodes(connected)].\n"),
    {Command, _} = Shell,
    ?assertMatch({exit_status, _, _}, quic_dist_node:finish(Command, 10000)),
    quic_dist_node:wait_until(disconnected, fun() ->
        call(Node, fun() -> nodes(connected) end) =:= []
    end).

%% Distribution started and stopped twenty times in one VM works each time, and leaves no
%% sidecar, UDP socket, process, port or file behind.
started_and_stopped_twenty_times(_Config) ->
    Peer = start(#{}),
    PeerNode = name(Peer),
    Tmp = filename:join(quic_dist_node:dir(), quic_dist_node:unique("tmp")),
    ok = file:make_dir(Tmp),
    Node = start(#{
        name => none, args => ["-no_epmd"], env => [{"TMPDIR", Tmp}, {"XDG_RUNTIME_DIR", Tmp}]
    }),
    Others = quic_dist_node:sidecars(),
    Port = port(),
    Name = list_to_atom(port_name(Port)),
    Round = fun() ->
        call(Node, fun() ->
            {ok, _} = net_kernel:start(Name, #{name_domain => longnames}),
            Name = node(),
            pong = net_adm:ping(PeerNode),
            ok = net_kernel:stop(),
            nonode@nohost = node()
        end),
        quic_dist_node:wait_until(nothing_left, fun() ->
            Left = {
                quic_dist_node:sidecars() -- Others,
                [Socket || {_, P, _} = Socket <- quic_dist_node:udp_sockets(), P =:= Port],
                element(2, file:list_dir(Tmp))
            },
            Left =:= {[], [], []} orelse Left
        end)
    end,
    %% What the VM starts for the first distribution and keeps is not counted.
    Round(),
    Before = counts(Node),
    [Round() || _ <- lists:seq(2, 20)],
    quic_dist_node:wait_until(counts, fun() ->
        {Processes, Ports} = After = counts(Node),
        (Processes =< element(1, Before) andalso Ports =< element(2, Before)) orelse {Before, After}
    end).

counts(Node) ->
    call(Node, fun() -> {length(processes()), length(erlang:ports())} end).

%% A release in embedded mode, with nothing but kernel, stdlib and this library in its boot script,
%% starts as a node.
embedded_mode(_Config) ->
    Peer = start(#{}),
    Dir = filename:join(quic_dist_node:dir(), quic_dist_node:unique("release")),
    ok = file:make_dir(Dir),
    Version = fun(App) ->
        _ = application:load(App),
        {ok, Vsn} = application:get_key(App, vsn),
        {App, Vsn}
    end,
    {ok, [{application, quic_dist, Keys}]} =
        file:consult(filename:join(quic_dist_node:ebin(), "quic_dist.app")),
    Release =
        {release, {"embedded", "1"}, {erts, erlang:system_info(version)}, [
            Version(kernel), Version(stdlib), {quic_dist, proplists:get_value(vsn, Keys)}
        ]},
    File = filename:join(Dir, "embedded.rel"),
    ok = file:write_file(File, io_lib:format("~p.~n", [Release])),
    {ok, _, []} = systools:make_script(filename:rootname(File), [
        silent, local, no_warn_sasl, {outdir, Dir}, {path, [quic_dist_node:ebin()]}
    ]),
    Result = quic_dist_node:run(
        ["-noinput", "-boot", filename:join(Dir, "embedded"), "-mode", "embedded",
            "-name", port_name(port()), "-no_epmd", "-proto_dist", "quic",
            "-setcookie", atom_to_list(quic_dist_node:cookie()) | ping_and_halt(Peer)],
        #{}
    ),
    ?assertEqual({exit_status, 0, "pong\n"}, Result).

%% A node with two carriers, in either order, is reached by nodes that know only one of them. Which
%% one it uses itself is OTP's choice: the one that was named last.
two_carriers(Config) ->
    Options = fun(Carrier) ->
        #{
            carrier => Carrier,
            name => {long, "p" ++ integer_to_list(port()) ++ "@127.0.0.1"},
            args => ["-start_epmd", "false", "-epmd_module", "porting_epmd"],
            paths => [proplists:get_value(epmd_modules, Config)]
        }
    end,
    [Quic, Tcp] = [start(Options(Carrier)) || Carrier <- [quic, inet_tcp]],
    [
        begin
            Both = start(Options(Carriers)),
            ?assertEqual(pong, ping(Quic, name(Both))),
            ?assertEqual(pong, ping(Tcp, name(Both))),
            Protocols = [{name(Quic), quic}, {name(Tcp), tcp}],
            ?assertEqual(lists:sort(Protocols), protocols(Both)),
            {NodeQuic, NodeTcp} = {name(Quic), name(Tcp)},
            call(Both, fun() -> [true = erlang:disconnect_node(N) || N <- nodes()] end),
            Chosen = #{quic => NodeQuic, inet_tcp => NodeTcp},
            ?assertEqual(pong, ping(Both, maps:get(lists:last(Carriers), Chosen))),
            ?assertEqual([lists:keyfind(maps:get(lists:last(Carriers), Chosen), 1, Protocols)],
                protocols(Both)),
            quic_dist_node:stop(Both)
        end
     || Carriers <- [[quic, inet_tcp], [inet_tcp, quic]]
    ].

%% The protocol of each connection, as net_kernel has it.
protocols(Node) ->
    call(Node, fun() ->
        {ok, Infos} = net_kernel:nodes_info(),
        lists:sort([
            {Other, (proplists:get_value(address, Info))#net_address.protocol}
         || {Other, Info} <- Infos
        ])
    end).

%% Kernel's inet_backend socket, which makes other sockets of all that gen_tcp opens, is no
%% obstacle.
socket_backend(_Config) ->
    Options = #{kernel => [{inet_backend, socket}]},
    [A, B] = [start(Options) || _ <- [1, 2]],
    ping_both_ways(A, B).

%% The session that the first quic_dist had in its README: two shells, certificate and key set in
%% the environment, distribution started by hand, pings both ways, a process on the other node that
%% displays something there.
the_first_session(_Config) ->
    #{certs := [Cert]} = quic_dist_node:certificates([{127, 0, 0, 1}]),
    Dir = filename:dirname(write("sys.config", "[].\n")),
    Open = fun() ->
        quic_dist_node:open(["-pa", quic_dist_node:ebin()], #{
            cd => Dir,
            env => [
                {"ERL_FLAGS", "-proto_dist quic -no_epmd -config sys"},
                {"HOME", Dir},
                {"TERM", "dumb"}
            ]
        })
    end,
    [P1, P2] = [port(), port()],
    One = session(Open(), P1, Cert),
    Two = session(Open(), P2, Cert),
    [type(One, ping_line(P2), "pong") || _ <- [1, 2, 3]],
    [type(Two, ping_line(P1), "pong") || _ <- [1, 2, 3]],
    Spawn = ["spawn('", port_name(P2), "', fun() -> erlang:display(hello) end)."],
    type(One, Spawn, "<[0-9]+\\.[0-9]+\\.[0-9]+>"),
    _ = quic_dist_node:expect(Two, "hello", 5000),
    [quic_dist_node:enter(Shell, "halt().\n") || Shell <- [One, Two]],
    [?assertMatch({exit_status, 0, _}, quic_dist_node:finish(S, 5000)) || S <- [One, Two]],
    ok.

ping_line(Port) -> ["net_adm:ping('", port_name(Port), "')."].

session(Shell, Port, #{certfile := CertFile, keyfile := KeyFile}) ->
    _ = quic_dist_node:expect(Shell, "1> ", 10000),
    type(Shell, "application:ensure_all_started(quic_dist).", "\\{ok,\\[quic_dist\\]\\}"),
    Env = io_lib:format("application:set_env([{quic_dist, [{cert, ~p}, {key, ~p}]}]).", [
        CertFile, KeyFile
    ]),
    type(Shell, Env, "ok"),
    Start = ["net_kernel:start('", port_name(Port), "', #{})."],
    type(Shell, Start, "\\{ok,<0\\.[0-9]+\\.[0-9]+>\\}"),
    _ = quic_dist_node:expect(Shell, "\\(" ++ port_name(Port) ++ "\\)4> ", 5000),
    Shell.

%% Enters a line and waits for its result, alone on a line.
type(Shell, Line, Result) ->
    quic_dist_node:enter(Shell, [Line, "\n"]),
    quic_dist_node:expect(Shell, ["(^|> )", Result, "\r?\n"], 10000).

%% Configuration

%% Options are taken from boot flags, from the file of -quic_dist_optfile, from -config on plain erl
%% and from application:set_env before distribution is started.
configuration_sources(_Config) ->
    [P1, P2, P3, P4, P5] = [port() || _ <- lists:seq(1, 5)],
    Terms = write("terms.config", io_lib:format("{listen_port, ~w}.~n{log_level, info}.~n", [P2])),
    List = write("list.config", io_lib:format("[{listen_port, ~w}].~n", [P3])),
    Sys = write(
        "sys.config", io_lib:format("[{quic_dist, [{listen_port, ~w}, {lanes, 2}]}].~n", [P4])
    ),
    Flags = ["listen_port", integer_to_list(P1), "streams", "sender", "connections", "3"],
    [
        begin
            Name = quic_dist_node:unique("n") ++ "@127.0.0.1",
            Node = start(#{name => {long, Name}, args => ["-no_epmd" | Args]}),
            ?assertEqual({{127, 0, 0, 1}, Port}, listens(Node)),
            #{options := Options} = quic_dist_node:info(Node),
            ?assertEqual(Others, maps:with(maps:keys(Others), Options))
        end
     || {Port, Args, Others} <- [
            {P1, ["-quic_dist" | Flags], #{streams => sender, connections => 3, lanes => 8}},
            {P2, ["-quic_dist_optfile", Terms], #{log_level => info, streams => bulk}},
            {P3, ["-quic_dist_optfile", List], #{log_level => notice, connections => auto}},
            {P4, ["-config", Sys], #{lanes => 2}}
        ]
    ],
    Later = start(#{name => none, args => ["-no_epmd"]}),
    call(Later, fun() ->
        ok = application:set_env(quic_dist, listen_port, P5),
        {ok, _} = net_kernel:start('later@127.0.0.1', #{name_domain => longnames})
    end),
    ?assertEqual({{127, 0, 0, 1}, P5}, listens(Later)).

%% Where several sources name an option, a boot flag counts before the option file, and that before
%% the environment; options named only in lower sources count too.
precedence_of_sources(_Config) ->
    [P1, P2, P3] = [port(), port(), port()],
    Options = fun(Port, Address) -> [{listen_port, Port}, {listen_address, Address}] end,
    File = write("options", io_lib:format("~p.~n", [Options(P2, "127.0.0.2")])),
    Sys = write("sys.config", io_lib:format("~p.~n", [[{quic_dist, Options(P3, "127.0.0.3")}]])),
    Flag = ["-quic_dist", "listen_port", integer_to_list(P1)],
    [
        begin
            Name = quic_dist_node:unique("n") ++ "@x.invalid",
            Node = start(#{name => {long, Name}, args => ["-no_epmd" | lists:append(Args)]}),
            ?assertEqual(Expected, listens(Node))
        end
     || {Expected, Args} <- [
            {{{127, 0, 0, 2}, P1}, [Flag, ["-quic_dist_optfile", File], ["-config", Sys]]},
            {{{127, 0, 0, 2}, P2}, [["-quic_dist_optfile", File], ["-config", Sys]]},
            {{{127, 0, 0, 3}, P1}, [["-config", Sys], Flag]}
        ]
    ].

%% A wrong option stops the boot with status 1, soon, and with one line that names the option, its
%% value, where it stood and what is accepted.
wrong_options(_Config) ->
    Wrong = [
        {Args, Result}
     || {Args, Words} <- wrong_options(),
        Result <- [boot(["-name", "wrong@127.0.0.1", "-no_epmd" | Args])],
        not is_refusal(Result, Words)
    ],
    ?assertEqual([], Wrong).

%% That holds for a node that does not listen, too.
wrong_options_without_listening(_Config) ->
    Args = ["-quic_dist", "log_level", "loud"],
    Result = boot(["-name", "n@127.0.0.1", "-no_epmd", "-dist_listen", "false" | Args]),
    check_refusal(["log_level", "loud", "boot flag", "error, warning, notice"], Result).

wrong_options() ->
    Flag = "boot flag -quic_dist",
    Missing = filename:join(quic_dist_node:dir(), "missing"),
    Script = write("script", "#!/bin/sh\nexit 7\n"),
    ok = file:change_mode(Script, 8#755),
    Syntax = write("syntax", "{listen_port, }.\n"),
    NoPair = write("no_pair", "{listen_port, 1, 2}.\n"),
    Value = write("value", "{listen_port, a}.\n"),
    Sys = write("sys.config", "[{quic_dist, [{listen_port, -1}]}].\n"),
    {ok, Socket} = gen_udp:open(0, [{ip, {127, 0, 0, 1}}]),
    {ok, Taken} = inet:port(Socket),
    TakenPort = integer_to_list(Taken),
    [
        {["-quic_dist", "listen_port", "70000"], ["listen_port", "70000", Flag, "0 to 65535"]},
        {["-quic_dist", "listen_port", "{2,1}"], ["listen_port", "{2,1}", Flag, "{Min, Max}"]},
        {["-quic_dist", "listen_port"], ["listen_port", "no value", Flag, "Key Value"]},
        {["-quic_dist", "nonsense", "1"], ["nonsense", Flag, "one of certfile, .*log_level"]},
        {["-quic_dist", "listen_address", "10.0.0"], ["listen_address", "10.0.0", Flag, "::1"]},
        {["-quic_dist", "nodes", "[{a, b}]"], ["nodes", Flag, "a list of {Node, Host, UdpPort}"]},
        {["-quic_dist", "log_level", "loud"], ["log_level", "loud", Flag, "warning, notice"]},
        {["-quic_dist", "streams", "two"], ["streams = two", Flag, "single, bulk or sender"]},
        {["-quic_dist", "lanes", "65"], ["lanes = 65", Flag, "1 to 64"]},
        {["-quic_dist", "connections", "0"], ["connections = 0", Flag, "auto, or 1 to 16"]},
        {["-quic_dist", "keyfile", "/k.pem"], ["keyfile", "/k.pem", Flag, "with certfile"]},
        {["-quic_dist", "certfile", Missing], ["certfile", Missing, "no such file"]},
        {["-quic_dist", "executable", Missing], [Missing ++ ": no such file", "make build"]},
        {["-quic_dist", "executable", Script], [Script, "a script", "status 7", "quicdistd"]},
        {["-quic_dist", "listen_address", "192.0.2.1"], ["192\\.0\\.2\\.1", "not an address of"]},
        {["-quic_dist", "listen_port", TakenPort], [TakenPort, "in use"]},
        {["-quic_dist_optfile", Missing], [Missing, "cannot be read", "a readable file"]},
        {["-quic_dist_optfile"], ["-quic_dist_optfile", "one file name"]},
        {["-quic_dist_optfile", Syntax], [Syntax, "line 1", "syntax error", "{Key, Value}"]},
        {["-quic_dist_optfile", NoPair], [NoPair, "not {Key, Value}"]},
        {["-quic_dist_optfile", Value], ["listen_port = a", "option file " ++ Value, "0 to 65535"]},
        {["-config", Sys], ["listen_port = -1", "environment of application quic_dist", "65535"]}
    ].

check_refusal(Words, Result) ->
    ?assert(is_refusal(Result, Words), {Words, Result}).

%% Did the boot end with status 1 and a line that has all these words?
is_refusal({exit_status, 1, Output}, Words) ->
    lists:any(
        fun(Line) -> lists:all(fun(Word) -> has(Line, Word) end, Words) end,
        string:lexemes(Output, "\n")
    );
is_refusal(_, _) ->
    false.

has(Line, Word) ->
    Escaped = re:replace(Word, "[{}]", "\\\\&", [global, {return, list}]),
    re:run(Line, Escaped) =/= nomatch.

%% In a VM that runs already a wrong option makes net_kernel:start return an error, logs the line,
%% and harms nothing: after a correction distribution starts. A password is in neither.
wrong_options_of_a_running_node(_Config) ->
    Node = start(#{name => none, args => ["-no_epmd"]}),
    Port = port(),
    Name = list_to_atom(port_name(Port)),
    Start = fun(Env) ->
        call(Node, fun() ->
            [application:set_env(quic_dist, Key, Value) || {Key, Value} <- Env],
            Result = net_kernel:start(Name, #{name_domain => longnames}),
            [application:unset_env(quic_dist, Key) || {Key, _} <- Env],
            Result
        end)
    end,
    ?assertMatch({error, _}, Start([{listen_port, wrong}])),
    _ = quic_dist_node:wait_log(Node, "listen_port = wrong.*environment.*0 to 65535", 5000),
    ?assertMatch({error, _}, Start([{password, "pass phrase"}])),
    _ = quic_dist_node:wait_log(Node, "password = .*environment.*certfile", 5000),
    ?assertEqual([], quic_dist_node:log_lines(Node, "pass phrase")),
    ?assertMatch({ok, _}, Start([])),
    ?assertEqual({{127, 0, 0, 1}, Port}, listens(Node)).

%% A name that epmd has from another node stops the boot with OTP's own message.
name_in_use(_Config) ->
    Name = quic_dist_node:unique("twice") ++ "@127.0.0.1",
    _ = start(#{name => {long, Name}}),
    Result = boot(["-name", Name]),
    check_refusal([Name, "in use by another Erlang node"], Result).
