%% @doc A node starts over QUIC in every way in which Erlang nodes start: from the bare command
%% line, as a release, detached, with a dynamic name, as a remote shell.
-module(quic_dist_boot_SUITE).

-export([all/0, suite/0]).
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
    socket_backend/1,
    the_first_session/1
]).

-include_lib("stdlib/include/assert.hrl").

-import(quic_dist_command, [boot/1, enter/2, expect/3, finish/2, open/2, run/2]).
-import(quic_dist_node, [
    call/2, connect/2, listens/1, name/1, ping/2, ping_both_ways/2, sidecar/1, start/1
]).
-import(quic_dist_os, [sidecars/0, udp_sockets/0, udp_sockets/1]).
-import(quic_dist_run, [
    cookie/0, dir/0, ebin/0, file/2, free_port/0, port_name/1, port_name/2, unique/1
]).
-import(quic_dist_terminal, [keys/2, screen/2, terminal/1]).
-import(quic_dist_wait, [scale/1, wait_until/2]).

suite() ->
    [{ct_hooks, [quic_dist_hooks]}, {timetrap, scale(90000)}].

all() ->
    [
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
        socket_backend,
        the_first_session
    ].

%% erl with nothing but -proto_dist quic, -pa and a name starts a node that reaches others.
bare_command_line(_Config) ->
    Peer = start(#{}),
    Result = boot(["-name", port_name(free_port()), "-no_epmd" | ping_and_halt(Peer)]),
    ?assertEqual({exit_status, 0, "pong\n"}, Result).

ping_and_halt(#{node := Node}) ->
    Expression = "io:format(\"~~p~~n\", [net_adm:ping('~ts')]), halt().",
    ["-eval", lists:flatten(io_lib:format(Expression, [Node]))].

%% A vm.args file, as releases have it, starts the same node.
args_file(_Config) ->
    Peer = start(#{}),
    File = file("vm.args", [
        "## A comment.\n",
        "-name ", port_name(free_port()), "\n",
        "-no_epmd\n",
        "-proto_dist quic\n",
        "-setcookie ", atom_to_list(cookie()), "\n",
        "-quic_dist log_level info\n",
        "-pa ", ebin(), "\n"
    ]),
    Args = ["-noinput", "-args_file", File | ping_and_halt(Peer)],
    ?assertEqual({exit_status, 0, "pong\n"}, run(Args, #{})).

%% Peers reach a detached node, which has no standard input, output or error. It leaves no sidecar
%% when it halts.
detached(_Config) ->
    Peer = start(#{}),
    Others = sidecars(),
    Name = port_name(free_port()),
    Node = list_to_atom(Name),
    {exit_status, 0, ""} = boot(["-detached", "-name", Name, "-no_epmd"]),
    wait_until(reached, fun() -> ping(Peer, Node) =:= pong end),
    ?assertMatch([_], sidecars() -- Others),
    call(Peer, fun() -> erpc:cast(Node, erlang, halt, [0]) end),
    wait_until(gone, fun() -> sidecars() -- Others =:= [] end).

%% A node with -dist_listen false connects to others, which see a hidden node. It has no listener,
%% and no other node can connect to it.
without_listening(_Config) ->
    Peer = start(#{}),
    Port = free_port(),
    Node = start(#{
        name => {long, port_name(Port)}, args => ["-no_epmd", "-dist_listen", "false"]
    }),
    ?assertEqual(undefined, listens(Node)),
    ?assertEqual([], udp_sockets(sidecar(Node))),
    connect(Node, Peer),
    ?assertEqual({[], [name(Node)]}, call(Peer, fun() -> {nodes(), nodes(hidden)} end)),
    NodeName = name(Node),
    ?assertEqual(NodeName, call(Peer, fun() -> erpc:call(NodeName, erlang, node, []) end)),
    true = call(Peer, fun() -> erlang:disconnect_node(NodeName) end),
    wait_until(disconnected, fun() ->
        call(Node, fun() -> nodes(connected) end) =:= []
    end),
    ?assertEqual(pang, ping(Peer, NodeName)),
    connect(Node, Peer).

%% A node called `undefined' gets its name from the first node that it connects to. It has no name
%% when that connection ends, and gets one again when it connects again.
dynamic_long_name(_Config) ->
    dynamic_name(["-name", "undefined@127.0.0.1"], numbered).

%% A dynamic name may be a short one.
dynamic_short_name(_Config) ->
    Name = {short, integer_to_list(free_port()) ++ "@localhost"},
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
    wait_until(unnamed, fun() ->
        call(Node, fun() -> {node(), nodes(connected)} end) =:= {'nonode@nohost', []}
    end),
    Connect().

%% erl -remsh gives a shell on another node, which evaluates what is typed.
remote_shell(_Config) ->
    remote_shell_with(["-name", port_name(free_port())], numbered).

%% erl -remsh works without a name of its own: it takes a dynamic short name.
remote_shell_without_a_name(_Config) ->
    remote_shell_with([], {short, port_name(free_port(), "localhost")}).

remote_shell_with(NameArgs, NodeName) ->
    Node = start(#{name => NodeName, args => ["-no_epmd"]}),
    Name = atom_to_list(name(Node)),
    Shell = terminal(
        NameArgs ++
            ["-no_epmd", "-setcookie", atom_to_list(cookie()), "-proto_dist", "quic",
                "-pa", ebin(), "-remsh", Name]
    ),
    screen(Shell, ["\\(", Name, "\\)1> "]),
    keys(Shell, "{on, node(), os:getpid()}.\n"),
    screen(Shell, io_lib:format("{on,'~ts',\"~w\"}", [Name, maps:get(os_pid, Node)])),
    keys(Shell, "persistent_term:put(typed, here).\n"),
    wait_until(evaluated, fun() ->
        call(Node, fun() -> persistent_term:get(typed, nothing) end) =:= here
    end),
    %% The only other node is the one whose terminal this is.
    keys(Shell, "[erpc:cast(Other, erlang, halt, []) || Other <- nodes(connected)].\n"),
    {Command, _} = Shell,
    ?assertMatch({exit_status, _, _}, finish(Command, 10000)),
    wait_until(disconnected, fun() ->
        call(Node, fun() -> nodes(connected) end) =:= []
    end).

%% Distribution started and stopped twenty times in one VM works each time, and leaves no
%% sidecar, UDP socket, process, port or file behind.
started_and_stopped_twenty_times(_Config) ->
    Peer = start(#{}),
    PeerNode = name(Peer),
    Tmp = filename:join(dir(), unique("tmp")),
    ok = file:make_dir(Tmp),
    Node = start(#{
        name => none, args => ["-no_epmd"], env => [{"TMPDIR", Tmp}, {"XDG_RUNTIME_DIR", Tmp}]
    }),
    Others = sidecars(),
    Port = free_port(),
    Name = list_to_atom(port_name(Port)),
    Round = fun() ->
        call(Node, fun() ->
            {ok, _} = net_kernel:start(Name, #{name_domain => longnames}),
            Name = node(),
            pong = net_adm:ping(PeerNode),
            ok = net_kernel:stop(),
            nonode@nohost = node()
        end),
        wait_until(nothing_left, fun() ->
            Left = {
                sidecars() -- Others,
                [Socket || {_, P, _} = Socket <- udp_sockets(), P =:= Port],
                element(2, file:list_dir(Tmp))
            },
            Left =:= {[], [], []} orelse Left
        end)
    end,
    %% What the VM starts for the first distribution and keeps is not counted.
    Round(),
    Before = counts(Node),
    [Round() || _ <- lists:seq(2, 20)],
    wait_until(counts, fun() ->
        {Processes, Ports} = After = counts(Node),
        (Processes =< element(1, Before) andalso Ports =< element(2, Before)) orelse {Before, After}
    end).

counts(Node) ->
    call(Node, fun() -> {length(processes()), length(erlang:ports())} end).

%% A release in embedded mode, with nothing but kernel, stdlib and this library in its boot script,
%% starts as a node.
embedded_mode(_Config) ->
    Peer = start(#{}),
    Dir = filename:join(dir(), unique("release")),
    ok = file:make_dir(Dir),
    Version = fun(App) ->
        _ = application:load(App),
        {ok, Vsn} = application:get_key(App, vsn),
        {App, Vsn}
    end,
    {ok, [{application, quic_dist, Keys}]} =
        file:consult(filename:join(ebin(), "quic_dist.app")),
    Release =
        {release, {"embedded", "1"}, {erts, erlang:system_info(version)}, [
            Version(kernel), Version(stdlib), {quic_dist, proplists:get_value(vsn, Keys)}
        ]},
    File = filename:join(Dir, "embedded.rel"),
    ok = file:write_file(File, io_lib:format("~p.~n", [Release])),
    {ok, _, []} = systools:make_script(filename:rootname(File), [
        silent, local, no_warn_sasl, {outdir, Dir}, {path, [ebin()]}
    ]),
    Result = run(
        ["-noinput", "-boot", filename:join(Dir, "embedded"), "-mode", "embedded",
            "-name", port_name(free_port()), "-no_epmd", "-proto_dist", "quic",
            "-setcookie", atom_to_list(cookie()) | ping_and_halt(Peer)],
        #{}
    ),
    ?assertEqual({exit_status, 0, "pong\n"}, Result).

%% Nodes connect under Kernel's inet_backend socket, which changes what gen_tcp opens.
socket_backend(_Config) ->
    Options = #{kernel => [{inet_backend, socket}]},
    [A, B] = [start(Options) || _ <- [1, 2]],
    ping_both_ways(A, B).

%% The session that the first quic_dist had in its README: two shells, certificate and key set in
%% the environment, distribution started by hand, pings both ways, a process on the other node that
%% displays something there.
the_first_session(_Config) ->
    #{certs := [Cert]} = quic_dist_fixtures:certificates([{127, 0, 0, 1}]),
    Dir = filename:dirname(file("sys.config", "[].\n")),
    Open = fun() ->
        open(["-pa", ebin()], #{
            cd => Dir,
            env => [
                {"ERL_FLAGS", "-proto_dist quic -no_epmd -config sys"},
                {"HOME", Dir},
                {"TERM", "dumb"}
            ]
        })
    end,
    [P1, P2] = [free_port(), free_port()],
    One = session(Open(), P1, Cert),
    Two = session(Open(), P2, Cert),
    [type(One, ping_line(P2), "pong") || _ <- [1, 2, 3]],
    [type(Two, ping_line(P1), "pong") || _ <- [1, 2, 3]],
    Spawn = ["spawn('", port_name(P2), "', fun() -> erlang:display(hello) end)."],
    type(One, Spawn, "<[0-9]+\\.[0-9]+\\.[0-9]+>"),
    _ = expect(Two, "hello", 5000),
    [enter(Shell, "halt().\n") || Shell <- [One, Two]],
    [?assertMatch({exit_status, 0, _}, finish(S, 5000)) || S <- [One, Two]],
    ok.

ping_line(Port) -> ["net_adm:ping('", port_name(Port), "')."].

session(Shell, Port, #{certfile := CertFile, keyfile := KeyFile}) ->
    _ = expect(Shell, "1> ", 10000),
    type(Shell, "application:ensure_all_started(quic_dist).", "\\{ok,\\[quic_dist\\]\\}"),
    Env = io_lib:format("application:set_env([{quic_dist, [{cert, ~p}, {key, ~p}]}]).", [
        CertFile, KeyFile
    ]),
    type(Shell, Env, "ok"),
    Start = ["net_kernel:start('", port_name(Port), "', #{})."],
    type(Shell, Start, "\\{ok,<0\\.[0-9]+\\.[0-9]+>\\}"),
    _ = expect(Shell, "\\(" ++ port_name(Port) ++ "\\)4> ", 5000),
    Shell.

%% Enters a line and waits for its result, alone on a line.
type(Shell, Line, Result) ->
    enter(Shell, [Line, "\n"]),
    expect(Shell, ["(^|> )", Result, "\r?\n"], 10000).
