%% @doc Nodes for tests: starts them, talks to them past the distribution under test, and ends them
%% for sure.
%%
%% The test VM itself is not distributed. `peer' starts its nodes, and the control connection is the
%% standard input and output of the node. A boot that fails then says so at once and on our
%% terminal. A node that is controlled over TCP is detached, and its failed boot only times out;
%% `connection => 0' selects that all the same.
-module(quic_dist_node).

-export([start/1, stop/1, stop_all/0, default_name_args/1]).
-export([call/2, call/3, call/4, cast/2, cast/4, tell/2]).
-export([connect/2, connects/2, disconnect/2, ping/2, ping_both_ways/2, pang/3]).
-export([name/1, info/1, listens/1, sidecar/1, next_sidecar/3]).
-export([log/1, log_lines/2, wait_log/3]).
%% A node's log handler
-export([log/2]).
-export_type([t/0, start_options/0, name/0]).

-import(quic_dist_os, [alive/1, os_processes/0, signal/2]).
-import(quic_dist_wait, [scale/1, wait_until/2, wait_until/3]).

-type carrier() :: quic | webdist | inet_tcp | inet6_tcp.

-type name() ::
    %% `numbered' for quic, a unique long name at 127.0.0.1 for inet_tcp
    auto
    %% `<free UDP port>@127.0.0.1' with `-name ... -no_epmd'
    | numbered
    %% the same with another host part
    | {numbered, Host :: string()}
    %% `-name Name'; with or without a host part
    | {long, string()}
    %% `-sname Name'
    | {short, string()}
    %% neither: the test starts distribution itself, or `args' hold it
    | none.

-type start_options() :: #{
    carrier => carrier() | [carrier()],
    name => name(),
    cookie => atom(),
    %% Further arguments of erl, after all others.
    args => [string()],
    %% `-quic_dist Key Value'. Without local_links that is off: nodes of one host are to use QUIC.
    %% `{local_links, none}': there is no such option.
    quic_dist => [{atom(), term()}],
    %% `-webdist Key Value'
    webdist => [{atom(), term()}],
    %% `-kernel Key Value'
    kernel => [{atom(), term()}],
    env => [{string(), string() | false}],
    connection => standard_io | 0,
    %% Everything from this level on goes to log/1; default notice.
    log_level => logger:level(),
    wait_boot => timeout(),
    %% Default: the erl of this OTP.
    exec => file:filename() | {file:filename(), [string()]},
    %% Code paths beyond those of this library and these tests.
    paths => [file:filename()],
    %% For quic_dist_run:live/1; default `none'.
    owner => term()
}.

-type t() :: #{
    peer := pid(),
    %% Its name when it had booted.
    node := node(),
    %% The BEAM's operating system process.
    os_pid := pos_integer(),
    log_file := file:filename(),
    carrier := carrier() | [carrier()]
}.

%% Starting and ending

%% @doc Starts a node and waits until it has booted. If it does not, exits with
%% `{boot_failed, Reason}' or `timeout'. The node lives until stop/1 or stop_all/0, also beyond the
%% process that started it.
-spec start(start_options()) -> t().
start(Options) ->
    Carrier = maps:get(carrier, Options, quic),
    Id = quic_dist_run:unique("node"),
    LogFile = filename:join(quic_dist_run:dir(), Id ++ ".log"),
    Paths = maps:get(paths, Options, []) ++ quic_dist_run:paths(),
    PeerOptions = #{
        exec => maps:get(exec, Options, quic_dist_run:erl()),
        connection => maps:get(connection, Options, standard_io),
        wait_boot => maps:get(wait_boot, Options, scale(30000)),
        env => quic_dist_run:environment(maps:get(env, Options, [])),
        args => lists:append([
            emulator_args(),
            ["-setcookie", atom_to_list(maps:get(cookie, Options, quic_dist_run:cookie()))],
            carrier_args(Carrier),
            name_args(Carrier, maps:get(name, Options, auto)),
            lists:append([["-pa", Path] || Path <- Paths]),
            log_args(LogFile, maps:get(log_level, Options, notice)),
            option_args("-kernel", setup_time(maps:get(kernel, Options, []))),
            option_args("-quic_dist", over_quic(maps:get(quic_dist, Options, []))),
            option_args("-webdist", maps:get(webdist, Options, [])),
            maps:get(args, Options, [])
        ])
    },
    {Peer, Node} =
        case peer:start(PeerOptions) of
            {ok, Pid, Name} -> {Pid, Name};
            {ok, Pid} -> {Pid, node_of(Pid)}
        end,
    OsPid = list_to_integer(peer:call(Peer, os, getpid, [], scale(15000))),
    Started = #{
        peer => Peer, node => Node, os_pid => OsPid, log_file => LogFile, carrier => Carrier
    },
    ok = quic_dist_run:started(maps:get(owner, Options, none), Started),
    Started.

node_of(Peer) -> peer:call(Peer, erlang, node, [], scale(15000)).

%% The time in which nodes must connect is a deadline, too. It has seconds.
setup_time(Kernel) ->
    case {lists:keymember(net_setuptime, 1, Kernel), min(120, scale(7000) div 1000)} of
        {false, Seconds} when Seconds =/= 7 -> [{net_setuptime, Seconds} | Kernel];
        _ -> Kernel
    end.

%% Two schedulers that do not spin: others use this machine too.
emulator_args() ->
    ["+S", "2:2", "+sbwt", "none", "+sbwtdcpu", "none", "+sbwtdio", "none"].

%% None: `args' hold it.
carrier_args([]) ->
    [];
carrier_args(Carriers) when is_list(Carriers) ->
    ["-proto_dist" | [atom_to_list(Carrier) || Carrier <- Carriers]];
carrier_args(Carrier) ->
    carrier_args([Carrier]).

%% @doc The arguments that name a node of this carrier in the way `auto' does.
-spec default_name_args(carrier()) -> [string()].
default_name_args(quic) -> name_args(quic, numbered);
default_name_args(inet_tcp) ->
    name_args(inet_tcp, {long, quic_dist_run:unique("node") ++ "@127.0.0.1"}).

name_args(inet_tcp, auto) -> default_name_args(inet_tcp);
name_args(_, auto) -> default_name_args(quic);
name_args(_, numbered) -> name_args(quic, {numbered, "127.0.0.1"});
name_args(_, {numbered, Host}) ->
    ["-name", integer_to_list(quic_dist_run:free_port()) ++ "@" ++ Host, "-no_epmd"];
name_args(_, {long, Name}) -> ["-name", Name];
name_args(_, {short, Name}) -> ["-sname", Name];
name_args(_, none) -> [].

log_args(File, Level) ->
    Formatter = {logger_formatter, #{single_line => true, template => [level, " ", msg, "\n"]}},
    Handler = {handler, default, ?MODULE, #{config => #{file => File}, formatter => Formatter}},
    option_args("-kernel", [{logger_level, Level}, {logger, [Handler]}]).

over_quic(Options) ->
    case lists:keytake(local_links, 1, Options) of
        {value, {_, none}, Others} -> Others;
        {value, _, _} -> Options;
        false -> [{local_links, off} | Options]
    end.

option_args(Flag, Options) ->
    lists:append([
        [Flag, atom_to_list(Key), lists:flatten(io_lib:format("~0tp", [Value]))]
     || {Key, Value} <- Options
    ]).

%% @doc Ends a node, also one that is stopped (SIGSTOP), that hangs, or that has ended already, and
%% waits until its operating system process is gone.
-spec stop(t()) -> ok.
stop(#{peer := Peer, os_pid := OsPid} = Node) ->
    signal(OsPid, cont),
    try
        peer:stop(Peer)
    catch
        exit:_ -> ok
    end,
    kill_unless_gone([OsPid]),
    quic_dist_run:stopped(Node).

%% @doc Ends all nodes that live, then all other processes of this run but epmd: sidecars that
%% should have ended with their nodes, commands. Returns the command lines of those that had to be
%% killed, which is [] unless something is wrong or a test left it so.
-spec stop_all() -> [string()].
stop_all() ->
    lists:foreach(fun stop/1, quic_dist_run:live()),
    Left = fun() -> [P || {_, Line} = P <- os_processes(), not is_epmd(Line)] end,
    lists:foreach(fun({Pid, _}) -> signal(Pid, cont) end, Left()),
    try
        wait_until(leftovers, fun() -> Left() =:= [] end, 3000)
    catch
        error:{timeout, _, _} -> ok
    end,
    Killed = Left(),
    lists:foreach(fun({Pid, _}) -> signal(Pid, kill) end, Killed),
    [Line || {_, Line} <- Killed].

is_epmd(Line) -> re:run(Line, "epmd .*-daemon") =/= nomatch.

kill_unless_gone(OsPids) ->
    Left = fun() -> [Pid || Pid <- OsPids, alive(Pid)] end,
    try
        wait_until({gone, OsPids}, fun() -> Left() =:= [] end, 5000)
    catch
        error:{timeout, _, _} ->
            lists:foreach(fun(Pid) -> signal(Pid, kill) end, Left()),
            wait_until({killed, OsPids}, fun() -> Left() =:= [] end)
    end.

%% Talking to nodes

%% @doc Runs a fun on the node. Its module has to be on the node's code path, as all modules
%% beside this one are. Exceptions come through. Takes at most 30 seconds (before scaling).
-spec call(t(), fun(() -> Result)) -> Result.
call(Node, Fun) -> call(Node, Fun, 30000).

%% @doc call/2 with another bound, in ms before scaling.
-spec call(t(), fun(() -> Result), timeout()) -> Result.
call(#{peer := Peer}, Fun, Timeout) ->
    peer:call(Peer, erlang, apply, [Fun, []], scale(Timeout)).

%% @doc Calls a function on the node, as call/2.
-spec call(t(), module(), atom(), [term()]) -> term().
call(#{peer := Peer}, M, F, A) -> peer:call(Peer, M, F, A, scale(30000)).

%% @doc Starts a fun on the node and does not wait for it. A failure is not reported.
-spec cast(t(), fun(() -> term())) -> ok.
cast(Node, Fun) -> cast(Node, erlang, apply, [Fun, []]).

%% @doc Starts a call and does not wait for it.
-spec cast(t(), module(), atom(), [term()]) -> ok.
cast(#{peer := Peer}, M, F, A) -> peer:cast(Peer, M, F, A).

%% @doc Called on a node: sends a message to a process of the test VM.
-spec tell(pid(), term()) -> ok.
tell(Pid, Message) ->
    user ! {message, Pid, Message},
    ok.

%% @doc Connects `Node' to `To'; fails if that fails.
-spec connect(t(), t() | node()) -> ok.
connect(Node, #{node := To}) ->
    connect(Node, To);
connect(Node, To) ->
    case call(Node, net_kernel, connect_node, [To]) of
        true -> ok;
        Other -> error({not_connected, maps:get(node, Node), To, Other, log(Node)})
    end.

%% @doc Ends the link of one node to another, and waits until both know. The dialled node learns
%% later than the dialler that a link is up, and OTP's global now and then connects again.
-spec disconnect(t(), t()) -> ok.
disconnect(#{node := Name} = Node, #{node := To} = Other) ->
    Seen = fun() ->
        {
            lists:member(To, call(Node, erlang, nodes, [connected])),
            lists:member(Name, call(Other, erlang, nodes, [connected]))
        }
    end,
    wait_until({connected, Name, To}, fun() ->
        Both = Seen(),
        Both =:= {true, true} orelse Both
    end),
    true = call(Node, erlang, disconnect_node, [To]),
    wait_until({disconnected, Name, To}, fun() ->
        _ = call(Node, erlang, disconnect_node, [To]),
        Both = Seen(),
        Both =:= {false, false} orelse Both
    end).

%% @doc net_adm:ping of the first node for the second one.
-spec ping(t(), t() | node()) -> pong | pang.
ping(Node, #{node := To}) -> ping(Node, To);
ping(Node, To) -> call(Node, net_adm, ping, [To]).

%% @doc Asserts that each of two nodes, which know no others, reaches the other one, on a connection
%% of its own.
-spec ping_both_ways(t(), t()) -> ok.
ping_both_ways(#{node := NodeA} = A, #{node := NodeB} = B) ->
    pong = ping(A, NodeB),
    true = call(A, erlang, disconnect_node, [NodeB]),
    wait_until(disconnected, fun() -> call(B, erlang, nodes, [connected]) =:= [] end),
    pong = ping(B, NodeA),
    [NodeA] = call(B, erlang, nodes, []),
    ok.

%% @doc Asserts that a ping fails, and within so many ms (before scaling).
-spec pang(t(), t() | node(), timeout()) -> ok.
pang(Node, To, Within) ->
    case timer:tc(fun() -> ping(Node, To) end) of
        {Took, pang} -> quic_dist_wait:within(Within, Took div 1000, {ping, To});
        {_, pong} -> error({connected, maps:get(node, Node), To})
    end.

%% @doc Connects two nodes whose set-up time may be too short on a busy machine, because deriving
%% keys takes time: tries again for ten seconds.
-spec connects(t(), t()) -> ok.
connects(Node, #{node := To}) ->
    wait_until({connected, To}, fun() -> ping(Node, To) =:= pong end).

%% Asking

%% @doc The node's name when it had booted.
-spec name(t()) -> node().
name(#{node := Name}) -> Name.

%% @doc quic_dist:info() of the node.
-spec info(t()) -> map().
info(Node) -> call(Node, quic_dist, info, []).

%% @doc The operating system process of the node's sidecar, once it is up.
-spec sidecar(t()) -> pos_integer().
sidecar(Node) ->
    wait_until({sidecar, Node}, fun() ->
        case info(Node) of
            #{state := up, os_pid := OsPid} when is_integer(OsPid) -> {ok, OsPid};
            Other -> Other
        end
    end).

%% @doc The sidecar that has replaced the one with this process, within so many ms (before scaling)
%% from now.
-spec next_sidecar(t(), pos_integer(), timeout()) -> pos_integer().
next_sidecar(Node, OsPid, Within) ->
    wait_until(
        {next_sidecar, Node},
        fun() ->
            case info(Node) of
                #{state := up, os_pid := Next} when Next =/= OsPid -> {ok, Next};
                Other -> Other
            end
        end,
        Within
    ).

%% @doc The address and UDP port at which the node's sidecar listens.
-spec listens(t()) -> {inet:ip_address(), inet:port_number()} | undefined.
listens(Node) -> maps:get(listen, info(Node)).

%% Logs

%% @doc What the node has logged until now, one event a line (`level text'). Also after its end.
-spec log(t()) -> string().
log(#{log_file := File}) ->
    case file:read_file(File) of
        {ok, Text} -> unicode:characters_to_list(Text);
        {error, enoent} -> ""
    end.

%% @private The log handler of our nodes. The process that logs writes, so that the log of an event
%% is there when a test sees the event; and it does not wait for a disk.
-spec log(logger:log_event(), logger:handler_config()) -> ok.
log(Event, #{config := #{file := File}, formatter := {Module, Config}}) ->
    Line = unicode:characters_to_binary(Module:format(Event, Config)),
    ok = file:write_file(File, Line, [append, raw]).

%% @doc The log lines that match.
-spec log_lines(t(), Regexp :: iodata()) -> [string()].
log_lines(Node, Regexp) ->
    [Line || Line <- string:lexemes(log(Node), "\n"), re:run(Line, Regexp, [unicode]) =/= nomatch].

%% @doc Waits until a log line matches; returns those that do. `Timeout' in ms before scaling.
-spec wait_log(t(), Regexp :: iodata(), timeout()) -> [string()].
wait_log(Node, Regexp, Timeout) ->
    wait_until(
        {log, Regexp},
        fun() ->
            case log_lines(Node, Regexp) of
                [] -> log(Node);
                Lines -> {ok, Lines}
            end
        end,
        Timeout
    ).
