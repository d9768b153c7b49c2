%% @doc A node tells of itself: figures of its links, events, log domains, traces, the status page.
-module(quic_dist_inside_SUITE).

-include_lib("stdlib/include/assert.hrl").

-export([all/0, suite/0]).
-export([
    figures_of_a_link/1,
    figures_of_many_links/1,
    figures_of_a_stopped_sidecar/1,
    events_of_a_link/1,
    events_of_strangers/1,
    events_of_the_sidecar/1,
    events_of_certificates/1,
    subscriptions/1,
    telemetry/1,
    log_domains/1,
    traces/1,
    traces_by_option/1,
    status_page/1
]).
%% On nodes: the collector, a telemetry handler, a log handler.
-export([collect/1, take/1, execute/3, log/2]).

-import(quic_dist_fixtures, [cert/1]).
-import(quic_dist_node, [call/2, call/4, connect/2, info/1, name/1, start/1]).
-import(quic_dist_shown, [get/2, get/3]).
-import(quic_dist_wait, [scale/1, wait_until/2]).

%% It measures times that have a limit: no other suite runs beside it.
suite() ->
    [{ct_hooks, [quic_dist_hooks]}, {timetrap, {seconds, scale(120)}}, {userdata, alone}].

all() ->
    [
        figures_of_a_link,
        figures_of_many_links,
        figures_of_a_stopped_sidecar,
        events_of_a_link,
        events_of_strangers,
        events_of_the_sidecar,
        events_of_certificates,
        subscriptions,
        telemetry,
        log_domains,
        traces,
        traces_by_option,
        status_page
    ].

%% Figures

%% The figures of a link are those of what went over it, and both nodes agree on them.
figures_of_a_link(_) ->
    Options = fun(Plane) -> [{data_plane, Plane}, {connections, 1}] end,
    [A, B] = [start(#{quic_dist => Options(Plane)}) || Plane <- [socket, stdio]],
    connect(A, B),
    Size = 1000000,
    NodeB = name(B),
    %% The answer comes behind it all.
    Size = call(A, fun() ->
        erpc:call(NodeB, erlang, byte_size, [binary:copy(<<"x">>, Size)])
    end),
    #{direction := dialled, plane := socket, streams := bulk, uptime := Up} = OfB = figures(A, B),
    #{direction := accepted, plane := stdio, identity := cookie} = OfA = figures(B, A),
    #{sent := #{bytes := Sent, packets := Packets}, lost := #{bytes := _, packets := _}} = OfB,
    #{received := #{bytes := Received}} = OfA,
    ?assert(Sent > Size andalso Packets > Size div 2000 andalso Received > Size),
    #{round_trip := #{smoothed := Smoothed, least := Least, latest := _, variation := _}} = OfB,
    #{congestion_window := Window, connections := [_], queued := 0, backlog := 0} = OfB,
    ?assert(Smoothed > 0 andalso Least > 0 andalso Window > 0 andalso Up >= 0),
    %% What was big went on a lane.
    #{lanes := [#{lane := 0, sent := OnMain} | Lanes]} = OfB,
    ?assert(lists:sum([S || #{sent := S} <- Lanes]) > Size),
    ?assert(OnMain < Size),
    #{listen := {_, UdpPort}} = info(B),
    ?assertMatch(#{address := {{127, 0, 0, 1}, UdpPort}}, OfB),
    #{counters := Counters, status := undefined} = info(A),
    ?assertMatch(#{dialled := 1, accepted := 0, refused := 0, memory := M} when M > 0, Counters),
    ?assertEqual({error, not_connected}, call(A, quic_dist, info, ['nobody@nowhere'])),
    quic_dist_node:disconnect(A, B),
    wait_until(gone, fun() -> maps:get(peers, info(A)) =:= #{} end).

%% With two hundred links the figures come within 50 milliseconds, and are all there. The links are
%% those of sidecars without nodes.
figures_of_many_links(_) ->
    Links = 200,
    [A, B] = Nodes = [
        start(#{kernel => [{net_setuptime, 120}], quic_dist => Options})
     || Options <- [[{status_port, 0}], []]
    ],
    Diallers = [dial(Node, Links) || Node <- Nodes],
    [
        wait_until(all_links, fun() -> maps:size(maps:get(peers, info(Node))) =:= Links end)
     || Node <- Nodes
    ],
    Times = call(A, fun() ->
        [element(1, timer:tc(quic_dist, info, [])) || _ <- lists:seq(1, 9)]
    end),
    Median = lists:nth(5, lists:sort(Times)) / 1000,
    ct:pal("info/0 with ~w links: ~w ms; all ~w us", [Links, Median, Times]),
    ?assert(Median =< scale(50)),
    #{peers := #{<<"fake200@127.0.0.1">> := Last}} = info(A),
    ?assertMatch(#{direction := accepted, connections := [_]}, Last),
    page_costs_little(A, B),
    [{exit_status, 0, _} = finish(Dialler) || Dialler <- Diallers].

%% A page that looks each second takes less than a fiftieth of a processor, with that many peers:
%% what the sidecar has more of the processor than that of a node with as many peers and no page.
page_costs_little(A, B) ->
    [#{os_pid := With, status := Status}, #{os_pid := Without}] = [info(Node) || Node <- [A, B]],
    Seconds = 8,
    [Before1, Before2] = [cpu(Sidecar) || Sidecar <- [With, Without]],
    [
        begin
            {200, _} = get(Status, Path),
            timer:sleep(500)
        end
     || _ <- lists:seq(1, Seconds), Path <- ["now.json", "history.json"]
    ],
    [Share, Base] = [
        (cpu(Sidecar) - Before) / Seconds
     || {Sidecar, Before} <- [{With, Before1}, {Without, Before2}]
    ],
    ct:pal("the sidecar takes ~.2f % of a processor, one without a page ~.2f %", [Share, Base]),
    ?assert(Share - Base < scale(2)).

%% Hundredths of a second that a process has had.
cpu(OsPid) ->
    {ok, Stat} = file:read_file("/proc/" ++ integer_to_list(OsPid) ++ "/stat"),
    [_, Rest] = binary:split(Stat, <<") ">>),
    Words = binary:split(Rest, <<" ">>, [global]),
    binary_to_integer(lists:nth(12, Words)) + binary_to_integer(lists:nth(13, Words)).

%% So many links to a node, from a program that has no nodes behind it.
dial(#{node := Node} = A, Links) ->
    File = filename:join(quic_dist_fixtures:dir(), "fakenodes"),
    ok = quic_dist_fixtures:build(["-o ", File], "./test/fakes/fakenodes"),
    #{listen := {_, UdpPort}} = info(A),
    Args = [
        atom_to_list(Node),
        integer_to_list(UdpPort),
        atom_to_list(quic_dist_run:cookie()),
        integer_to_list(Links)
    ],
    Dialler = quic_dist_command:open(Args, #{exec => File}),
    [] = quic_dist_command:expect(Dialler, "connected\n", 60000),
    Dialler.

finish(Dialler) ->
    quic_dist_command:enter(Dialler, "end\n"),
    quic_dist_command:finish(Dialler, 10000).

%% A stopped sidecar does not block info: it returns all else, and the reason why there are no
%% figures.
figures_of_a_stopped_sidecar(_) ->
    A = start(#{}),
    #{os_pid := Sidecar} = info(A),
    quic_dist_os:signal(Sidecar, stop),
    {Time, Info} = timer:tc(fun() -> info(A) end),
    quic_dist_os:signal(Sidecar, cont),
    #{state := up, peers := Peers, error := {timeout, _}} = Info,
    ?assertEqual(#{}, Peers),
    ?assert(Time < scale(3000) * 1000),
    wait_until(figures, fun() -> not is_map_key(error, info(A)) end).

%% Events

%% Both nodes get events of a link's beginning and end, with peer, address and reason. A failed
%% attempt is an event too.
events_of_a_link(_) ->
    Nodes = [A, B] = [start(#{}) || _ <- [a, b]],
    [collecting(Node, all) || Node <- Nodes],
    connect(A, B),
    NodeB = name(B),
    #{node := NodeB, direction := dialled, address := Address, channel := Channel} = event(A, up),
    ?assertMatch(#{address := Address}, figures(A, B)),
    NodeA = name(A),
    ?assertMatch(
        #{node := NodeA, direction := accepted, carrier := quic, identity := cookie}, event(B, up)
    ),
    quic_dist_node:disconnect(A, B),
    #{node := NodeB, channel := Channel, reason := local, uptime := Up} = event(A, down),
    ?assert(is_integer(Up)),
    ?assertMatch(
        #{node := NodeA, reason := peer_closed, text := <<"closed by the peer">>}, event(B, down)
    ),
    Nobody = list_to_atom(integer_to_list(quic_dist_run:free_port()) ++ "@127.0.0.1"),
    false = call(A, net_kernel, connect_node, [Nobody]),
    #{node := Nobody, text := Why} = event(A, connect_failed),
    ?assertNotEqual(nomatch, binary:match(Why, <<"127.0.0.1">>)).

%% Each stranger that is turned away is an event, also at a level of the log that has no line of
%% it.
events_of_strangers(_) ->
    A = start(#{quic_dist => [{log_level, error}]}),
    B = start(#{cookie => another}),
    collecting(A, [refused]),
    false = call(B, net_kernel, connect_node, [name(A)]),
    #{text := <<"inbound connection turned away">>, facts := Facts} = event(A, refused),
    #{<<"peer">> := <<"127.0.0.1:", _/binary>>, <<"err">> := Err} = Facts,
    ?assertNotEqual(nomatch, binary:match(Err, <<"cookie">>)),
    ?assertEqual([], quic_dist_node:log_lines(A, "turned away")),
    ?assertMatch(#{counters := #{refused := 1}}, info(A)),
    ?assertMatch(#{counters := #{dials_failed := 1}}, info(B)).

%% The sidecar's end is told, with the links that it took along, and the next one's beginning; and
%% the end of distribution.
events_of_the_sidecar(_) ->
    {ok, A} = nameless(),
    B = start(#{}),
    collecting(A, all),
    connect(A, B),
    #{os_pid := Sidecar} = info(A),
    quic_dist_os:signal(Sidecar, kill),
    NodeB = name(B),
    ?assertMatch(#{node := NodeB, reason := sidecar_down}, event(A, down)),
    ?assertMatch(#{text := <<"quicdistd", _/binary>>}, event(A, sidecar_down)),
    #{os_pid := Next} = event(A, sidecar_up),
    ?assertMatch(#{os_pid := Next}, info(A)),
    ?assertNotEqual(Sidecar, Next),
    ok = call(A, net_kernel, stop, []),
    #{event := stopped} = event(A, stopped).

%% A node whose distribution can be stopped.
nameless() ->
    A = start(#{name => none}),
    Name = list_to_atom(integer_to_list(quic_dist_run:free_port()) ++ "@127.0.0.1"),
    {ok, _} = call(A, net_kernel, start, [Name, #{}]),
    true = call(A, erlang, set_cookie, [quic_dist_run:cookie()]),
    {ok, A#{node := Name}}.

%% Certificates that are read, those that expire soon, and changed files that cannot be used are
%% told.
events_of_certificates(_) ->
    Dir = filename:join(quic_dist_run:dir(), "certs"),
    Name = integer_to_list(quic_dist_run:free_port()) ++ "@127.0.0.1",
    CaFile = filename:join(Dir, "ca.pem"),
    Issue = ["node", Name, "-ca", CaFile, "-out", Dir],
    [cert(Args) || Args <- [["ca", "-out", Dir], Issue]],
    CertFile = filename:join(Dir, Name ++ ".pem"),
    Options = [
        {certfile, CertFile},
        {keyfile, filename:join(Dir, Name ++ ".key")},
        {cacertfile, CaFile}
    ],
    A = start(#{name => {long, Name}, args => ["-no_epmd"], quic_dist => Options}),
    collecting(A, all),
    [ok = file:delete(File) || {Key, File} <- Options, Key =/= cacertfile],
    cert(Issue ++ ["-days", "10"]),
    ok = call(A, quic_dist, reload, []),
    #{certificates := [#{option := certfile, days_left := Days}, #{}]} = event(A, certificates),
    ?assert(Days =:= 9 orelse Days =:= 10),
    %% One of long ago, of which ten days are left, is warned of.
    File = filename:join(quic_dist_fixtures:dir(), "fakecerts"),
    ok = quic_dist_fixtures:build(["-o ", File], "./test/fakes/fakecerts"),
    {exit_status, 0, _} = quic_dist_command:run([Dir, Name, "other@127.0.0.1"], #{exec => File}),
    ok = file:rename(filename:join(Dir, "expiring.pem"), CertFile),
    ok = file:delete(proplists:get_value(keyfile, Options)),
    {ok, _} = file:copy(CertFile, proplists:get_value(keyfile, Options)),
    ok = file:change_mode(proplists:get_value(keyfile, Options), 8#600),
    ok = call(A, quic_dist, reload, []),
    #{facts := #{}, text := Soon} = event(A, certificate_expires),
    ?assertNotEqual(nomatch, binary:match(Soon, <<"expires at">>)),
    ok = file:write_file(CertFile, "rubbish\n"),
    #{facts := #{<<"err">> := Why}} = event(A, certificates_failed),
    ?assertNotEqual(nomatch, binary:match(Why, <<"is not PEM">>)).

%% A subscription is for the kinds that it names, ends with its process or when that says so, and
%% leaves nothing.
subscriptions(_) ->
    A = start(#{}),
    call(A, fun() ->
        ?assertEqual({error, {bad_kind, foo}}, quic_dist:subscribe([up, foo])),
        ?assertEqual({error, {bad_kind, up}}, quic_dist:subscribe(up)),
        {ok, All} = quic_dist:subscribe(all),
        {ok, Some} = quic_dist:subscribe([flood]),
        Refused = #{event => refused, text => <<"t">>, facts => #{}},
        Flood = Refused#{event := flood},
        [quic_dist_events:tell(Event) || Event <- [Refused, Flood]],
        ?assertEqual({quic_dist, All, Refused}, received()),
        Two = [received(), received()],
        ?assertEqual([{quic_dist, R, Flood} || R <- lists:sort([All, Some])], lists:sort(Two)),
        quic_dist_events:tell(Flood),
        ok = quic_dist:unsubscribe(All),
        ok = quic_dist:unsubscribe(Some),
        receive
            {quic_dist, _, _} = Left -> error({left, Left})
        after 0 -> ok
        end,
        {Pid, Monitor} = spawn_monitor(fun() -> {ok, _} = quic_dist:subscribe(all) end),
        receive
            {'DOWN', Monitor, process, Pid, normal} -> ok
        end
    end),
    %% All have gone.
    wait_until(no_subscriber, fun() ->
        {state, Subscribers, _} = call(A, sys, get_state, [quic_dist_events]),
        Subscribers =:= #{}
    end).

received() ->
    receive
        {quic_dist, _, _} = Message -> Message
    after 5000 -> nothing
    end.

%% Where the library telemetry is loaded it executes each event, with measurements apart from
%% metadata. Its failure harms nothing.
telemetry(_) ->
    [A, B] = [start(#{}) || _ <- [a, b]],
    collecting(A, []),
    Lines = [
        "-module(telemetry).",
        "-export([execute/3]).",
        "execute(E, M, D) -> quic_dist_inside_SUITE:execute(E, M, D)."
    ],
    {ok, telemetry, Code} = compile:forms([form(Line) || Line <- Lines]),
    {module, telemetry} = call(A, code, load_binary, [telemetry, "telemetry.erl", Code]),
    connect(A, B),
    NodeB = name(B),
    {Begun, #{node := NodeB, direction := dialled}} = event(A, [quic_dist, up]),
    ?assertMatch(#{system_time := _}, Begun),
    quic_dist_node:disconnect(A, B),
    {Ended, #{reason := local, node := NodeB} = Metadata} = event(A, [quic_dist, down]),
    ?assertMatch(#{system_time := _, duration := D} when is_integer(D), Ended),
    ?assertNot(is_map_key(uptime, Metadata)),
    %% Without its collector it fails.
    call(A, fun() -> exit(whereis(?MODULE), kill) end),
    connect(A, B),
    _ = quic_dist_node:wait_log(A, "^warning .*telemetry failed", 5000),
    ?assertMatch(#{state := up}, info(A)).

form(Line) ->
    {ok, Tokens, _} = erl_scan:string(Line),
    {ok, Form} = erl_parse:parse_form(Tokens),
    Form.

%% @doc What the library telemetry would do.
execute(Event, Measurements, Metadata) ->
    ?MODULE ! {Event, {Measurements, Metadata}}.

%% With the option log_domains reports have a domain, by which filters choose them; without it they
%% have none, so that OTP's default handler shows them.
log_domains(_) ->
    Nobody = list_to_atom(integer_to_list(quic_dist_run:free_port()) ++ "@127.0.0.1"),
    [
        begin
            A = start(#{quic_dist => Options}),
            collecting(A, []),
            ok = call(A, logger, add_handler, [?MODULE, ?MODULE, #{}]),
            false = call(A, net_kernel, connect_node, [Nobody]),
            ?assertEqual(Domain, event(A, domain))
        end
     || {Options, Domain} <- [{[{log_domains, true}], [quic_dist, link]}, {[], none}]
    ].

%% @doc A log handler: tells the collector of the domains of our own reports.
log(#{msg := {report, #{what := _, facts := _}}, meta := Meta}, _) ->
    case whereis(?MODULE) of
        undefined -> ok;
        Pid -> Pid ! {domain, maps:get(domain, Meta, none)}
    end;
log(_, _) ->
    ok.

%% Traces

%% At run time, for one peer, by either side: the next connection has its qlog file and its secrets
%% written, and those of others have not. What cannot be written is refused.
traces(_) ->
    %% Nobody connects by himself what was disconnected.
    Options = #{quic_dist => [{connections, 1}], kernel => [{connect_all, false}]},
    [A, B, C] = [start(Options) || _ <- [a, b, c]],
    [NodeA, NodeB] = [name(N) || N <- [A, B]],
    [DirA, DirB] = Dirs = [new_dir() || _ <- [a, b]],
    Keys = filename:join(new_dir(), "keys"),
    ok = call(A, quic_dist, trace, [NodeB, #{qlog => DirA, insecure_key_log => Keys}]),
    ok = call(B, quic_dist, trace, [NodeA, #{qlog => DirB}]),
    [connect(X, Y) || {X, Y} <- [{A, B}, {A, C}, {C, B}]],
    ?assertEqual([], filelib:wildcard(filename:join(DirA, "*" ++ atom_to_list(name(C)) ++ "*"))),
    [_] = quic_dist_node:wait_log(A, "^warning .*insecure_key_log is set", 5000),
    {ok, Secrets} = file:read_file(Keys),
    ?assertNotEqual(nomatch, binary:match(Secrets, <<"CLIENT_TRAFFIC_SECRET_0 ">>)),
    quic_dist_node:disconnect(A, B),
    [wait_until({whole, Dir}, fun() -> whole_qlog(Dir) end) || Dir <- Dirs],
    ok = call(A, quic_dist, trace, [NodeB, #{}]),
    connect(A, B),
    quic_dist_node:disconnect(A, B),
    ?assertMatch([_], filelib:wildcard(filename:join(DirA, "*"))),
    {error, {bad_file, _}} = call(A, quic_dist, trace, [all, #{qlog => "/no/such/folder"}]),
    {error, {bad_option, _}} = call(A, quic_dist, trace, [all, #{qlogs => DirA}]).

%% Is there the qlog file of a connection that has ended? (OTP's global may have made another.)
whole_qlog(Dir) ->
    lists:any(
        fun(File) ->
            {ok, Text} = file:read_file(File),
            lists:all(fun(Part) -> binary:match(Text, Part) =/= nomatch end, [
                <<"packet_sent">>, <<"packet_received">>, <<"connection_closed">>
            ])
        end,
        filelib:wildcard(filename:join(Dir, "*.sqlog"))
    ).

new_dir() ->
    Dir = filename:join(quic_dist_run:dir(), quic_dist_run:unique("dir")),
    ok = file:make_dir(Dir),
    Dir.

%% By option, for all peers and from the first connection on. A folder that is not there ends the
%% boot with a line that says so.
traces_by_option(_) ->
    Dir = new_dir(),
    Keys = filename:join(Dir, "keys"),
    A = start(#{quic_dist => [{qlog_dir, Dir}, {insecure_key_log, Keys}, {connections, 1}]}),
    B = start(#{}),
    connect(B, A),
    quic_dist_node:disconnect(A, B),
    wait_until(whole, fun() -> whole_qlog(Dir) end),
    ?assert(filelib:file_size(Keys) > 0),
    Missing = filename:join(Dir, "missing"),
    quic_dist_command:boot_fails(
        ["-noinput", "-proto_dist", "quic", "-pa", quic_dist_run:ebin()] ++
            ["-quic_dist", "qlog_dir", Missing] ++ quic_dist_node:default_name_args(quic),
        #{},
        ["bad option qlog_dir from boot flag ", Missing]
    ).

%% The status page

%% The option status_port serves the page, on loopback, with the peers, and the metrics. A request
%% with another name for the host gets nothing, and no page contains the cookie.
status_page(_) ->
    Port = quic_dist_run:free_port(),
    A = start(#{quic_dist => [{status_port, Port}]}),
    B = start(#{}),
    Url = <<"http://127.0.0.1:", (integer_to_binary(Port))/binary, "/">>,
    wait_until(served, fun() -> maps:get(status, info(A)) =:= Url end),
    connect(A, B),
    NodeB = atom_to_list(name(B)),
    {200, Page} = get(Url, ""),
    ?assertNotEqual(nomatch, string:find(Page, "page.js")),
    {200, Now} = get(Url, "now.json"),
    ?assertNotEqual(nomatch, string:find(Now, NodeB)),
    {200, Metrics} = get(Url, "metrics"),
    ?assertNotEqual(
        nomatch, string:find(Metrics, "quic_dist_peer_rtt_seconds{peer=\"" ++ NodeB ++ "\"}")
    ),
    {421, Nothing} = get(Url, "now.json", "example.org"),
    ?assertEqual(nomatch, string:find(Nothing, NodeB)),
    Cookie = atom_to_list(quic_dist_run:cookie()),
    [?assertEqual(nomatch, string:find(Text, Cookie)) || Text <- [Page, Now, Metrics, Nothing]],
    %% The next sidecar serves it again.
    #{os_pid := Sidecar} = info(A),
    quic_dist_os:signal(Sidecar, kill),
    wait_until(served_again, fun() ->
        case info(A) of
            #{status := Url, os_pid := Next} -> Next =/= Sidecar;
            _ -> false
        end
    end),
    %% Nobody else has it.
    ?assertMatch(#{status := undefined}, info(B)).

%% Collectors

%% Has a process of the node take notice of events of these kinds, and of other messages.
collecting(Node, Kinds) ->
    Name = ?MODULE,
    call(Node, fun() ->
        Caller = self(),
        Pid = spawn(fun() -> collect({Kinds, Caller}) end),
        receive
            {Pid, ready} -> true = register(Name, Pid)
        end
    end).

%% @doc The collector's life.
collect({Kinds, Caller}) ->
    {ok, Reference} = quic_dist:subscribe(Kinds),
    Caller ! {self(), ready},
    collect(Reference, []).

collect(Reference, Seen) ->
    receive
        {quic_dist, Reference, #{event := Kind} = Event} ->
            collect(Reference, Seen ++ [{Kind, Event}]);
        {take, Key, Caller} ->
            case lists:keytake(Key, 1, Seen) of
                {value, {_, Value}, Rest} ->
                    Caller ! {self(), {ok, Value}},
                    collect(Reference, Rest);
                false ->
                    Caller ! {self(), {seen, Seen}},
                    collect(Reference, Seen)
            end;
        {Key, Value} ->
            collect(Reference, Seen ++ [{Key, Value}])
    end.

%% @doc The first that was collected of this kind, which then is not any more.
take(Key) ->
    Pid = whereis(?MODULE),
    Pid ! {take, Key, self()},
    receive
        {Pid, Found} -> Found
    end.

event(Node, Key) ->
    wait_until({event, Key}, fun() -> call(Node, ?MODULE, take, [Key]) end).

%% Nodes

figures(Node, Peer) -> call(Node, quic_dist, info, [name(Peer)]).
