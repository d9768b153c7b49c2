%% @doc Our distribution over HTTP works with the first one, github.com/stolen/webdist of 2015,
%% unmodified: the client of each with the servers of the other.
%%
%% The environment variable QUIC_DIST_TEST_WEBDIST names a folder with the sources of `webdist', and
%% of what its server needs, as folders: `cowboy' (1.1.2), `cowlib' (1.0.2), `ranch' (1.3.2).
%% Without it the suite is skipped; the Go tests of internal/webdist have the requests by their
%% bytes.
-module(webdist_original_SUITE).

-export([all/0, suite/0, init_per_suite/1, end_per_suite/1]).
-export([
    its_client_our_proxy/1,
    its_client_our_router/1,
    its_client_our_self_hosted_node/1,
    its_client_our_webdist_node/1,
    its_client_what_is_not_there/1,
    our_client_its_proxy/1,
    our_client_its_proxy_by_connect/1,
    our_client_its_self_hosted_node/1
]).

-include_lib("stdlib/include/assert.hrl").

-import(quic_dist_hooks, [port/1]).
-import(quic_dist_node, [call/2, call/4, start/1]).
-import(quic_dist_run, [unique/1]).
-import(quic_dist_wait, [scale/1]).

suite() ->
    [{ct_hooks, [quic_dist_hooks]}, {timetrap, scale(60000)}].

all() ->
    [
        its_client_our_proxy,
        its_client_our_router,
        its_client_our_self_hosted_node,
        its_client_our_webdist_node,
        its_client_what_is_not_there,
        our_client_its_proxy,
        our_client_its_proxy_by_connect,
        our_client_its_self_hosted_node
    ].

init_per_suite(Config) ->
    case os:getenv("QUIC_DIST_TEST_WEBDIST") of
        false ->
            {skip, "QUIC_DIST_TEST_WEBDIST names no folder with the sources of 2015"};
        Sources ->
            Ebin = filename:join(quic_dist_run:dir(), "webdist_2015"),
            ok = file:make_dir(Ebin),
            lists:foreach(
                fun(Name) -> build(filename:join(Sources, Name), Sources, Ebin) end,
                ["cowlib", "ranch", "cowboy", "webdist"]
            ),
            ok = shim(Ebin),
            [{original, Ebin} | Config]
    end.

%% By erlc: these sources expect no later compiler. Behaviours come first.
build(Dir, Sources, Ebin) ->
    Files = filelib:wildcard(filename:join(Dir, "src/*.erl")),
    IsBehaviour = fun(File) ->
        {ok, Text} = file:read_file(File),
        binary:match(Text, <<"-callback">>) =/= nomatch
    end,
    {First, Rest} = lists:partition(IsBehaviour, Files),
    Options = [
        {outdir, Ebin}, {i, filename:join(Dir, "include")}, {i, Sources},
        {i, filename:join(Sources, "cowlib/include")}
    ],
    true = code:add_patha(Ebin),
    [{ok, _} = compile:file(File, Options) || File <- First ++ Rest],
    true = code:del_path(Ebin),
    [
        begin
            {ok, [{application, Name, Keys}]} = file:consult(App),
            Known = {application, Name, lists:keydelete(modules, 1, Keys)},
            Text = io_lib:format("~tp.~n", [Known]),
            File = filename:join(Ebin, atom_to_list(Name) ++ ".app"),
            ok = file:write_file(File, unicode:characters_to_binary(Text))
        end
     || Pattern <- ["src/*.app.src", "ebin/*.app"],
        App <- filelib:wildcard(filename:join(Dir, Pattern))
    ],
    ok.

%% Its epmd module predates the callbacks of OTP 19 and later: this one adds those and leaves
%% everything else to it.
shim(Ebin) ->
    Text =
        "-module(webdist_epmd_2015).\n"
        "-export([start_link/0, register_node/2, register_node/3, port_please/2, port_please/3]).\n"
        "start_link() -> webdist_epmd:start_link().\n"
        "register_node(Name, Port) -> register_node(Name, Port, inet).\n"
        "register_node(Name, Port, _) -> gen_server:call(erl_epmd, {register, Name, Port}).\n"
        "port_please(Name, Host) -> webdist_epmd:port_please(Name, Host).\n"
        "port_please(Name, Host, T) -> webdist_epmd:port_please(Name, Host, T).\n",
    File = filename:join(Ebin, "webdist_epmd_2015.erl"),
    ok = file:write_file(File, Text),
    {ok, _} = compile:file(File, [{outdir, Ebin}]),
    ok.

end_per_suite(_Config) ->
    ok.

%% A node of ours, by the seed's options.
ours(Config, Carrier, Name, Options, Args) ->
    start(#{
        carrier => Carrier,
        name => {short, Name},
        webdist => [{port, port(Config)} | Options],
        args => Args
    }).

%% A node with the modules of 2015, which have our modules' names.
theirs(Config, Carrier, Name, Args) ->
    start(#{
        carrier => Carrier,
        name => {short, Name},
        args => Args ++ ["-pa", proplists:get_value(original, Config)],
        webdist => [{port, port(Config)}]
    }).

%% A VM without distribution.
with_proxy(Config, Ebin, Ready, Fun) ->
    Port = integer_to_list(port(Config)),
    Args = ["-noshell", "-pa", Ebin, "-webdist", "port", Port, "-s", "webdist_server", "-eval",
        Ready ++ " io:format(\"ready~n\"), \"end\\n\" = io:get_line(\"\"), halt()"],
    Command = quic_dist_command:open(Args, #{}),
    [] = quic_dist_command:expect(Command, "ready", 15000),
    Fun(),
    ok = quic_dist_command:enter(Command, "end\n"),
    {exit_status, 0, _} = quic_dist_command:finish(Command, 15000).

our_proxy(Config, Fun) ->
    Holding = "{ok, #{state := holding}} = webdist_server:info(),",
    with_proxy(Config, quic_dist_run:ebin(), Holding, Fun).

their_proxy(Config, Fun) ->
    with_proxy(Config, proplists:get_value(original, Config), "", Fun).

their_client(Config) ->
    Client = theirs(Config, webdist, unique("hello"), []),
    Which = call(Client, code, which, [webdist_dist]),
    ?assertNotEqual(nomatch, string:find(Which, "webdist_2015")),
    Client.

our_client(Config, Options) ->
    ours(Config, webdist, unique("hello"), Options, []).

talk(Client, #{node := Node}) ->
    case call(Client, net_adm, ping, [Node]) of
        pong -> ok;
        pang -> error({pang, quic_dist_node:log(Client)})
    end,
    Big = call(Client, fun() ->
        Sent = binary:copy(<<"x">>, 20000000),
        Sent =:= rpc:call(Node, erlang, iolist_to_binary, [[Sent]])
    end),
    ?assert(Big).

%% Its client reaches a stock node through our proxy.
its_client_our_proxy(Config) ->
    our_proxy(Config, fun() ->
        World = start(#{carrier => inet_tcp, name => {short, unique("world")}}),
        talk(their_client(Config), World)
    end).

%% Its client reaches the second of two nodes, through the first one's port.
its_client_our_router(Config) ->
    Args = ["-epmd_module", "webdist_epmd", "-s", "webdist_server"],
    _ = ours(Config, inet_tcp, unique("first"), [{mode, router}], Args),
    World = ours(Config, inet6_tcp, unique("world"), [{mode, router}], Args),
    talk(their_client(Config), World).

%% Its client reaches a self-hosted node of ours.
its_client_our_self_hosted_node(Config) ->
    Args = ["-epmd_module", "webdist_epmd", "-s", "webdist_server"],
    talk(their_client(Config), ours(Config, inet6_tcp, unique("world"), [{mode, router}], Args)).

%% Its client reaches a node that has webdist for a carrier.
its_client_our_webdist_node(Config) ->
    talk(their_client(Config), ours(Config, webdist, unique("world"), [], [])).

%% Its client gets an answer for a node that is not there.
its_client_what_is_not_there(Config) ->
    #{node := World} = ours(Config, webdist, unique("world"), [], []),
    [_, Host] = string:lexemes(atom_to_list(World), "@"),
    Client = their_client(Config),
    ?assertEqual(pang, call(Client, net_adm, ping, [list_to_atom("nobody@" ++ Host)])),
    ?assertEqual(pong, call(Client, net_adm, ping, [World])).

%% Our client reaches a stock node through its proxy, which does not know whole names.
our_client_its_proxy(Config) ->
    their_proxy(Config, fun() ->
        World = start(#{carrier => inet_tcp, name => {short, unique("world")}}),
        talk(our_client(Config, []), World)
    end).

%% Our client reaches a node through its proxy by its own form of the request.
our_client_its_proxy_by_connect(Config) ->
    their_proxy(Config, fun() ->
        World = start(#{carrier => inet_tcp, name => {short, unique("world")}}),
        talk(our_client(Config, [{method, connect}]), World)
    end).

%% Our client reaches its self-hosted node.
our_client_its_self_hosted_node(Config) ->
    Router = ["-webdist", "mode", "router"],
    Args = ["-epmd_module", "webdist_epmd_2015", "-s", "webdist_server" | Router],
    World = theirs(Config, inet6_tcp, unique("world"), Args),
    talk(our_client(Config, []), World).
