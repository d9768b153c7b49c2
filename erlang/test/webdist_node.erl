%% @doc Nodes for the suites of webdist, and what connects them.
-module(webdist_node).

-export([self_hosted/3, self_hosted/4, webdist/2, webdist/3, webdist/4]).
-export([big/2, ctrl/2, tcp_lines/1]).

-include_lib("stdlib/include/assert.hrl").

-import(quic_dist_hooks, [port/1]).
-import(quic_dist_node, [call/2, start/1]).
-import(quic_dist_os, [descriptors/1]).

-type config() :: [{atom(), term()}].

%% @doc A node with the first webdist's command line: it is its own http-epmd, at the case's port.
-spec self_hosted(config(), Carrier :: atom(), Name :: string()) -> quic_dist_node:t().
self_hosted(Config, Carrier, Name) ->
    self_hosted(Config, Carrier, Name, []).

%% @doc self_hosted/3 with further arguments of erl.
-spec self_hosted(config(), Carrier :: atom(), Name :: string(), [string()]) -> quic_dist_node:t().
self_hosted(Config, Carrier, Name, Args) ->
    start(#{
        carrier => Carrier,
        name => {short, Name},
        args => ["-epmd_module", "webdist_epmd", "-s", "webdist_server" | Args],
        webdist => [{mode, router}, {port, port(Config)}]
    }).

%% @doc A node that connects by webdist, at the case's port.
-spec webdist(config(), Name :: string()) -> quic_dist_node:t().
webdist(Config, Name) -> webdist(Config, Name, []).

%% @doc webdist/2 with further options of webdist.
-spec webdist(config(), Name :: string(), [{atom(), term()}]) -> quic_dist_node:t().
webdist(Config, Name, Options) -> webdist(Config, Name, Options, []).

%% @doc webdist/3 with further arguments of erl.
-spec webdist(config(), Name :: string(), [{atom(), term()}], [string()]) -> quic_dist_node:t().
webdist(Config, Name, Options, Args) ->
    start(#{
        carrier => webdist,
        name => {short, Name},
        webdist => [{port, port(Config)} | Options],
        args => Args
    }).

%% @doc Asserts that 20 MB from one node come back whole from another one.
-spec big(quic_dist_node:t(), quic_dist_node:t()) -> ok.
big(A, #{node := B}) ->
    Size = 20000000,
    Bytes = call(A, fun() ->
        Sent = binary:copy(<<"x">>, Size),
        Sent =:= rpc:call(B, erlang, iolist_to_binary, [[Sent]])
    end),
    ?assert(Bytes).

%% @doc What carries the connection of the first node to the second one: a port.
-spec ctrl(quic_dist_node:t(), quic_dist_node:t()) -> port() | pid() | undefined.
ctrl(A, #{node := B}) ->
    call(A, fun() -> proplists:get_value(B, erlang:system_info(dist_ctrl)) end).

%% @doc Local and remote port of each established TCP socket of an operating system process, as
%% decimal text.
-spec tcp_lines(pos_integer()) -> [[string()]].
tcp_lines(OsPid) ->
    Inodes = socket_inodes(OsPid),
    [
        [port_of(Local), port_of(Remote)]
     || File <- ["/proc/net/tcp", "/proc/net/tcp6"],
        {ok, Text} <- [file:read_file(File)],
        Line <- tl(string:lexemes(binary_to_list(Text), "\n")),
        [_, Local, Remote, "01", _, _, _, _, _, Inode | _] <- [string:lexemes(Line, " ")],
        lists:member(Inode, Inodes)
    ].

port_of(Hex) ->
    [_, Port] = string:lexemes(Hex, ":"),
    integer_to_list(list_to_integer(Port, 16)).

socket_inodes(OsPid) ->
    [
        lists:droplast(Inode)
     || {_, "socket:[" ++ Inode} <- descriptors(OsPid)
    ].
