%% @doc Clusters find their nodes without epmd, on real nodes: by the registry, OTP's epmd, DNS, a
%% fixed port or a file, with one carrier or two. quic_epmd_migration_SUITE has the migration from
%% TCP to QUIC and back.
-module(quic_epmd_SUITE).

-export([all/0, suite/0]).
-export([
    nodes_of_one_host/1,
    the_registry_outlives_its_holder/1,
    a_sidecar_that_dies_is_registered_again/1,
    two_nodes_of_one_name/1,
    a_port_of_another_program/1,
    a_port_of_epmd/1,
    stock_nodes_find_ours/1,
    names_are_for_this_host/1,
    remote_shell/1,
    two_carriers/1,
    two_carriers_with_tls/1,
    stock_epmd/1,
    fixed_port/1,
    file_of_nodes/1,
    services_in_dns/1,
    dns_that_lies/1,
    dns_that_is_silent/1,
    stopped_and_started/1,
    bad_options/1
]).

-include_lib("stdlib/include/assert.hrl").
-include_lib("kernel/include/net_address.hrl").

-define(DNS_A, 1).
-define(DNS_SRV, 33).

-import(quic_dist_hooks, [port/1]).
-import(quic_dist_node, [call/2, call/4, ping/2, start/1]).
-import(quic_dist_run, [unique/1]).
-import(quic_dist_wait, [scale/1, wait_until/2]).

suite() ->
    [{ct_hooks, [quic_dist_hooks]}, {timetrap, scale(60000)}].

all() ->
    [
        nodes_of_one_host,
        the_registry_outlives_its_holder,
        a_sidecar_that_dies_is_registered_again,
        two_nodes_of_one_name,
        a_port_of_another_program,
        a_port_of_epmd,
        stock_nodes_find_ours,
        names_are_for_this_host,
        remote_shell,
        two_carriers,
        two_carriers_with_tls,
        stock_epmd,
        fixed_port,
        file_of_nodes,
        services_in_dns,
        dns_that_lies,
        dns_that_is_silent,
        stopped_and_started,
        bad_options
    ].

%% Nodes

%% A node that others find by the registry of this test.
node_at(Config, Carrier, Name) ->
    node_at(Config, Carrier, Name, []).

node_at(Config, Carrier, Name, Options) ->
    start(options(Carrier, Name, [{name_port, port(Config)} | Options])).

options(Carrier, Name, Options) ->
    #{
        carrier => Carrier,
        name => {long, Name},
        args => ["-start_epmd", "false", "-epmd_module", "quic_epmd"],
        quic_dist => Options
    }.

local(Name) -> unique(Name) ++ "@127.0.0.1".

first_part(#{node := Node}) -> hd(string:split(atom_to_list(Node), "@")).

%% Which protocol connects a node to another one.
protocol(Node, #{node := To}) ->
    call(Node, fun() ->
        {ok, Info} = net_kernel:node_info(To),
        (proplists:get_value(address, Info))#net_address.protocol
    end).

names(Node) -> names(Node, "127.0.0.1").

names(Node, Host) ->
    case call(Node, net_adm, names, [Host]) of
        {ok, Names} -> lists:sort([Name || {Name, _} <- Names]);
        Error -> Error
    end.

first_parts(Nodes) -> lists:sort([first_part(Node) || Node <- Nodes]).

%% A node with these flags does not boot, and says these words.
boot_fails(Flags, Words) ->
    Registry = ["-start_epmd", "false", "-epmd_module", "quic_epmd"],
    Args = ["-noinput", "-proto_dist", "quic", "-pa", quic_dist_run:ebin() | Registry ++ Flags],
    quic_dist_command:boot_fails(Args, #{}, Words).

%% The registry

%% Three nodes of one host find each other and their names without epmd. So does a node that has no
%% name yet.
nodes_of_one_host(Config) ->
    [A, B, C] = Nodes = [node_at(Config, quic, local(N)) || N <- ["a", "b", "c"]],
    ?assertEqual(pong, ping(A, B)),
    ?assertEqual(pong, ping(B, C)),
    ?assertEqual(pong, ping(C, A)),
    ?assertEqual(first_parts(Nodes), names(B)),
    {ok, Own} = call(C, net_adm, names, []),
    ?assertEqual(first_parts(Nodes), lists:sort([Name || {Name, _} <- Own])),
    ?assertEqual(pang, ping(A, list_to_atom(local("nobody")))),
    [_] = quic_dist_node:wait_log(A, "does not know the name nobody.* is the node up", 5000),
    quic_dist_node:stop(B),
    wait_until(gone, fun() -> names(A) =:= first_parts([A, C]) end),
    D = start((options(quic, "", [{name_port, port(Config)}]))#{
        name => none, args => ["-start_epmd", "false", "-epmd_module", "quic_epmd"]
    }),
    {ok, _} = call(D, net_kernel, start, [[list_to_atom(local("d")), longnames]]),
    ?assertEqual(pong, ping(C, call(D, erlang, node, []))).

%% When the node that serves the names ends, killed with its sidecar, another one does, and the
%% nodes that stay are found as before; a node that comes at that moment is registered.
the_registry_outlives_its_holder(Config) ->
    A = node_at(Config, quic, local("a")),
    [B, C] = Rest = [node_at(Config, quic, local(N)) || N <- ["b", "c"]],
    Sidecar = quic_dist_node:sidecar(A),
    Late = spawn_monitor(fun() -> exit({late, node_at(Config, quic, local("late"))}) end),
    quic_dist_os:signal(maps:get(os_pid, A), kill),
    quic_dist_os:signal(Sidecar, kill),
    {Pid, Monitor} = Late,
    D =
        receive
            {'DOWN', Monitor, process, Pid, {late, Node}} -> Node;
            {'DOWN', Monitor, process, Pid, Reason} -> error(Reason)
        end,
    wait_until(names, fun() -> names(C) =:= first_parts([D | Rest]) end),
    ?assertEqual(pong, ping(B, C)),
    ?assertEqual(pong, ping(D, B)).

%% A node whose sidecar is killed is found again, at the port that peers know.
a_sidecar_that_dies_is_registered_again(Config) ->
    [A, B] = Nodes = [node_at(Config, [quic, inet_tcp], local(N)) || N <- ["a", "b"]],
    Before = call(A, net_adm, names, ["127.0.0.1"]),
    [
        begin
            Sidecar = quic_dist_node:sidecar(Node),
            quic_dist_os:signal(Sidecar, kill),
            wait_until(another, fun() -> quic_dist_node:sidecar(Node) =/= Sidecar end)
        end
     || Node <- Nodes
    ],
    wait_until(names, fun() -> call(B, net_adm, names, ["127.0.0.1"]) =:= Before end),
    ?assertEqual(pong, ping(A, B)),
    ?assertEqual(quic, protocol(A, B)).

%% A name that is another node's ends the boot with OTP's own line, and the other node is untouched.
two_nodes_of_one_name(Config) ->
    Name = local("a"),
    A = node_at(Config, quic, Name),
    Flags = ["-quic_dist", "name_port", integer_to_list(port(Config))],
    boot_fails(["-name", Name | Flags], ["seems to be in use by another Erlang node"]),
    B = node_at(Config, quic, local("b")),
    ?assertEqual(pong, ping(B, A)),
    ?assertEqual(first_parts([A, B]), names(B)),
    #{node := Other} = start((options(quic, local("c"), [{discovery, epmd}]))#{
        args => ["-epmd_module", "quic_epmd"]
    }),
    boot_fails(
        ["-name", atom_to_list(Other), "-quic_dist", "discovery", "epmd"],
        ["seems to be in use by another Erlang node"]
    ).

%% A port that is not the registry's ends the boot, with a line that says what to do.
a_port_of_another_program(Config) ->
    {ok, Socket} = gen_tcp:listen(port(Config), []),
    Flags = ["-quic_dist", "name_port", integer_to_list(port(Config))],
    Next = integer_to_list(port(Config) + 1),
    boot_fails(
        ["-name", local("a") | Flags],
        [
            "TCP port ",
            " is taken, and not by a process of this user that shares it: another program has it. "
            "End that, or give all nodes -quic_dist name_port " ++ Next
        ]
    ),
    gen_tcp:close(Socket).

%% If epmd has it, the line says so.
a_port_of_epmd(_Config) ->
    %% It starts epmd.
    Stock = start(#{carrier => inet_tcp}),
    Epmd = call(Stock, quic_dist_kernel, epmd_port, []),
    Flags = ["-quic_dist", "name_port", integer_to_list(Epmd)],
    boot_fails(
        ["-name", local("a") | Flags],
        [
            "TCP port ",
            " is taken, and not by a process of this user that shares it: epmd is running there, ",
            "epmd -kill",
            "-quic_dist name_port " ++ integer_to_list(Epmd + 1)
        ]
    ).

%% A node that knows nothing of us finds those that have TCP, by the registry in epmd's place.
stock_nodes_find_ours(Config) ->
    A = node_at(Config, [quic, inet_tcp], local("a")),
    B = node_at(Config, quic, local("b")),
    Stock = start(#{
        carrier => inet_tcp,
        name => none,
        args => ["-sname", "undefined@127", "-start_epmd", "false"],
        env => [{"ERL_EPMD_PORT", integer_to_list(port(Config))}]
    }),
    {ok, Names} = call(Stock, erl_epmd, names, [{127, 0, 0, 1}]),
    ?assertEqual(first_parts([A, B]), lists:sort([Name || {Name, _} <- Names])),
    {port, TcpPort, _} = call(Stock, erl_epmd, port_please, [first_part(A), {127, 0, 0, 1}]),
    {ok, Socket} = gen_tcp:connect({127, 0, 0, 1}, TcpPort, []),
    gen_tcp:close(Socket).

%% Only the addresses of `names_to' get the list of names. A peer that knows a name gets its port.
names_are_for_this_host(Config) ->
    {ok, Interfaces} = inet:getifaddrs(),
    case [Ip || {_, I} <- Interfaces, {addr, {N, _, _, _} = Ip} <- I, N =/= 127] of
        [] ->
            {skip, "this machine has the loopback address only"};
        [Ip | _] ->
            A = node_at(Config, quic, local("a")),
            Asker = start(#{
                carrier => inet_tcp,
                name => none,
                env => [{"ERL_EPMD_PORT", integer_to_list(port(Config))}]
            }),
            ?assertEqual({ok, []}, call(Asker, erl_epmd, names, [Ip])),
            ?assertMatch({port, _, _}, call(Asker, erl_epmd, port_please, [first_part(A), Ip])),
            quic_dist_node:stop(A),
            B = node_at(Config, quic, local("b"), [{names_to, [inet:ntoa(Ip)]}]),
            {ok, Names} = call(Asker, erl_epmd, names, [Ip]),
            ?assertEqual([first_part(B)], [Name || {Name, _} <- Names])
    end.

%% erl -remsh finds its node, with a name of its own and without.
remote_shell(Config) ->
    #{node := Node} = A = node_at(Config, quic, local("a")),
    Flags = lists:append([
        ["-proto_dist", "quic", "-start_epmd", "false", "-epmd_module", "quic_epmd"],
        ["-quic_dist", "name_port", integer_to_list(port(Config))],
        ["-setcookie", atom_to_list(quic_dist_run:cookie()), "-pa", quic_dist_run:ebin()],
        ["-remsh", atom_to_list(Node)]
    ]),
    [
        begin
            Shell = quic_dist_terminal:terminal(Name ++ Flags),
            quic_dist_terminal:screen(Shell, ["\\(", atom_to_list(Node), "\\)1> "]),
            quic_dist_terminal:keys(Shell, "{on, node(), 6 * 7}.\n"),
            quic_dist_terminal:screen(Shell, ["{on,'", atom_to_list(Node), "',42}"]),
            End = "[erpc:cast(N, erlang, halt, []) || N <- nodes(connected)].\n",
            quic_dist_terminal:keys(Shell, End),
            {Command, _} = Shell,
            ?assertMatch({exit_status, _, _}, quic_dist_command:finish(Command, 10000)),
            wait_until(gone, fun() -> call(A, erlang, nodes, [connected]) =:= [] end)
        end
     || Name <- [["-name", local("shell")], ["-name", "undefined@127.0.0.1"]]
    ].

%% Two carriers

%% A node with two carriers uses QUIC to a node that has it and TCP to others, in both directions
%% and in either order of the carriers. Nodes with no common carrier do not connect.
two_carriers(Config) ->
    Quic = node_at(Config, quic, local("quic")),
    Tcp = node_at(Config, inet_tcp, local("tcp")),
    Both = node_at(Config, [quic, inet_tcp], local("both")),
    Twice = node_at(Config, [inet_tcp, quic], local("twice")),
    [
        begin
            ?assertEqual(pong, ping(From, To)),
            ?assertEqual(Expected, protocol(From, To)),
            ?assertEqual(Expected, protocol(To, From)),
            quic_dist_node:disconnect(From, To)
        end
     || {One, Other, Expected} <- [
            {Both, Quic, quic},
            {Both, Tcp, tcp},
            {Twice, Quic, quic},
            {Twice, Tcp, tcp},
            {Both, Twice, quic}
        ],
        {From, To} <- [{One, Other}, {Other, One}]
    ],
    ?assertEqual(pang, ping(Quic, Tcp)),
    ?assertEqual(pang, ping(Tcp, Quic)),
    [_ | _] = quic_dist_node:wait_log(Quic, "for another carrier than those of this node", 5000),
    ?assertEqual(first_parts([Quic, Tcp, Both, Twice]), names(Tcp)).

%% A node may have QUIC and inet_tls as its two carriers.
two_carriers_with_tls(Config) ->
    #{certs := [#{certfile := Cert, keyfile := Key}]} =
        quic_dist_fixtures:certificates([{127, 0, 0, 1}]),
    File = filename:join(quic_dist_run:dir(), unique("ssl") ++ ".conf"),
    %% Whom TLS trusts is not the matter here.
    TlsOptions = [{server, [{certfile, Cert}, {keyfile, Key}]}, {client, [{verify, verify_none}]}],
    ok = file:write_file(File, io_lib:format("~tp.~n", [TlsOptions])),
    Start = fun(Carrier, Name) ->
        Options = options(Carrier, local(Name), [{name_port, port(Config)}]),
        start(Options#{args => maps:get(args, Options) ++ ["-ssl_dist_optfile", File]})
    end,
    [Tls, Both, Quic] =
        [Start(inet_tls, "tls"), Start([quic, inet_tls], "both"), Start(quic, "quic")],
    [
        begin
            ?assertEqual(pong, ping(From, To)),
            ?assertEqual(Expected, protocol(From, To))
        end
     || {From, To, Expected} <- [{Both, Tls, tls}, {Quic, Both, quic}]
    ].

%% With `discovery epmd' OTP's epmd tells of both carriers: nodes that know nothing of us are
%% reached by TCP and reach us by TCP; among ourselves it is QUIC. Nodes of the first release, which
%% have no epmd module of ours, are reached too.
stock_epmd(_Config) ->
    Stock = start(#{carrier => inet_tcp, name => {long, local("stock")}}),
    First = start(#{carrier => quic, name => {long, local("first")}}),
    [Both, Twice, Quic] = [
        start((options(Carrier, local(Name), [{discovery, epmd}]))#{
            args => ["-epmd_module", "quic_epmd"]
        })
     || {Carrier, Name} <- [{[quic, inet_tcp], "both"}, {[inet_tcp, quic], "twice"}, {quic, "quic"}]
    ],
    [
        begin
            ?assertEqual(pong, ping(From, To)),
            ?assertEqual(Expected, protocol(From, To)),
            quic_dist_node:disconnect(From, To)
        end
     || {From, To, Expected} <- [
            {Both, Stock, tcp},
            {Stock, Both, tcp},
            {Twice, Stock, tcp},
            {Stock, Twice, tcp},
            {Both, Twice, quic},
            {Quic, Both, quic},
            {Twice, Quic, quic},
            {Quic, First, quic},
            {First, Quic, quic}
        ]
    ],
    ?assertEqual(first_parts([Stock, First, Both, Twice, Quic]), names(Both)),
    ?assertEqual(first_parts([Stock, First, Both, Twice, Quic]), names(Stock)).

%% No registry

%% One port for all: no process is asked, and a node with two carriers finds out which one a peer
%% has.
fixed_port(Config) ->
    Start = fun(Carrier, Host) ->
        Ip = list_to_tuple([list_to_integer(N) || N <- string:lexemes(Host, ".")]),
        Fixed = [{discovery, fixed}, {peer_port, port(Config)}],
        Options = options(Carrier, unique("a") ++ "@" ++ Host, Fixed),
        start(Options#{kernel => [{inet_dist_use_interface, Ip}]})
    end,
    Quic = Start(quic, "127.0.0.1"),
    Tcp = Start(inet_tcp, "127.0.0.2"),
    Both = Start([quic, inet_tcp], "127.0.0.3"),
    ?assertMatch(#{listen := {_, UdpPort}} when UdpPort > 0, quic_dist_node:info(Quic)),
    #{listen := {_, UdpPort}} = quic_dist_node:info(Quic),
    ?assertEqual(port(Config), UdpPort),
    ?assertEqual(pong, ping(Both, Quic)),
    ?assertEqual(quic, protocol(Both, Quic)),
    ?assertEqual(pong, ping(Both, Tcp)),
    ?assertEqual(tcp, protocol(Both, Tcp)),
    ?assertEqual(pang, ping(Quic, Tcp)),
    ?assertEqual({error, address}, call(Quic, net_adm, names, [])).

%% A file says where nodes are, and where each has to listen. It is read for each connection; what
%% cannot be read changes nothing.
file_of_nodes(Config) ->
    File = filename:join(quic_dist_run:dir(), unique("nodes")),
    [A, B, C] = Names = [local(N) || N <- ["a", "b", "c"]],
    [PortA, PortB, PortC] = Ports = [quic_dist_run:free_port() || _ <- Names],
    Line = fun({Name, Carrier, Port}) -> io_lib:format("~ts ~s :~w~n", [Name, Carrier, Port]) end,
    Write = fun(Lines) -> ok = file:write_file(File, [Line(L) || L <- Lines]) end,
    Write([{A, quic, PortA}, {B, quic, PortB}, {B, tcp, PortB}]),
    Start = fun(Carrier, Name) ->
        start(options(Carrier, Name, [{discovery, none}, {nodes_file, File}]))
    end,
    [NodeA, NodeB] = [Start(quic, A), Start([quic, inet_tcp], B)],
    #{listen := {_, PortA}} = quic_dist_node:info(NodeA),
    ?assertEqual(pong, ping(NodeA, NodeB)),
    ?assertEqual(lists:sort([first_part(N) || N <- [NodeA, NodeB]]), names(NodeA)),
    ?assertEqual(pang, ping(NodeB, list_to_atom(C))),
    Write(lists:zip3(Names, [quic, quic, tcp], Ports)),
    NodeC = Start(inet_tcp, C),
    ?assertEqual(pong, ping(NodeB, NodeC)),
    ?assertEqual(tcp, protocol(NodeB, NodeC)),
    quic_dist_node:disconnect(NodeB, NodeC),
    ok = file:write_file(File, "garbage\n"),
    ?assertEqual(pong, ping(NodeB, NodeC)),
    [_] = quic_dist_node:wait_log(NodeB, "the file of nodes cannot be used.*line 1", 5000),
    Write([{A, quic, PortA}, {B, quic, PortB}, {C, tcp, PortC}, {B, tcp, port(Config)}]),
    quic_dist_node:disconnect(NodeB, NodeA),
    ?assertEqual(pong, ping(NodeB, NodeA)).

%% DNS

%% Ports come from SRV records, which are asked for at each connect.
services_in_dns(_Config) ->
    Dns = dns(),
    [Port, Other] = [quic_dist_run:free_port() || _ <- [1, 2]],
    A = dns_node(Dns, "a", [{listen_port, Port}]),
    B = dns_node(Dns, "b", []),
    ?assertEqual(pang, ping(B, A)),
    [_ | _] = quic_dist_node:wait_log(B, "DNS has no service", 5000),
    say(Dns, #{"_erldist._udp.127.0.0.1" => [{1, Port, "localhost"}]}),
    ?assertEqual(pong, ping(B, A)),
    quic_dist_node:disconnect(B, A),
    say(Dns, #{"_erldist._udp.127.0.0.1" => [{1, Other, "localhost"}]}),
    ?assertEqual(pang, ping(B, A)),
    say(Dns, #{"_erldist._udp.127.0.0.1" => [{2, Port, "localhost"}, {1, Other, "localhost"}]}),
    ?assertEqual(pong, ping(B, A)),
    %% Kubernetes has one service for all, of which the targets are the nodes' hosts.
    C = dns_node(Dns, "c", [{dns_service, "_quic._udp.app.svc.cluster.local"}]),
    say(Dns, #{
        "_quic._udp.app.svc.cluster.local" =>
            [{1, Other, "elsewhere"}, {1, Port, "localhost"}]
    }),
    ?assertEqual(pong, ping(C, A)).

%% A record that leads to another node, or to another program, connects to no node.
dns_that_lies(Config) ->
    Dns = dns(),
    Port = quic_dist_run:free_port(),
    _Other = dns_node(Dns, "other", [{listen_port, Port}]),
    B = dns_node(Dns, "b", []),
    say(Dns, #{"_erldist._udp.127.0.0.1" => [{1, Port, "localhost"}]}),
    ?assertEqual(pang, ping(B, list_to_atom(local("a")))),
    [_ | _] = quic_dist_node:wait_log(B, "cannot connect to a_", 5000),
    ?assertEqual([], call(B, erlang, nodes, [connected])),
    {ok, Udp} = gen_udp:open(port(Config)),
    say(Dns, #{
        "_erldist._udp.127.0.0.1" =>
            [{1, 0, "localhost"}, {1, 1, "no.such.host"}, {2, port(Config), "localhost"}]
    }),
    ?assertEqual(pang, ping(B, list_to_atom(local("a")))),
    gen_udp:close(Udp).

%% A name server that does not answer costs a connection attempt no more than its time. net_kernel
%% continues: a node that needs no name server is connected meanwhile.
dns_that_is_silent(_Config) ->
    Dns = dns(),
    B = dns_node(Dns, "b", []),
    Numbered = start(#{}),
    say(Dns, silent),
    Asking = spawn_monitor(fun() -> exit(ping(B, list_to_atom(local("a")))) end),
    receive {dns, asked} -> ok end,
    ?assertEqual(pong, ping(B, Numbered)),
    {Pid, Monitor} = Asking,
    receive {'DOWN', Monitor, process, Pid, Result} -> ?assertEqual(pang, Result) end,
    [_ | _] = quic_dist_node:wait_log(B, "cannot connect to a_.*_erldist._udp", 5000).

dns_node(#{port := Port}, Name, Options) ->
    Server = "127.0.0.1:" ++ integer_to_list(Port),
    start(options(quic, local(Name), [{discovery, dns}, {dns_server, Server} | Options])).

%% A name server: SRV records as they were last said, and the address of localhost.
dns() ->
    Owner = self(),
    Pid = spawn_link(fun() ->
        {ok, Socket} = gen_udp:open(0, [binary, {ip, {127, 0, 0, 1}}, {active, true}]),
        {ok, Port} = inet:port(Socket),
        Owner ! {dns, self(), Port},
        dns_loop(Owner, Socket, #{})
    end),
    receive
        {dns, Pid, Port} -> #{pid => Pid, port => Port}
    end.

say(#{pid := Pid}, Records) ->
    Pid ! {say, self(), Records},
    receive
        {Pid, said} -> ok
    end.

dns_loop(Owner, Socket, Records) ->
    receive
        {say, From, New} ->
            From ! {self(), said},
            dns_loop(Owner, Socket, New);
        {udp, Socket, _, _, _} when Records =:= silent ->
            Owner ! {dns, asked},
            dns_loop(Owner, Socket, Records);
        {udp, Socket, Ip, Port, Question} ->
            ok = gen_udp:send(Socket, Ip, Port, dns_answer(Question, Records)),
            dns_loop(Owner, Socket, Records)
    end.

%% RFC 1035, section 4: the header, the question, and answers whose name is the question's. The
%% records behind the question are those of EDNS, and are not answered.
dns_answer(<<Id:16, 0:1, Kind:4, _:2, Recursion:1, _:8, 1:16, _:48, Rest/binary>>, Records) ->
    {Name, <<Type:16, 1:16, _/binary>> = Tail} = dns_name(Rest, []),
    Question = binary:part(Rest, 0, byte_size(Rest) - byte_size(Tail) + 4),
    Answers =
        case {Type, Records} of
            {?DNS_SRV, #{Name := Services}} ->
                [
                    <<Priority:16, 0:16, Port:16, (dns_labels(Target))/binary>>
                 || {Priority, Port, Target} <- Services
                ];
            {?DNS_A, _} when Name =:= "localhost" -> [<<127, 0, 0, 1>>];
            _ -> []
        end,
    NoSuchName = 3,
    Code =
        case Answers =:= [] andalso Name =/= "localhost" of
            true -> NoSuchName;
            false -> 0
        end,
    Count = length(Answers),
    [
        <<Id:16, 1:1, Kind:4, 0:2, Recursion:1, 1:1, 0:3, Code:4, 1:16, Count:16, 0:32>>,
        Question,
        [<<3:2, 12:14, Type:16, 1:16, 60:32, (byte_size(A)):16, A/binary>> || A <- Answers]
    ].

dns_name(<<0, Tail/binary>>, Labels) ->
    {lists:flatten(lists:join($., lists:reverse(Labels))), Tail};
dns_name(<<Size, Label:Size/binary, Rest/binary>>, Labels) ->
    dns_name(Rest, [binary_to_list(Label) | Labels]).

dns_labels(Name) ->
    <<<<(<<(length(Label)), (list_to_binary(Label))/binary>>)/binary>>
      || Label <- string:lexemes(Name, ".") ++ [""]>>.

%% Beginnings and ends

%% Distribution that is stopped takes its names along, and can be started again.
stopped_and_started(Config) ->
    A = node_at(Config, quic, local("a")),
    B = start((options(quic, "", [{name_port, port(Config)}]))#{name => none}),
    Name = list_to_atom(local("b")),
    [
        begin
            {ok, _} = call(B, net_kernel, start, [[Name, longnames]]),
            ?assertEqual(pong, ping(A, Name)),
            ?assertEqual(2, length(names(A))),
            ok = call(B, net_kernel, stop, []),
            wait_until(gone, fun() -> names(A) =:= [first_part(A)] end)
        end
     || _ <- [1, 2]
    ].

%% An impossible option stops the boot, with the option, its value, its source, and what is
%% accepted.
bad_options(_Config) ->
    File = filename:join(quic_dist_run:dir(), unique("nodes")),
    ok = file:write_file(File, "a@h quik :1\n"),
    [
        boot_fails(["-name", local("a"), "-quic_dist", Key, Value], Words)
     || {Key, Value, Words} <- [
            {"discovery", "registri", [
                "bad option discovery = registri from boot flag -quic_dist; "
                "accepted is registry, epmd, dns, fixed or none"
            ]},
            {"discovry", "registry", ["bad option discovry = registry ", " accepted is one of"]},
            {"discovery", "fixed", ["bad option discovery = fixed ", "together with peer_port"]},
            {"peer_port", "0", ["bad option peer_port = 0 ", "a port number, 1 to 65535"]},
            {"name_port", "epmd", ["bad option name_port = epmd"]},
            {"names_to", "[10]", ["bad option names_to = "]},
            {"names_to", "[\"10.0.0.0/99\"]", ["names_to: ", "10.0.0.0/99"]},
            {"dns_service", "\"_x.%z\"", ["accepted is %n ", " and %h"]},
            {"dns_server", "\"localhost:53\"", ["DNS server ", "accepted is ADDRESS:PORT"]},
            {"nodes_file", "\"/no/such/file\"", [
                "bad option nodes_file from boot flag -quic_dist: /no/such/file: no such file"
            ]},
            {"nodes_file", lists:flatten(io_lib:format("~tp", [File])), [
                "nodes_file from ", File ++ ": line 1: carrier"
            ]}
        ]
    ].
