%% @doc Nodes on hosts that Erlang's own resolver knows, and the sidecar's does not, are reached
%% over every carrier and by every way to find them.
-module(quic_dist_hosts_SUITE).

-export([all/0, suite/0, init_per_suite/1, end_per_suite/1]).
-export([
    port_in_the_name/1,
    nodes_table/1,
    stock_epmd/1,
    registry/1,
    common_port/1,
    file_of_nodes/1,
    over_http/1,
    over_tls/1,
    over_http3/1,
    fallback/1,
    set_at_run_time/1,
    own_host_name/1,
    unknown_host/1
]).

-include_lib("stdlib/include/assert.hrl").

-import(quic_dist_node, [call/2, call/4, start/1, wait_log/3]).
-import(quic_dist_run, [unique/1]).
-import(quic_dist_wait, [scale/1]).

suite() ->
    [{ct_hooks, [quic_dist_hooks]}, {timetrap, scale(60000)}].

all() ->
    [
        port_in_the_name,
        nodes_table,
        stock_epmd,
        registry,
        common_port,
        file_of_nodes,
        over_http,
        over_tls,
        over_http3,
        fallback,
        set_at_run_time,
        own_host_name,
        unknown_host
    ].

-define(HOST, "db.inetrc.invalid").

init_per_suite(Config) ->
    File = filename:join(quic_dist_run:dir(), "inetrc"),
    ok = file:write_file(File, [
        "{host, {127,0,0,1}, [\"" ?HOST "\"]}.\n{lookup, [file, native]}.\n"
    ]),
    [{env, [{"ERL_INETRC", File}]} | Config].

end_per_suite(_Config) ->
    ok.

%% Two nodes whose names end in a host of inetrc.
two(Config, Options) ->
    [
        start(maps:merge(
            #{
                name => {long, unique(Letter) ++ "@" ?HOST},
                env => proplists:get_value(env, Config)
            },
            Options
        ))
     || Letter <- ["a", "b"]
    ].

check([A, #{node := B} = NodeB]) ->
    case call(A, net_adm, ping, [B]) of
        pong -> ok;
        pang -> error({pang, quic_dist_node:log(A), quic_dist_node:log(NodeB)})
    end.

%% A node that has its port in its name is reached at a host that only inetrc has.
port_in_the_name(Config) ->
    check([
        start(#{name => {numbered, ?HOST}, env => proplists:get_value(env, Config)})
     || _ <- [1, 2]
    ]).

%% A host of the table `nodes' may be one of inetrc.
nodes_table(Config) ->
    Port = quic_dist_run:free_port(),
    Name = unique("b"),
    B = start(#{
        name => {long, Name ++ "@127.0.0.1"},
        args => ["-no_epmd"],
        quic_dist => [{listen_port, Port}]
    }),
    Table = [{list_to_atom(Name ++ "@127.0.0.1"), ?HOST, Port}],
    A = start(#{quic_dist => [{nodes, Table}], env => proplists:get_value(env, Config)}),
    check([A, B]).

%% With stock epmd a node is reached at a host of inetrc.
stock_epmd(Config) ->
    check(two(Config, #{})).

%% By the registry of a host that inetrc has a node there is found.
registry(Config) ->
    Port = quic_dist_run:free_port(),
    check(
        two(Config, #{
            args => ["-start_epmd", "false", "-epmd_module", "quic_epmd"],
            quic_dist => [{name_port, Port}]
        })
    ).

%% The common port of all nodes is asked at a host of inetrc.
common_port(Config) ->
    Port = quic_dist_run:free_port(),
    Options = #{
        args => ["-start_epmd", "false", "-epmd_module", "quic_epmd"],
        quic_dist => [{discovery, fixed}, {peer_port, Port}]
    },
    B = start(Options#{
        name => {long, unique("b") ++ "@" ?HOST}, env => proplists:get_value(env, Config)
    }),
    A = start(Options#{
        name => {long, unique("a") ++ "@127.0.0.1"},
        quic_dist => [{listen_port, quic_dist_run:free_port()} | maps:get(quic_dist, Options)],
        env => proplists:get_value(env, Config)
    }),
    check([A, B]).

%% A host in the file of nodes may be one of inetrc.
file_of_nodes(Config) ->
    Port = quic_dist_run:free_port(),
    Name = unique("b") ++ "@127.0.0.1",
    B = start(#{
        name => {long, Name}, args => ["-no_epmd"], quic_dist => [{listen_port, Port}]
    }),
    File = filename:join(quic_dist_run:dir(), unique("nodes")),
    ok = file:write_file(File, [Name, " quic " ?HOST ":", integer_to_list(Port), "\n"]),
    A = start(#{
        name => {long, unique("a") ++ "@127.0.0.1"},
        args => ["-start_epmd", "false", "-epmd_module", "quic_epmd"],
        quic_dist => [{discovery, none}, {nodes_file, File}],
        env => proplists:get_value(env, Config)
    }),
    check([A, B]).

%% The web port of a host of inetrc is found, in clear.
over_http(Config) ->
    over_web(Config, [{listen, [http]}, {carriers, [http]}]).

%% The web port of a host of inetrc is found over TLS.
over_tls(Config) ->
    over_web(Config, [{listen, [https]}, {carriers, [https]}]).

over_web(Config, Web) ->
    Port = quic_dist_run:free_port(),
    check(
        two(Config, #{
            carrier => webdist, args => ["-no_epmd"], webdist => [{port, Port} | Web]
        })
    ).

%% HTTP/3 finds a host of inetrc.
over_http3(Config) ->
    Port = quic_dist_run:free_port(),
    Name = unique("b") ++ "@127.0.0.1",
    B = start(#{
        name => {long, Name},
        carrier => [quic, webdist],
        args => ["-no_epmd"],
        quic_dist => [{listen_port, Port}],
        webdist => [{port, quic_dist_run:free_port()}, {listen, [https]}, {h3, true}]
    }),
    Url = lists:flatten(io_lib:format("h3://~ts:~w", [?HOST, Port])),
    A = start(#{
        name => {long, unique("a") ++ "@127.0.0.1"},
        carrier => webdist,
        args => ["-no_epmd"],
        webdist => [
            {port, quic_dist_run:free_port()}, {carriers, [h3]}, {urls, [{Name, Url}]}
        ],
        env => proplists:get_value(env, Config)
    }),
    check([A, B]).

%% Where QUIC has no port for a node, the fallback finds its host in inetrc.
fallback(Config) ->
    Port = quic_dist_run:free_port(),
    check(
        two(Config, #{
            carrier => [quic, webdist],
            args => ["-no_epmd"],
            quic_dist => [{fallback, [https]}],
            webdist => [{port, Port}, {listen, [https]}, {carriers, [https]}]
        })
    ).

%% A host that is told to inet_db at run time counts from the next connection on.
set_at_run_time(_Config) ->
    [A, #{node := B} = NodeB] = [start(#{name => {numbered, ?HOST}}) || _ <- [1, 2]],
    ?assertEqual(pang, call(A, net_adm, ping, [B])),
    call(A, fun() ->
        ok = inet_db:set_lookup([file, native]),
        ok = inet_db:add_host({127, 0, 0, 1}, [?HOST])
    end),
    check([A, NodeB]).

%% A node of this host is reached by the host's own name although no resolver knows it, as in OTP.
own_host_name(_Config) ->
    Path = string:join([os:getenv("PATH"), "/usr/sbin", "/sbin"], ":"),
    case {os:cmd("id -u"), os:find_executable("nsenter"), os:find_executable("ip", Path)} of
        {"0\n", Nsenter, Ip} when Nsenter =/= false, Ip =/= false ->
            Hostname = "h" ++ os:getpid(),
            Script =
                Ip ++ " link set lo up && hostname " ++ Hostname ++
                    " && echo ready && exec sleep 600",
            Holder = quic_dist_command:open(["-un", "sh", "-c", Script], #{
                exec => os:find_executable("unshare")
            }),
            _ = quic_dist_command:expect(Holder, "ready", 10000),
            In = ["-t", integer_to_list(quic_dist_command:os_pid(Holder)), "-n", "-u"],
            Nodes = [
                start(#{
                    name => {short, integer_to_list(quic_dist_run:free_port())},
                    args => ["-no_epmd"],
                    exec => {Nsenter, In ++ [quic_dist_run:erl()]}
                })
             || _ <- [1, 2]
            ],
            check(Nodes),
            lists:foreach(fun quic_dist_node:stop/1, Nodes),
            quic_dist_os:signal(quic_dist_command:os_pid(Holder), kill),
            _ = quic_dist_command:finish(Holder, 5000),
            ok;
        _ ->
            {skip, "a host name of the test's own needs root, nsenter and iproute2"}
    end.

%% A host that neither resolver knows is an error with the words of both.
unknown_host(_Config) ->
    A = start(#{}),
    ?assertEqual(pang, call(A, net_adm, ping, ['7001@nobody.invalid'])),
    [_] = wait_log(A, "cannot connect to 7001@nobody.*nobody.invalid.*Erlang's resolver: ", 5000).
