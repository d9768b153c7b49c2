%% @doc Distribution through web servers: nginx, HAProxy, Caddy and Apache, with the configurations
%% that docs/PROXIES.md shows, taken from that page. Only ports, files, the host's name and, where a
%% case says so, times are others than there.
%%
%% A web server that is not installed is skipped, unless QUIC_DIST_TEST_PROXIES is set: `make
%% proxies' installs them and sets it. It also has links idle for longer than the page's time-outs.
-module(webdist_proxies_SUITE).

-export([all/0, groups/0, suite/0, init_per_suite/1, end_per_suite/1]).
-export([init_per_group/2, end_per_group/2, init_per_testcase/2, end_per_testcase/2]).
-export([
    big_messages/1,
    in_websocket/1,
    over_tls/1,
    no_link_without_proof/1,
    a_restart/1,
    other_paths/1,
    tls_passed_on/1,
    idle_links_stay_up/1,
    a_short_timeout_cuts_idle_links/1,
    idle_at_the_defaults/1
]).

-include_lib("stdlib/include/assert.hrl").

-import(quic_dist_node, [call/2, call/3, call/4, connect/2, start/1, wait_log/3]).
-import(quic_dist_run, [unique/1]).
-import(quic_dist_wait, [scale/1, wait_until/2]).

-record(proxy, {
    command :: quic_dist_command:command(),
    port :: inet:port_number(),
    tls_port :: inet:port_number()
}).

-define(HOST, "localhost").
-define(FILE_NAME, "site.conf").
-define(ALL, [nginx, haproxy, caddy, apache]).
%% The application's only page.
-define(PAGE, "page of the application").
%% What PROXIES.md says for ports and time-outs.
-define(PORT, "80").
-define(TLS_PORT, "443").
-define(NODES, "4380").
-define(APPLICATION, "8080").
-define(TIMEOUT, "60").

suite() ->
    [{ct_hooks, [quic_dist_hooks]}, {timetrap, scale(60000)}].

all() ->
    [{group, Name} || Name <- ?ALL] ++ [tls_passed_on] ++
        [idle_links_stay_up, a_short_timeout_cuts_idle_links] ++
        [idle_at_the_defaults || everything()].

groups() ->
    Cases = [big_messages, in_websocket, over_tls, no_link_without_proof, a_restart, other_paths],
    [{Name, [], Cases} || Name <- ?ALL].

everything() -> os:getenv("QUIC_DIST_TEST_PROXIES") =/= false.

init_per_suite(Config) ->
    {ok, _} = application:ensure_all_started(ssl),
    #{cacertfile := Authority, certs := [#{certfile := Cert, keyfile := Key}]} =
        quic_dist_fixtures:certificates([?HOST]),
    {ok, Page} = file:read_file(filename:join([quic_dist_fixtures:top(), "docs", "PROXIES.md"])),
    Installed = [Name || Name <- ?ALL, executable(Name) =/= false],
    case Installed of
        ?ALL ->
            ok;
        _ ->
            Text = "not installed: ~0tp; make proxies installs them",
            Missing = lists:flatten(io_lib:format(Text, [?ALL -- Installed])),
            everything() andalso error(Missing),
            ct:pal(Missing)
    end,
    [
        {authority, Authority}, {cert, Cert}, {key, Key}, {page, Page}, {installed, Installed}
        | Config
    ].

end_per_suite(_Config) ->
    ok.

init_per_group(Name, Config) ->
    case lists:member(Name, proplists:get_value(installed, Config)) of
        true -> [{proxy, Name} | Config];
        false -> {skip, "not installed"}
    end.

end_per_group(_Name, _Config) ->
    ok.

init_per_testcase(_Case, Config) ->
    [{application, quic_dist_run:free_port()} | Config].

end_per_testcase(_Case, _Config) ->
    [
        quic_dist_os:signal(OsPid, term)
     || {OsPid, Line} <- quic_dist_os:os_processes(), string:find(Line, ?FILE_NAME) =/= nomatch
    ],
    ok.

%% Cases

%% Nodes meet through the proxy, and 100 MB go through in either direction.
big_messages(Config) ->
    World = world(Config, []),
    #proxy{port = Port} = proxy(Config, ?TIMEOUT),
    Hello = hello(Port, []),
    connect(Hello, World),
    big(Hello, World, 100000000).

%% Nodes connect through the proxy in WebSocket's messages.
in_websocket(Config) ->
    World = world(Config, []),
    #proxy{port = Port} = proxy(Config, ?TIMEOUT),
    Hello = hello(Port, by_websocket(), []),
    connect(Hello, World),
    big(Hello, World, rather_big()).

%% Nodes connect through a proxy that ends TLS, in either form.
over_tls(Config) ->
    World = world(Config, []),
    #proxy{tls_port = Port} = proxy(Config, ?TIMEOUT),
    [
        begin
            Hello = hello(Port, by_tls(Carrier), []),
            connect(Hello, World),
            big(Hello, World, rather_big())
        end
     || Carrier <- [https, wss]
    ].

%% A node that is not told of the proxy does not take it for the other node, and says what is
%% wrong.
no_link_without_proof(Config) ->
    World = world(Config, []),
    #proxy{tls_port = Port} = proxy(Config, ?TIMEOUT),
    Hello = hello(Port, [{carriers, [https, wss]}], []),
    ?assertEqual(pang, call(Hello, net_adm, ping, [maps:get(node, World)])),
    Line = "does not prove who it is: its TLS ends at a proxy",
    ?assertMatch([_ | _], wait_log(Hello, Line, 5000)),
    ?assertEqual([], peers(World)).

%% The end of the proxy is nodedown at both nodes; when it is back they meet again. Over TLS too.
a_restart(Config) ->
    World = world(Config, []),
    Proxy = proxy(Config, ?TIMEOUT),
    Hellos = [hello(Proxy#proxy.port, []), hello(Proxy#proxy.tls_port, by_tls(wss), [])],
    [connect(Hello, World) || Hello <- Hellos],
    ok = stop(Proxy),
    [wait_until(nodedown, fun() -> peers(Node) =:= [] end) || Node <- [World | Hellos]],
    start_proxy(proplists:get_value(proxy, Config), Config, ?TIMEOUT, Proxy),
    [connect(Hello, World) || Hello <- Hellos].

%% Paths that are not below /erl/ lead to the application, over TLS too, and no client gets the
%% nodes' names.
other_paths(Config) ->
    World = world(Config, []),
    application(Config),
    #proxy{port = Port, tls_port = TlsPort} = proxy(Config, ?TIMEOUT),
    Ports = [Port, {tls, TlsPort, proplists:get_value(authority, Config)}],
    Page = "HTTP/1.1 200 OK.*\r\n\r\n" ?PAGE "$",
    [?assertMatch({match, _}, re:run(get("/page", P), Page, [dotall])) || P <- Ports],
    [Name, _] = string:split(atom_to_binary(maps:get(node, World)), "@"),
    ?assertMatch({match, _}, re:run(get("/erl", proplists:get_value(port, Config)), Name)),
    Paths = ["/erl", "/erl/", "/erl?", "//erl", "/erl/..", "/x/../erl", "/erl/../erl"],
    [
        ?assertEqual({Path, nomatch}, {Path, re:run(get(Path, P), Name)})
     || P <- Ports, Path <- Paths
    ].

%% A proxy that passes TLS on takes no part in it: the nodes prove their names to each other.
tls_passed_on(Config) ->
    case lists:member(haproxy, proplists:get_value(installed, Config)) of
        true ->
            World = world(Config, [{listen, [https]}], []),
            #proxy{tls_port = Port} = start_proxy(haproxy_passing, Config, ?TIMEOUT),
            Hello = hello(Port, [{carriers, [https, wss]}], []),
            connect(Hello, World),
            big(Hello, World, rather_big()),
            Liar = hello(Port, [{carriers, [https, wss]}], []),
            true = call(Liar, erlang, set_cookie, [another]),
            ?assertEqual(pang, call(Liar, net_adm, ping, [maps:get(node, World)])),
            ?assertMatch([_ | _], wait_log(World, "its cookie is not the one", 5000));
        false ->
            {skip, "not installed"}
    end.

%% A link on which nothing but ticks is sent stays up for longer than the proxies' time-outs.
idle_links_stay_up(Config) ->
    idle(Config, "3", [{net_ticktime, 4}], 8000).

%% What the page says, with its own time-outs and Erlang's.
idle_at_the_defaults(Config) ->
    ct:timetrap(scale(180000)),
    idle(Config, ?TIMEOUT, [], 80000).

idle(Config, Timeout, Kernel, Time) ->
    {World, Hellos} = linked(Config, Timeout, Kernel, proplists:get_value(installed, Config)),
    Links = fun() -> [ctrl(Hello, World) || {_, Hello} <- Hellos] end,
    Before = Links(),
    quic_dist_wait:settled(links, fun() -> Links() =:= Before orelse Links() end, Time).

%% Without ticks in time a proxy's time-out cuts a link: it is the ticks that keep those above up.
a_short_timeout_cuts_idle_links(Config) ->
    %% Caddy has no time-out.
    Names = proplists:get_value(installed, Config) -- [caddy],
    {_, Hellos} = linked(Config, "2", [], Names),
    [
        wait_until({cut, Name}, fun() -> peers(Hello) =:= [] end)
     || {Name, Hello} <- Hellos
    ].

%% A node behind the proxies, and through each of them another that is connected to it; or two.
linked(Config, Timeout, Kernel, Names) ->
    World = world(Config, Kernel),
    Hellos = [
        begin
            #proxy{port = Port, tls_port = TlsPort} = start_proxy(Name, Config, Timeout),
            [{Name, hello(Port, Kernel)}] ++
                [{Name, hello(TlsPort, by_tls(wss), Kernel)} || everything()]
        end
     || Name <- Names
    ],
    [connect(Hello, World) || {_, Hello} <- lists:append(Hellos)],
    {World, lists:append(Hellos)}.

%% Nodes

%% Behind the proxy.
world(Config, Kernel) -> world(Config, [], Kernel).

world(Config, Options, Kernel) ->
    Port = proplists:get_value(port, Config),
    start(#{
        carrier => webdist,
        name => {short, unique("world") ++ "@" ?HOST},
        webdist => [{port, Port}, {listen_address, "127.0.0.1"} | Options],
        kernel => Kernel
    }).

%% Connects through a proxy.
hello(Port, Kernel) -> hello(Port, [], Kernel).

hello(Port, Options, Kernel) ->
    start(#{
        carrier => webdist,
        name => {short, unique("hello") ++ "@" ?HOST},
        webdist => [{port, Port} | Options],
        args => ["-dist_listen", "false"],
        kernel => Kernel
    }).

by_websocket() -> [{carriers, [ws]}].

by_tls(Carrier) -> [{carriers, [Carrier]}, {insecure_proxy, true}].

peers(Node) -> call(Node, fun() -> nodes(connected) end).

rather_big() ->
    case everything() of
        true -> 100000000;
        false -> 1000000
    end.

%% The port that carries the connection.
ctrl(A, #{node := B}) ->
    call(A, fun() -> proplists:get_value(B, erlang:system_info(dist_ctrl)) end).

big(A, #{node := B}, Size) ->
    There = fun() -> rpc:call(B, erlang, byte_size, [binary:copy(<<"x">>, Size)]) end,
    Back = fun() -> byte_size(rpc:call(B, binary, copy, [<<"x">>, Size])) end,
    [?assertEqual(Size, call(A, Direction, 60000)) || Direction <- [There, Back]].

%% Web servers

%% The one of the group.
proxy(Config, Timeout) -> start_proxy(proplists:get_value(proxy, Config), Config, Timeout).

start_proxy(Name, Config, Timeout) ->
    Ports = #proxy{port = quic_dist_run:free_port(), tls_port = quic_dist_run:free_port()},
    start_proxy(Name, Config, Timeout, Ports).

start_proxy(Name, Config, Timeout, #proxy{port = Port, tls_port = TlsPort} = Proxy) ->
    Dir = filename:join(quic_dist_run:dir(), unique(atom_to_list(Name))),
    ok = file:make_dir(Dir),
    Site = site(Name, Config, [
        {"\\b" ?PORT "\\b", integer_to_list(Port)},
        {"\\b" ?TLS_PORT "\\b", integer_to_list(TlsPort)},
        {"\\b" ?NODES "\\b", integer_to_list(proplists:get_value(port, Config))},
        {"\\b" ?APPLICATION "\\b", integer_to_list(proplists:get_value(application, Config))},
        {"\\b" ?TIMEOUT "(?=s?$|s;)", Timeout},
        {"/etc/ssl/web.all.pem", both(Dir, Config)},
        {"/etc/ssl/web.pem", proplists:get_value(cert, Config)},
        {"/etc/ssl/web.key", proplists:get_value(key, Config)},
        {"web.example.org", ?HOST}
    ]),
    File = filename:join(Dir, ?FILE_NAME),
    ok = file:write_file(File, whole(Name, Site, Dir, Proxy)),
    Command = quic_dist_command:open(arguments(Name, File, Dir), #{
        exec => executable(Name),
        env => [{"HOME", Dir}, {"XDG_DATA_HOME", Dir}, {"XDG_CONFIG_HOME", Dir}]
    }),
    Open = [TlsPort] ++ [Port || Name =/= haproxy_passing],
    [wait_until({Name, File}, fun() -> listens(P, Command) end) || P <- Open],
    Proxy#proxy{command = Command}.

listens(Port, Command) ->
    case gen_tcp:connect(?HOST, Port, []) of
        {ok, Socket} -> gen_tcp:close(Socket) =:= ok;
        {error, Reason} -> {Reason, quic_dist_command:output(Command)}
    end.

stop(#proxy{command = Command}) ->
    ok = quic_dist_os:signal(quic_dist_command:os_pid(Command), term),
    %% Apache gives its processes time when it has closed their connections.
    {exit_status, _, _} = quic_dist_command:finish(Command, 20000),
    ok.

executable(apache) -> executable("apache2");
executable(haproxy_passing) -> executable(haproxy);
executable(Name) when is_atom(Name) -> executable(atom_to_list(Name));
executable(Name) -> os:find_executable(Name, os:getenv("PATH") ++ ":/usr/sbin").

%% The configuration on the page: the block that is marked with the name of its language.
site(Name, Config, Changes) ->
    Language =
        case Name of
            caddy -> "caddyfile";
            haproxy_passing -> "haproxy tls";
            _ -> atom_to_list(Name)
        end,
    Block = "^```" ++ Language ++ "\n(.*?)^```$",
    Options = [dotall, multiline, {capture, all_but_first, list}],
    {match, [Text]} = re:run(proplists:get_value(page, Config), Block, Options),
    lists:foldl(
        fun({What, By}, Site) ->
            re:replace(Site, What, By, [global, multiline, {return, list}])
        end,
        Text,
        Changes
    ).

both(Dir, Config) ->
    Texts = [
        begin
            {ok, Text} = file:read_file(proplists:get_value(Key, Config)),
            Text
        end
     || Key <- [cert, key]
    ],
    File = filename:join(Dir, "both.pem"),
    ok = file:write_file(File, Texts),
    File.

%% What stands around a site in a web server's own configuration.
whole(nginx, Site, Dir, _) ->
    [
        "daemon off; master_process off; error_log stderr; pid ", Dir, "/pid;\nevents {}\nhttp {\n",
        "access_log off;\n",
        [
            [Name, "_temp_path ", Dir, "/", Name, ";\n"]
         || Name <- ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        ],
        Site,
        "}\n"
    ];
whole(Name, Site, _, _) when Name =:= haproxy; Name =:= haproxy_passing ->
    Site;
whole(caddy, Site, _, #proxy{port = Port, tls_port = TlsPort}) ->
    io_lib:format("{\nadmin off\nhttp_port ~b\nhttps_port ~b\n}\n~ts", [Port, TlsPort, Site]);
whole(apache, Site, Dir, #proxy{port = Port, tls_port = TlsPort}) ->
    Modules = ["mpm_event", "authz_core", "socache_shmcb", "ssl", "proxy", "proxy_http"],
    [
        [
            ["LoadModule ", Name, "_module /usr/lib/apache2/modules/mod_", Name, ".so\n"]
         || Name <- Modules
        ],
        "ServerName " ?HOST "\nErrorLog /dev/stderr\nPidFile ", Dir, "/pid\n",
        "DefaultRuntimeDir ", Dir, "\nUser nobody\nGroup nogroup\n",
        io_lib:format("Listen ~b\nListen ~b\n", [Port, TlsPort]),
        Site
    ].

%% In the foreground.
arguments(nginx, File, Dir) -> ["-e", "stderr", "-p", Dir, "-c", File];
arguments(Name, File, _) when Name =:= haproxy; Name =:= haproxy_passing -> ["-db", "-f", File];
arguments(caddy, File, _) -> ["run", "--adapter", "caddyfile", "--config", File];
arguments(apache, File, Dir) -> ["-D", "FOREGROUND", "-d", Dir, "-f", File].

%% The application behind the proxy: it has one page.
application(Config) ->
    Port = proplists:get_value(application, Config),
    {ok, Listen} = gen_tcp:listen(Port, [binary, {active, false}, {packet, http_bin}]),
    _ = spawn_link(fun() -> serve(Listen) end),
    ok.

serve(Listen) ->
    {ok, Socket} = gen_tcp:accept(Listen),
    case answer(Socket, "404 Not Found") of
        {ok, Status} ->
            Head = ["HTTP/1.1 ", Status, "\r\nContent-Length: ", integer_to_list(length(?PAGE))],
            ok = gen_tcp:send(Socket, [Head, "\r\nConnection: close\r\n\r\n" ?PAGE]);
        {error, _} ->
            ok
    end,
    gen_tcp:close(Socket),
    serve(Listen).

answer(Socket, Status) ->
    case gen_tcp:recv(Socket, 0) of
        {ok, {http_request, 'GET', {abs_path, <<"/page">>}, _}} -> answer(Socket, "200 OK");
        {ok, http_eoh} -> {ok, Status};
        {ok, _} -> answer(Socket, Status);
        {error, _} = Error -> Error
    end.

get(Path, To) ->
    {Module, Socket} = open(To),
    Host = "\r\nHost: " ?HOST "\r\nConnection: close\r\n\r\n",
    ok = Module:send(Socket, ["GET ", Path, " HTTP/1.1", Host]),
    read_all(Module, Socket, <<>>).

open({tls, Port, Authority}) ->
    Options = [binary, {active, false}, {verify, verify_peer}, {cacertfile, Authority}],
    {ok, Socket} = ssl:connect(?HOST, Port, Options),
    {ssl, Socket};
open(Port) ->
    {ok, Socket} = gen_tcp:connect(?HOST, Port, [binary, {active, false}]),
    {gen_tcp, Socket}.

read_all(Module, Socket, Before) ->
    case Module:recv(Socket, 0, scale(10000)) of
        {ok, Bytes} -> read_all(Module, Socket, <<Before/binary, Bytes/binary>>);
        {error, closed} -> Before
    end.
