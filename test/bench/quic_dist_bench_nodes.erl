%% @doc Nodes that are measured, and the carriers between them.
%%
%% A carrier is a word: what `-proto_dist' takes, then settings of that carrier, with slashes
%% between. Those of `quic' are a data plane (`socket', `stdio'), what the option `streams' takes,
%% a number of connections, and one of lanes: `quic/bulk/4/lanes16'; `quic/local' has local links,
%% which the others have not, though both nodes are of one host. Those of `inet_tcp' and
%% `inet_tls' are `1.3', which allows that version of TLS only, and else a congestion control of
%% the kernel: `inet_tls/1.3/bbr'. That of `webdist' is `copy', where its sidecars copy and hand
%% nothing over, or a carrier of HTTP's other than an upgrade in clear: `webdist/https'.
-module(quic_dist_bench_nodes).

-export([certify/1, unavailable/1, start/4, stop/1, name/1, os_pids/1, call/4, on/3]).
-export_type([node_under_test/0]).

-define(TIMEOUT, 120000).

-record(node_under_test, {
    peer :: pid(),
    name :: node(),
    os_pids :: [string()]
}).

-opaque node_under_test() :: #node_under_test{}.

%% @doc Starts a node with `Args'; `Dir' is what `certify/1' has filled. `Options' of `peer' are
%% its host at least. It is not linked: a node that does not stay up is a failure of one measure.
-spec start(string(), [string()], file:filename(), #{atom() => term()}) -> node_under_test().
start(Carrier, Args, Dir, Options) ->
    {ok, Peer, Name} = peer:start(Options#{
        name => lists:concat(["b", os:getpid(), "x", erlang:unique_integer([positive])]),
        longnames => true,
        connection => standard_io,
        wait_boot => ?TIMEOUT,
        args =>
            arguments(Carrier, Dir) ++ Args ++ ["-setcookie", "bench", "-pa" | code_paths()] ++
                ["-kernel", "logger_level", "critical"]
    }),
    OsPids = [peer:call(Peer, os, getpid, []) | sidecars(Carrier, Peer)],
    #node_under_test{peer = Peer, name = Name, os_pids = OsPids}.

sidecars(Carrier, Peer) when hd(Carrier) =:= $q; hd(Carrier) =:= $w ->
    #{os_pid := OsPid} = peer:call(Peer, quic_dist, info, []),
    [integer_to_list(OsPid)];
sidecars(_, _) ->
    [].

%% @doc Ends a node, which may have ended already.
-spec stop(node_under_test()) -> ok.
stop(#node_under_test{peer = Peer}) ->
    try
        peer:stop(Peer)
    catch
        exit:_ -> ok
    end.

%% @doc The node's name.
-spec name(node_under_test()) -> node().
name(#node_under_test{name = Name}) -> Name.

%% @doc The process of the BEAM and, if the carrier has one, that of its sidecar.
-spec os_pids(node_under_test()) -> [string()].
os_pids(#node_under_test{os_pids = OsPids}) -> OsPids.

%% @doc Calls a function on the node, outside of the distribution.
-spec call(node_under_test(), module(), atom(), [term()]) -> term().
call(#node_under_test{peer = Peer}, Module, Function, Args) ->
    peer:call(Peer, Module, Function, Args, ?TIMEOUT).

%% @doc Calls a measure of `quic_dist_bench_node' on the node.
-spec on(node_under_test(), atom(), [term()]) -> term().
on(Node, Function, Args) ->
    call(Node, quic_dist_bench_node, run, [Function, Args]).

code_paths() ->
    [filename:dirname(code:which(M)) || M <- [?MODULE, quic_dist]].

%% @doc Why this carrier cannot be had here, or `false'.
-spec unavailable(string()) -> false | string().
unavailable(Carrier) ->
    [Protocol | Settings] = string:lexemes(Carrier, "/"),
    case setting_arguments(Protocol, Settings) of
        ["-quic_dist" | Flags] ->
            case quic_dist_config:check([{Carrier, quic_dist_source:flags(quic_dist, Flags)}]) of
                {ok, _} -> false;
                {error, Error} -> quic_dist_config:format_error(Error)
            end;
        ["-webdist" | _] ->
            case Settings -- ["copy", "ws", "https", "wss", "h2", "h3"] of
                [] -> false;
                [Unknown | _] -> "webdist has no setting " ++ Unknown
            end;
        _ ->
            _ = [os:cmd("modprobe tcp_" ++ Name) || Name <- congestion_controls(Settings)],
            {ok, Names} = file:read_file("/proc/sys/net/ipv4/tcp_available_congestion_control"),
            case congestion_controls(Settings) -- string:lexemes(binary_to_list(Names), " \n") of
                [] -> false;
                [Name | _] -> "this kernel has no TCP congestion control " ++ Name
            end
    end.

arguments(Carrier, Dir) ->
    [Protocol | Settings] = string:lexemes(Carrier, "/"),
    Tls = case lists:member("1.3", Settings) of true -> "tlsv1.3"; false -> "inet_tls" end,
    ["-proto_dist" | protocols(Protocol, Settings)] ++
        ["-ssl_dist_optfile", optfile(Dir, Tls)] ++ setting_arguments(Protocol, Settings).

%% HTTP/3 is at the UDP port of QUIC. The last is the one by which nodes are dialled.
protocols("webdist", ["h3"]) -> ["quic", "webdist"];
protocols(Protocol, _) -> [Protocol].

%% Options of TCP's sockets have no names in Erlang: 6 is IPPROTO_TCP, 13 TCP_CONGESTION.
setting_arguments("quic", Settings) ->
    Local =
        case lists:member("local", Settings) of
            true -> "auto";
            false -> "off"
        end,
    Others = [quic_option(Setting) || Setting <- Settings -- ["local"]],
    ["-quic_dist", "local_links", Local | lists:append(Others)];
setting_arguments("webdist", Settings) ->
    %% One that this run has to itself, for each carrier: they do not all speak the same.
    Which = string:str("ws https wss h2 h3", lists:append(Settings -- ["copy"])),
    Port = 20000 + 100 * (list_to_integer(os:getpid()) rem 90) + Which,
    HandOver = atom_to_list(not lists:member("copy", Settings)),
    ["-webdist", "port", integer_to_list(Port), "hand_over", HandOver] ++
        lists:append([web_carrier(Carrier, Port) || Carrier <- Settings -- ["copy"]]);
setting_arguments(_, Settings) ->
    lists:append([
        ["-kernel", "inet_dist_listen_options", Raw, "inet_dist_connect_options", Raw]
     || Name <- congestion_controls(Settings),
        Raw <- [lists:append(["[{raw,6,13,<<\"", Name, "\">>}]"])]
    ]).

%% The second of two nodes is dialled.
web_carrier("ws", _) ->
    ["carriers", "[ws]"];
web_carrier("h3", Port) ->
    [First, Second] = [integer_to_list(N) || N <- [Port + 10000, Port + 10001]],
    ["h3", "true", "listen", "[https]", "urls", "[{\"*\",\"h3://127.0.0.1:" ++ Second ++ "\"}]"] ++
        ["-quic_dist", "listen_port", "{" ++ First ++ "," ++ Second ++ "}"];
web_carrier(Carrier, _) ->
    ["carriers", "[" ++ Carrier ++ "]", "listen", "[https]"].

quic_option(Plane) when Plane =:= "socket"; Plane =:= "stdio" ->
    ["data_plane", Plane];
quic_option("lanes" ++ Count) ->
    ["lanes", Count];
quic_option(Setting) ->
    case string:to_integer(Setting) of
        {_, ""} -> ["connections", Setting];
        _ -> ["streams", Setting]
    end.

congestion_controls(Settings) -> Settings -- ["1.3"].

optfile(Dir, Name) -> filename:join(Dir, Name ++ ".conf").

%% @doc Writes a certificate and the options of inet_tls, which are otherwise its defaults, to
%% `Dir'. TLS 1.3 takes neither SHA-1 nor the curve that pkix_test_data takes unless told otherwise.
-spec certify(file:filename()) -> ok.
certify(Dir) ->
    Pem = filename:join(Dir, "bench.pem"),
    Cert = [{digest, sha256}, {key, {namedCurve, secp256r1}}],
    Chain = #{root => Cert, intermediates => [], peer => Cert},
    #{server_config := Config} =
        public_key:pkix_test_data(#{server_chain => Chain, client_chain => Chain}),
    {KeyType, Key} = proplists:get_value(key, Config),
    ok = file:write_file(
        Pem,
        public_key:pem_encode([
            {'Certificate', proplists:get_value(cert, Config), not_encrypted},
            {KeyType, Key, not_encrypted}
        ])
    ),
    lists:foreach(
        fun({Name, Versions}) ->
            Options = [
                {server, [{certfile, Pem} | Versions]},
                {client, [{verify, verify_none} | Versions]}
            ],
            ok = file:write_file(optfile(Dir, Name), io_lib:format("~tp.~n", [Options]))
        end,
        [{"inet_tls", []}, {"tlsv1.3", [{versions, ['tlsv1.3']}]}]
    ).
