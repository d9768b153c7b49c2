%% @doc A node listens and is found under every form of name: with and without epmd, at fixed ports
%% and in ranges, over IPv4 and IPv6, with other epmd modules and with two carriers.
-module(quic_dist_listen_SUITE).

-export([all/0, suite/0, init_per_suite/1, end_per_suite/1]).
-export([
    port_in_the_name/1,
    stock_epmd_with_long_names/1,
    stock_epmd_with_short_names/1,
    nodes_table/1,
    listen_port_option/1,
    kernel_listen_range/1,
    fixed_port_without_epmd/1,
    fixed_port_as_a_parameter/1,
    ipv6_names/1,
    ipv4_and_ipv6/1,
    listen_address_option/1,
    kernel_interface/1,
    kernel_interface_in_words/1,
    addressing_epmd_module/1,
    porting_epmd_module/1,
    two_carriers/1
]).

-include_lib("stdlib/include/assert.hrl").
-include_lib("kernel/include/net_address.hrl").

-import(quic_dist_command, [boot_fails/2]).
-import(quic_dist_node, [
    call/2, listens/1, name/1, ping/2, ping_both_ways/2, sidecar/1, start/1, stop/1
]).
-import(quic_dist_os, [udp_sockets/1]).
-import(quic_dist_run, [dir/0, free_port/0, port_name/1, unique/1]).
-import(quic_dist_wait, [scale/1, wait_until/2]).

suite() ->
    [{ct_hooks, [quic_dist_hooks]}, {timetrap, scale(90000)}].

all() ->
    [
        port_in_the_name,
        stock_epmd_with_long_names,
        stock_epmd_with_short_names,
        nodes_table,
        listen_port_option,
        kernel_listen_range,
        fixed_port_without_epmd,
        fixed_port_as_a_parameter,
        ipv6_names,
        ipv4_and_ipv6,
        listen_address_option,
        kernel_interface,
        kernel_interface_in_words,
        addressing_epmd_module,
        porting_epmd_module,
        two_carriers
    ].

init_per_suite(Config) ->
    %% The epmd modules go where the nodes find them.
    Out = filename:join(dir(), "epmd_modules"),
    ok = file:make_dir(Out),
    [
        {ok, _} = compile:file(
            filename:join(proplists:get_value(data_dir, Config), Module), [{outdir, Out}]
        )
     || Module <- ["addressing_epmd", "porting_epmd"]
    ],
    [{epmd_modules, Out} | Config].

end_per_suite(_Config) ->
    ok.

%% Two nodes without epmd need no more than names of the form port@host. The sidecar has that UDP
%% port, at the loopback address of the name, and no other.
port_in_the_name(_Config) ->
    [P1, P2] = [free_port(), free_port()],
    [A, B] = [start(#{name => {long, port_name(P)}, args => ["-no_epmd"]}) || P <- [P1, P2]],
    ?assertEqual({{127, 0, 0, 1}, P1}, listens(A)),
    ?assertEqual([{{127, 0, 0, 1}, P1}], udp_sockets(sidecar(A))),
    ping_both_ways(A, B).

%% Any long name works with stock epmd, which knows the name with the UDP port until the node ends.
stock_epmd_with_long_names(_Config) ->
    stock_epmd(long, "127.0.0.1").

%% Any short name works with stock epmd. The sidecar resolves its host.
stock_epmd_with_short_names(_Config) ->
    {ok, Host} = inet:gethostname(),
    stock_epmd(short, Host).

stock_epmd(Form, Host) ->
    [NameA, NameB] = [unique(Prefix) || Prefix <- ["a", "b"]],
    A = start(#{name => {Form, full_name(Form, NameA, Host)}}),
    B = start(#{name => {Form, full_name(Form, NameB, Host)}}),
    ?assertEqual(list_to_atom(NameA ++ "@" ++ Host), name(A)),
    {_, Port} = listens(A),
    Registered = fun() -> call(B, fun() -> element(2, erl_epmd:names({127, 0, 0, 1})) end) end,
    ?assertEqual(Port, proplists:get_value(NameA, Registered())),
    ping_both_ways(A, B),
    stop(A),
    wait_until(unregistered, fun() ->
        proplists:get_value(NameA, Registered()) =:= undefined
    end).

full_name(long, Name, Host) -> Name ++ "@" ++ Host;
full_name(short, Name, _) -> Name.

%% The table `nodes' replaces epmd: names of any form, hosts by name or by address, one table for
%% all nodes.
nodes_table(_Config) ->
    [PA, PB] = [free_port(), free_port()],
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

%% listen_port is the UDP port, or a range in which each node takes the first free port. A boot
%% fails, and says so, when the range is used up.
listen_port_option(_Config) ->
    [Port, Min] = [free_port(), free_port()],
    Max = Min + 1,
    true = Max =:= free_port(),
    Node = fun(Value) ->
        start(#{
            name => {long, unique("n") ++ "@127.0.0.1"},
            quic_dist => [{listen_port, Value}]
        })
    end,
    [Fixed, First, Second, Any] = [Node(Value) || Value <- [Port, {Min, Max}, {Min, Max}, 0]],
    ?assertEqual({{127, 0, 0, 1}, Port}, listens(Fixed)),
    ?assertEqual([Min, Max], [element(2, listens(N)) || N <- [First, Second]]),
    ?assert(element(2, listens(Any)) > 0),
    ping_both_ways(First, Second),
    Range = lists:flatten(io_lib:format("{~w,~w}", [Min, Max])),
    Name = unique("n") ++ "@127.0.0.1",
    boot_fails(["-name", Name, "-quic_dist", "listen_port", Range], [
        integer_to_list(Max), "in use"
    ]).

%% Kernel's inet_dist_listen_min and inet_dist_listen_max bound the UDP port as they do inet_tcp's.
kernel_listen_range(_Config) ->
    Min = free_port(),
    Max = free_port(),
    Kernel = [{inet_dist_listen_min, Min}, {inet_dist_listen_max, Max}],
    [First, Second] = [
        start(#{
            name => {long, unique("n") ++ "@127.0.0.1"},
            args => ["-no_epmd"],
            kernel => Kernel
        })
     || _ <- [1, 2]
    ],
    ?assertEqual([Min, Max], [element(2, listens(Node)) || Node <- [First, Second]]).

%% With -start_epmd false and -erl_epmd_port every node has that UDP port at an address of its own.
fixed_port_without_epmd(_Config) ->
    Port = free_port(),
    [A, B] = [
        start(#{
            name => {long, unique("n") ++ "@" ++ Host},
            args => ["-start_epmd", "false", "-erl_epmd_port", integer_to_list(Port)]
        })
     || Host <- ["127.0.0.1", "127.0.0.2"]
    ],
    ?assertEqual([{{127, 0, 0, 1}, Port}, {{127, 0, 0, 2}, Port}], [listens(N) || N <- [A, B]]),
    ping_both_ways(A, B).

%% From OTP 28 on a parameter of Kernel sets the port of all nodes, with -no_epmd too.
fixed_port_as_a_parameter(_Config) ->
    case list_to_integer(erlang:system_info(otp_release)) >= 28 of
        true ->
            Port = free_port(),
            [A, B] = [
                start(#{
                    name => {long, unique("n") ++ "@" ++ Host},
                    args => ["-start_epmd", "false", "-no_epmd"],
                    kernel => [{erl_epmd_node_listen_port, Port}]
                })
             || Host <- ["127.0.0.1", "127.0.0.2"]
            ],
            ?assertEqual([Port, Port], [element(2, listens(N)) || N <- [A, B]]),
            ping_both_ways(A, B);
        false ->
            {skip, "Kernel has no such parameter before OTP 28"}
    end.

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
                start(#{name => {long, unique("n") ++ "@::1"}})
             || _ <- [1, 2]
            ],
            ?assertMatch({Loopback, _}, listens(C)),
            ping_both_ways(C, D),
            [PE, PF] = [free_port(), free_port()],
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

%% Peers reach a node whose name has no loopback address over IPv4 and IPv6 at the same UDP port.
ipv4_and_ipv6(_Config) ->
    case has_ipv6() of
        false ->
            {skip, "this machine has no IPv6 loopback address"};
        true ->
            Port = free_port(),
            Name = unique("dual") ++ "@x.invalid",
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
                name => {long, unique("n") ++ "@x.invalid"},
                args => ["-no_epmd"],
                quic_dist => [{listen_address, Value}]
            }),
            {Ip, Port} = listens(Node),
            ?assertEqual({127, 0, 0, 1}, Ip),
            Sockets = udp_sockets(sidecar(Node)),
            ?assertEqual([{{127, 0, 0, 1}, Port}], Sockets)
        end
     || Value <- ["127.0.0.1", {127, 0, 0, 1}]
    ].

%% Kernel's inet_dist_use_interface counts where listen_address is not set.
kernel_interface(_Config) ->
    Name = fun() -> {long, unique("n") ++ "@x.invalid"} end,
    Options = #{args => ["-no_epmd"], kernel => [{inet_dist_use_interface, {127, 0, 0, 2}}]},
    Kernel = start(Options#{name => Name()}),
    ?assertMatch({{127, 0, 0, 2}, _}, listens(Kernel)),
    Ours = start(Options#{name => Name(), quic_dist => [{listen_address, "127.0.0.3"}]}),
    ?assertMatch({{127, 0, 0, 3}, _}, listens(Ours)).

%% Kernel's inet_dist_use_interface may be a word that gen_tcp takes.
kernel_interface_in_words(_Config) ->
    [
        begin
            Node = start(#{
                name => {long, unique("n") ++ "@" ++ Host},
                args => ["-no_epmd"],
                kernel => [{inet_dist_use_interface, Word}]
            }),
            {Ip, _} = listens(Node),
            ?assert(lists:member(Ip, Expected), {Word, Host, Ip})
        end
     || {Word, Host, Expected} <- [
            {any, "127.0.0.1", [{0, 0, 0, 0}, {0, 0, 0, 0, 0, 0, 0, 0}]},
            {any, "x.invalid", [{0, 0, 0, 0}, {0, 0, 0, 0, 0, 0, 0, 0}]},
            {loopback, "x.invalid", [{127, 0, 0, 1}]}
        ]
    ].

%% An epmd module with address_please/3 that knows the port gets the calls that inet_tcp_dist
%% makes, and its answers count.
addressing_epmd_module(Config) ->
    epmd_module(addressing_epmd, Config).

%% An epmd module with port_please/2 only gets the calls that inet_tcp_dist makes, and its answers
%% count.
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
    Dir = filename:join(dir(), unique("epmd")),
    ok = file:make_dir(Dir),
    Ports = [free_port(), free_port()],
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

%% Nodes that know only one of two carriers reach a node with both, in either order. That node
%% itself uses the one that was named last, as OTP chooses.
two_carriers(Config) ->
    Options = fun(Carrier) ->
        #{
            carrier => Carrier,
            name => {long, "p" ++ integer_to_list(free_port()) ++ "@127.0.0.1"},
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
            stop(Both)
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
