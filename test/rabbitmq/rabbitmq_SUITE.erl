%% @doc A cluster of three RabbitMQ brokers over QUIC does not notice that its QUIC connections are
%% lost again and again: `rabbitmq-server' of Debian, whose nodes reach each other through relays
%% that forget flows.
%%
%% All files are in the run's folder, and the brokers run as the user of the test.
-module(rabbitmq_SUITE).

-export([all/0, suite/0, init_per_suite/1, end_per_suite/1, end_per_testcase/2]).
-export([outlives_connections/1]).

-include_lib("stdlib/include/assert.hrl").

-import(quic_dist_wait, [scale/1, wait_until/3]).

-define(BIN, "/usr/lib/rabbitmq/bin/").
-define(HOST, "127.0.0.1").
%% Each QUIC connection is lost by fifteen of these; by `rebind' only its port changes.
-define(BREAKS, lists:append(lists:duplicate(3, [forget, rebind, reset, back, forth, forget]))).
-define(CUT, 5000).
%% Milliseconds in which every link must have packets again.
-define(MENDED, 15000).

-record(broker, {
    number :: 1..3,
    node :: string(),
    dir :: file:filename(),
    udp_port :: inet:port_number(),
    amqp_port :: inet:port_number(),
    command :: quic_dist_command:command() | undefined
}).

suite() ->
    [{ct_hooks, [quic_dist_hooks]}, {timetrap, scale(240000)}].

all() -> [outlives_connections].

%% RabbitMQ and its tool read the cookie from a file in the home.
init_per_suite(Config) ->
    Home = filename:join(quic_dist_run:dir(), "home"),
    Cookie = filename:join(Home, ".erlang.cookie"),
    ok = filelib:ensure_dir(Cookie),
    ok = file:write_file(Cookie, atom_to_list(quic_dist_run:cookie())),
    ok = file:change_mode(Cookie, 8#400),
    [{home, Home} | Config].

end_per_suite(_Config) ->
    ok.

end_per_testcase(_Case, _Config) ->
    [quic_dist_os:signal(Pid, kill) || {Pid, _} <- quic_dist_os:os_processes()],
    ok.

%% No broker sees another one go, and every confirmed message arrives, while each QUIC connection is
%% lost fifteen times and the path is cut for five seconds.
outlives_connections(Config) ->
    Brokers0 = [broker(Number) || Number <- [1, 2, 3]],
    Relays = [
        {{From#broker.number, To#broker.number}, relay(Config, To)}
     || From <- Brokers0, To <- Brokers0, From =/= To
    ],
    Brokers = [start(Config, Broker, Brokers0, Relays) || Broker <- Brokers0],
    try
        [up(Broker) || Broker <- Brokers],
        [join(Config, Broker, hd(Brokers)) || Broker <- tl(Brokers)],
        Start = io_lib:format("start(~0p)", [addresses(Brokers)]),
        ok = eval(Config, hd(Brokers), Start),
        Links = links(Relays),
        Breaks = [
            {Kind, mended(Kind, Links, fun(Relay) -> rabbitmq_relay:break(Relay, Kind) end)}
         || Kind <- ?BREAKS
        ],
        [rabbitmq_relay:cut(Relay, true) || {_, Relay} <- Relays],
        timer:sleep(?CUT),
        [rabbitmq_relay:cut(Relay, false) || {_, Relay} <- Relays],
        Cut = mended(cut, Links, fun(_) -> ok end),
        ct:pal("Until every link had packets again, in ms:~n~0tp~nafter a cut: ~b", [Breaks, Cut]),
        nothing_lost(Config, Brokers),
        in_one_cluster(Config, Brokers)
    after
        [ct:log("Broker ~b:~n~ts", [B#broker.number, log(B)]) || B <- Brokers]
    end.

%% The three relays, of six, by which a node has dialled another.
links(Relays) ->
    [rabbitmq_relay:cut(Relay, false) || {_, Relay} <- Relays],
    wait_until(
        links,
        fun() ->
            Busy = [Link || {_, Relay} = Link <- Relays, rabbitmq_relay:busy(Relay)],
            case lists:usort([lists:sort([From, To]) || {{From, To}, _} <- Busy]) of
                [_, _, _] when length(Busy) =:= 3 -> {ok, Busy};
                _ -> Busy
            end
        end,
        ?MENDED
    ).

mended(Kind, Links, Break) ->
    Began = erlang:monotonic_time(millisecond),
    [Break(Relay) || {_, Relay} <- Links],
    ok = wait_until(
        {mended, Kind},
        fun() ->
            case [Link || {_, Relay} = Link <- Links, not rabbitmq_relay:busy(Relay)] of
                [] -> true;
                Silent -> [{Names, rabbitmq_relay:flows(Relay)} || {Names, Relay} <- Silent]
            end
        end,
        ?MENDED
    ),
    erlang:monotonic_time(millisecond) - Began.

nothing_lost(Config, Brokers) ->
    Call = io_lib:format("result(~0p)", [[Node || {Node, _} <- addresses(Brokers)]]),
    {Queues, Nodedowns} = eval(Config, hd(Brokers), Call),
    ct:pal("Of each queue: ~0tp", [Queues]),
    ?assertEqual([], Nodedowns),
    [
        ?assertMatch(#{unconfirmed := [], refused := [], missing := []}, Facts, Queue)
     || {Queue, Facts} <- Queues
    ].

in_one_cluster(Config, [First | _] = Brokers) ->
    Status = term(ctl(Config, First, ["cluster_status", "--formatter", "erlang"])),
    Names = [list_to_atom(Node) || #broker{node = Node} <- Brokers],
    ?assertEqual(Names, lists:sort(proplists:get_value(running_nodes, Status))),
    ?assertEqual([], proplists:get_value(partitions, Status)),
    [?assertEqual([], lines(B, "partitioned|nodedown|node \\S+ down")) || B <- Brokers].

%% Brokers

broker(Number) ->
    #broker{
        number = Number,
        node = lists:concat(["rabbit", Number, "@" ?HOST]),
        dir = filename:join(quic_dist_run:dir(), "broker" ++ integer_to_list(Number)),
        udp_port = quic_dist_run:free_port(),
        amqp_port = quic_dist_run:free_port()
    }.

relay(Config, #broker{node = Node, udp_port = Port}) ->
    Secret = filename:join([home(Config), "state", "quic_dist", "reset_secret"]),
    rabbitmq_relay:start(#{node => Node, port => Port, secret => Secret}).

home(Config) -> proplists:get_value(home, Config).

%% RabbitMQ asks epmd for its own port, so it needs a name that is registered there.
start(Config, #broker{number = From, dir = Dir, udp_port = Port} = Broker, Brokers, Relays) ->
    ok = filelib:ensure_dir(filename:join(Dir, "x")),
    Nodes = [
        {list_to_atom(Node), ?HOST, rabbitmq_relay:port(Relay)}
     || #broker{number = To, node = Node} <- Brokers,
        {Names, Relay} <- Relays,
        Names =:= {From, To}
    ],
    Flags = "-quic_dist listen_port ~b nodes ~0p ~s",
    Env = [
        {"RABBITMQ_MNESIA_BASE", filename:join(Dir, "mnesia")},
        {"RABBITMQ_LOG_BASE", filename:join(Dir, "log")},
        {"RABBITMQ_GENERATED_CONFIG_DIR", filename:join(Dir, "config")},
        {"RABBITMQ_CONFIG_FILE", filename:join(Dir, "rabbitmq.conf")},
        {"RABBITMQ_ADVANCED_CONFIG_FILE", filename:join(Dir, "advanced.config")},
        {"RABBITMQ_ENABLED_PLUGINS_FILE", filename:join(Dir, "enabled_plugins")},
        {"RABBITMQ_PLUGINS_EXPAND_DIR", filename:join(Dir, "plugins")},
        {"RABBITMQ_NODE_IP_ADDRESS", ?HOST},
        {"RABBITMQ_NODE_PORT", integer_to_list(Broker#broker.amqp_port)},
        %% RabbitMQ wants a free TCP port for the distribution, which QUIC does not use.
        {"RABBITMQ_DIST_PORT", integer_to_list(quic_dist_run:free_port())},
        {"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
            lists:flatten(io_lib:format(Flags, [Port, Nodes, flags()]))}
    ],
    Command = quic_dist_command:open([], #{
        exec => ?BIN "rabbitmq-server", env => env(Config, Broker) ++ Env
    }),
    Broker#broker{command = Command}.

%% The shell splits the flags at blanks. The time in which nodes must connect is a deadline, too.
flags() ->
    SetupTime = min(120, scale(7000) div 1000),
    lists:concat(
        ["-proto_dist quic -quic_dist local_links off -kernel net_setuptime ", SetupTime] ++
            [" -pa " ++ Dir || Dir <- quic_dist_run:paths()]
    ).

env(Config, #broker{node = Node}) ->
    [
        {"HOME", home(Config)},
        {"XDG_STATE_HOME", filename:join(home(Config), "state")},
        {"RABBITMQ_CONF_ENV_FILE", filename:join(home(Config), "rabbitmq-env.conf")},
        {"RABBITMQ_NODENAME", Node},
        {"RABBITMQ_USE_LONGNAME", "true"},
        {"LC_ALL", "C.UTF-8"}
    ].

up(#broker{command = Command}) ->
    [] = quic_dist_command:expect(Command, "Starting broker.*completed with", 60000),
    ok.

join(Config, Broker, #broker{node = First}) ->
    [ctl(Config, Broker, Args) || Args <- [["stop_app"], ["join_cluster", First], ["start_app"]]].

addresses(Brokers) ->
    [{list_to_atom(Node), Port} || #broker{node = Node, amqp_port = Port} <- Brokers].

eval(Config, Broker, Call) ->
    term(ctl(Config, Broker, ["eval", lists:flatten(["rabbitmq_load:", Call, "."])])).

term(Said) ->
    {ok, Tokens, _} = erl_scan:string(Said ++ "."),
    {ok, Term} = erl_parse:parse_term(Tokens),
    Term.

ctl(Config, Broker, Args) ->
    Port = quic_dist_run:free_port(),
    {exit_status, Status, Said} = quic_dist_command:run(["--quiet" | Args], #{
        exec => ?BIN "rabbitmqctl",
        timeout => 60000,
        env => env(Config, Broker) ++ [
            {"RABBITMQ_CTL_ERL_ARGS", flags()},
            {"RABBITMQ_CTL_DIST_PORT_MIN", integer_to_list(Port)},
            {"RABBITMQ_CTL_DIST_PORT_MAX", integer_to_list(Port)}
        ]
    }),
    ct:log("rabbitmqctl ~0tp~n~ts", [Args, Said]),
    ?assertEqual({0, Args}, {Status, Args}, Said),
    string:trim(Said).

log(#broker{dir = Dir}) ->
    [element(2, file:read_file(File)) || File <- filelib:wildcard(filename:join(Dir, "log/*.log"))].

lines(Broker, Regexp) ->
    Lines = binary:split(iolist_to_binary(log(Broker)), <<"\n">>, [global]),
    [Line || Line <- Lines, re:run(Line, Regexp) =/= nomatch].
