%% @doc Nodes for tests: starts them, talks to them past the distribution under test, watches their
%% sidecars, and ends them for sure.
%%
%% The test VM itself is not distributed. Its nodes are started by `peer', whose control connection
%% is the standard input and output of the node: a boot that fails then says so at once and on our
%% terminal, where a node controlled over TCP is detached and only times out (`connection => 0'
%% selects that all the same). Whatever is started here, sidecars and epmd included, inherits an
%% environment variable with this run's mark, by which it is found and ended.
%%
%% Deadlines are multiplied by QUIC_DIST_TEST_SCALE (a number, default 1).
-module(quic_dist_node).

-export([start/1, stop/1, stop_all/0, end_case/1, end_run/0]).
-export([call/2, call/3, call/4, cast/2, cast/4, tell/2, connect/2, disconnect/2]).
-export([default_name_args/1]).
-export([run/2, open/2, enter/2, expect/3, finish/2, output/1, os_pid/1]).
-export([scale/1, wait_until/2, wait_until/3, settled/3, flush/0]).
-export([info/1, sidecar/1, alive/1, signal/2, os_processes/0, sidecars/0]).
-export([udp_sockets/0, udp_sockets/1]).
-export([log/1, log_lines/2, wait_log/3]).
%% A node's log handler
-export([log/2]).
-export([unique/1, free_port/0, ebin/0, executable/0, paths/0, cookie/0, dir/0, erl/0]).
-export([certificates/1]).
-export_type([t/0, start_options/0, name/0, command/0]).

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
    %% `-quic_dist Key Value'
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
    %% Default: erl/0.
    exec => file:filename() | {file:filename(), [string()]},
    %% Code paths beyond those of this library and these tests.
    paths => [file:filename()]
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

-type command_options() :: #{
    env => [{string(), string() | false}],
    %% For run/2: milliseconds before scaling, default 15000.
    timeout => timeout(),
    %% Default: erl/0.
    exec => file:filename(),
    cd => file:filename()
}.

-opaque command() :: {command, port(), OsPid :: pos_integer(), reference()}.
%% A program whose input we write and whose output we collect.

-define(MARK, "QUIC_DIST_TEST_RUN").
-define(REGISTRY, quic_dist_node_registry).
-define(CURVE, {namedCurve, secp256r1}).

%% Starting and ending

%% @doc Starts a node and waits until it has booted. If it does not, exits with
%% `{boot_failed, Reason}' or `timeout'. The node lives until stop/1 or stop_all/0, also beyond the
%% process that started it.
-spec start(start_options()) -> t().
start(Options) ->
    Carrier = maps:get(carrier, Options, quic),
    Id = unique("node"),
    LogFile = filename:join(dir(), Id ++ ".log"),
    PeerOptions = #{
        exec => maps:get(exec, Options, erl()),
        connection => maps:get(connection, Options, standard_io),
        wait_boot => maps:get(wait_boot, Options, scale(30000)),
        env => environment_of(Options),
        args => lists:append([
            emulator_args(),
            ["-setcookie", atom_to_list(maps:get(cookie, Options, cookie()))],
            carrier_args(Carrier),
            name_args(Carrier, maps:get(name, Options, auto)),
            lists:append([["-pa", Path] || Path <- maps:get(paths, Options, []) ++ paths()]),
            log_args(LogFile, maps:get(log_level, Options, notice)),
            option_args("-kernel", maps:get(kernel, Options, [])),
            option_args("-quic_dist", maps:get(quic_dist, Options, [])),
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
    registry({started, Started}),
    Started.

node_of(Peer) -> peer:call(Peer, erlang, node, [], scale(15000)).

%% The epmd is our own: a run neither meets others' names nor leaves its epmd behind. Flags meant
%% for the test VM are not for the nodes. Of two values for a variable the later counts.
environment_of(Options) ->
    [{Name, false} || Name <- ["ERL_FLAGS", "ERL_AFLAGS", "ERL_ZFLAGS", "ERL_LIBS"]] ++ [
        {?MARK, mark()},
        {"ERL_EPMD_PORT", integer_to_list(registry(epmd_port))},
        {"ERL_CRASH_DUMP_BYTES", "0"},
        {"QUICDISTD_DUMPABLE", dumpable()}
        | maps:get(env, Options, [])
    ].

%% Sidecars are found by their environment, which those that keep their memory to themselves show
%% to root alone.
dumpable() ->
    case os:cmd("id -u") of
        "0\n" -> false;
        _ -> "yes"
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
default_name_args(inet_tcp) -> name_args(inet_tcp, {long, unique("node") ++ "@127.0.0.1"}).

name_args(inet_tcp, auto) -> default_name_args(inet_tcp);
name_args(_, auto) -> default_name_args(quic);
name_args(_, numbered) -> name_args(quic, {numbered, "127.0.0.1"});
name_args(_, {numbered, Host}) ->
    ["-name", integer_to_list(free_port()) ++ "@" ++ Host, "-no_epmd"];
name_args(_, {long, Name}) -> ["-name", Name];
name_args(_, {short, Name}) -> ["-sname", Name];
name_args(_, none) -> [].

log_args(File, Level) ->
    Formatter = {logger_formatter, #{single_line => true, template => [level, " ", msg, "\n"]}},
    Handler = {handler, default, ?MODULE, #{config => #{file => File}, formatter => Formatter}},
    option_args("-kernel", [{logger_level, Level}, {logger, [Handler]}]).

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
    registry({stopped, Node}).

%% @doc Ends all nodes that live, then all other processes of this run but epmd: sidecars that
%% should have ended with their nodes, commands. Returns the command lines of those that had to be
%% killed, which is [] unless something is wrong or a test left it so.
-spec stop_all() -> [string()].
stop_all() ->
    lists:foreach(fun stop/1, registry(nodes)),
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

%% @doc For end_per_testcase: stop_all/0. A case that passed fails if something had to be killed.
-spec end_case([{atom(), term()}]) -> ok | {fail, {had_to_be_killed, [string()]}}.
end_case(Config) ->
    case {stop_all(), proplists:get_value(tc_status, Config)} of
        {[_ | _] = Killed, ok} -> {fail, {had_to_be_killed, Killed}};
        _ -> ok
    end.

%% @doc For end_per_suite: stop_all/0, then ends the epmd that our nodes started, and removes dir/0.
-spec end_run() -> ok.
end_run() ->
    _ = stop_all(),
    lists:foreach(fun({Pid, _}) -> signal(Pid, kill) end, os_processes()),
    _ = file:del_dir_r(dir()),
    ok.

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

%% @doc Starts a fun on the node and does not wait for it. If it fails nobody is told.
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

%% @doc Ends the link of one node to another, and waits until both know. Who is dialled learns later
%% than the dialler that a link is up, and OTP's global now and then connects again what has been
%% disconnected.
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

%% Commands

%% @doc Runs `erl' with exactly these arguments until it ends. Its output is standard output and
%% error; its standard input is open and empty.
-spec run([string()], command_options()) ->
    {exit_status, non_neg_integer(), string()} | {timeout, string()}.
run(Args, Options) ->
    Command = open(Args, Options),
    finish(Command, maps:get(timeout, Options, 15000)).

%% @doc Starts `erl', or what `exec' names, for enter/2, expect/3 and finish/2, which only the
%% caller may use.
-spec open([string()], command_options()) -> command().
open(Args, Options) ->
    Port = open_port(
        {spawn_executable, maps:get(exec, Options, erl())},
        [
            {args, Args},
            {env, environment_of(Options)},
            {cd, maps:get(cd, Options, dir())},
            exit_status,
            stderr_to_stdout,
            binary,
            hide
        ]
    ),
    {os_pid, OsPid} = erlang:port_info(Port, os_pid),
    Ref = make_ref(),
    put(Ref, <<>>),
    {command, Port, OsPid, Ref}.

%% @doc The command's operating system process, for signal/2.
-spec os_pid(command()) -> pos_integer().
os_pid({command, _, OsPid, _}) -> OsPid.

%% @doc Writes to the command's standard input.
-spec enter(command(), iodata()) -> ok.
enter({command, Port, _, _}, Text) ->
    true = port_command(Port, Text),
    ok.

%% @doc Waits until the output matches, and returns what was captured. Output up to the end of
%% the match is used up. `Timeout' in ms before scaling.
-spec expect(command(), Regexp :: iodata(), timeout()) -> [string()].
expect(Command, Regexp, Timeout) -> expect_until(Command, Regexp, deadline(Timeout)).

expect_until({command, Port, _, Ref} = Command, Regexp, Deadline) ->
    Output = get(Ref),
    case re:run(Output, Regexp, [multiline, {capture, all, index}]) of
        {match, [{From, Length} | Groups]} ->
            <<_:(From + Length)/binary, Rest/binary>> = Output,
            put(Ref, Rest),
            [binary_to_list(binary:part(Output, Part)) || {S, _} = Part <- Groups, S >= 0];
        nomatch ->
            receive
                {Port, {data, Data}} ->
                    put(Ref, <<Output/binary, Data/binary>>),
                    expect_until(Command, Regexp, Deadline);
                {Port, {exit_status, Status}} ->
                    error({ended, Status, binary_to_list(Output)})
            after left(Deadline) ->
                error({timeout, Regexp, binary_to_list(Output)})
            end
    end.

%% @doc Waits until the command ends; kills it if it does not. `Timeout' in ms before scaling.
-spec finish(command(), timeout()) ->
    {exit_status, non_neg_integer(), string()} | {timeout, string()}.
finish(Command, Timeout) -> finish_until(Command, deadline(Timeout)).

finish_until({command, Port, OsPid, Ref} = Command, Deadline) ->
    receive
        {Port, {data, Data}} ->
            put(Ref, <<(get(Ref))/binary, Data/binary>>),
            finish_until(Command, Deadline);
        {Port, {exit_status, Status}} ->
            {exit_status, Status, binary_to_list(erase(Ref))}
    after left(Deadline) ->
        signal(OsPid, kill),
        receive {Port, {exit_status, _}} -> ok end,
        {timeout, binary_to_list(erase(Ref))}
    end.

%% @doc What the command has written that no expect/3 has used up.
-spec output(command()) -> string().
output({command, Port, _, Ref} = Command) ->
    receive
        {Port, {data, Data}} ->
            put(Ref, <<(get(Ref))/binary, Data/binary>>),
            output(Command)
    after 0 ->
        binary_to_list(get(Ref))
    end.

%% Waiting

%% @doc Milliseconds, times QUIC_DIST_TEST_SCALE.
-spec scale(timeout()) -> timeout().
scale(infinity) ->
    infinity;
scale(Milliseconds) ->
    case os:getenv("QUIC_DIST_TEST_SCALE") of
        false -> Milliseconds;
        Text ->
            Factor =
                case string:to_float(Text) of
                    {error, no_float} -> list_to_integer(Text);
                    {Float, _} -> Float
                end,
            round(Milliseconds * Factor)
    end.

%% @doc wait_until/3 with ten seconds.
-spec wait_until(What :: term(), fun(() -> boolean() | {ok, Value})) -> ok | Value.
wait_until(What, Fun) -> wait_until(What, Fun, 10000).

%% @doc Asks again and again until the answer is `true' or `{ok, Value}'. Fails with
%% `{timeout, What, LastAnswer}' after `Timeout' ms (before scaling). For what sends no event.
-spec wait_until(What :: term(), fun(() -> boolean() | {ok, Value} | term()), timeout()) ->
    ok | Value.
wait_until(What, Fun, Timeout) -> poll(What, Fun, deadline(Timeout)).

poll(What, Fun, Deadline) ->
    case Fun() of
        true -> ok;
        {ok, Value} -> Value;
        Other ->
            case left(Deadline) of
                0 -> error({timeout, What, Other});
                _ ->
                    receive after 20 -> ok end,
                    poll(What, Fun, Deadline)
            end
    end.

%% @doc Asserts that a condition holds now and goes on holding for `Time' ms (not scaled).
-spec settled(What :: term(), fun(() -> boolean()), non_neg_integer()) -> ok.
settled(What, Fun, Time) -> settled_until(What, Fun, erlang:monotonic_time(millisecond) + Time).

settled_until(What, Fun, Deadline) ->
    case Fun() of
        true ->
            case left(Deadline) of
                0 -> ok;
                _ ->
                    receive after 20 -> ok end,
                    settled_until(What, Fun, Deadline)
            end;
        Other ->
            error({not_settled, What, Other})
    end.

deadline(Timeout) -> erlang:monotonic_time(millisecond) + scale(Timeout).

left(Deadline) -> max(0, Deadline - erlang:monotonic_time(millisecond)).

%% @doc All messages in the caller's mailbox, which is empty afterwards.
-spec flush() -> [term()].
flush() ->
    receive
        Message -> [Message | flush()]
    after 0 -> []
    end.

%% The operating system

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

%% @doc Does this operating system process of our run live (or is stopped)? A zombie does not, and a
%% stranger who has got the number of one that has ended is none of ours.
-spec alive(pos_integer()) -> boolean().
alive(OsPid) ->
    Name = integer_to_list(OsPid),
    case file:read_file("/proc/" ++ Name ++ "/stat") of
        {ok, Stat} ->
            %% The name is in parentheses and may hold any byte.
            [_, <<" ", State, _/binary>>] = string:split(Stat, ")", trailing),
            State =/= $Z andalso State =/= $X andalso is_ours(Name);
        {error, _} ->
            false
    end.

is_ours(Name) ->
    lists:member(list_to_binary(?MARK ++ "=" ++ mark()), environment(Name)).

%% @doc Sends a signal to an operating system process of our run; that it has ended already is no
%% error.
-spec signal(pos_integer(), stop | cont | kill | term | int | hup) -> ok.
signal(OsPid, Signal) ->
    case alive(OsPid) of
        true ->
            Name = string:uppercase(atom_to_list(Signal)),
            _ = os:cmd("kill -" ++ Name ++ " " ++ integer_to_list(OsPid)),
            ok;
        false ->
            ok
    end.

%% @doc All living operating system processes that carry this run's mark, with their command lines.
-spec os_processes() -> [{pos_integer(), string()}].
os_processes() ->
    {ok, Names} = file:list_dir("/proc"),
    [
        {OsPid, command_line(Name)}
     || [C | _] = Name <- Names,
        C >= $0,
        C =< $9,
        OsPid <- [list_to_integer(Name)],
        alive(OsPid)
    ].

environment(Name) ->
    case file:read_file("/proc/" ++ Name ++ "/environ") of
        {ok, Bytes} -> binary:split(Bytes, <<0>>, [global]);
        {error, _} -> []
    end.

command_line(Name) ->
    case file:read_file("/proc/" ++ Name ++ "/cmdline") of
        {ok, Bytes} -> [case C of 0 -> $\s; _ -> C end || <<C>> <= Bytes];
        {error, _} -> ""
    end.

%% @doc All living sidecars of this run.
-spec sidecars() -> [pos_integer()].
sidecars() ->
    [Pid || {Pid, Line} <- os_processes(), re:run(Line, "^\\S*quicdistd ?$") =/= nomatch].

%% @doc All UDP sockets of this network namespace: address, port and inode.
-spec udp_sockets() -> [{inet:ip_address(), inet:port_number(), non_neg_integer()}].
udp_sockets() ->
    lists:append([sockets(File) || File <- ["/proc/net/udp", "/proc/net/udp6"]]).

sockets(File) ->
    case file:read_file(File) of
        {ok, Text} ->
            [_Heading | Lines] = string:lexemes(Text, "\n"),
            [socket(string:lexemes(Line, " ")) || Line <- Lines];
        {error, enoent} ->
            []
    end.

%% proc(5): the second word is ADDRESS:PORT, each 32 bits of the address in the machine's byte
%% order; the tenth is the inode.
socket([_, Local | _] = Words) ->
    [Address, Port] = binary:split(Local, <<":">>),
    Ip = binary:decode_hex(Address),
    Swapped = << <<Word:32/native>> || <<Word:32/big>> <= Ip >>,
    {ip(Swapped), binary_to_integer(Port, 16), binary_to_integer(lists:nth(10, Words))}.

ip(<<A, B, C, D>>) -> {A, B, C, D};
ip(<<_:128>> = Ip) -> list_to_tuple([Word || <<Word:16>> <= Ip]).

%% @doc The UDP sockets that an operating system process has open.
-spec udp_sockets(pos_integer()) -> [{inet:ip_address(), inet:port_number()}].
udp_sockets(OsPid) ->
    Dir = "/proc/" ++ integer_to_list(OsPid) ++ "/fd",
    Names =
        case file:list_dir(Dir) of
            {ok, List} -> List;
            {error, _} -> []
        end,
    Links = [Link || Name <- Names, {ok, Link} <- [file:read_link(filename:join(Dir, Name))]],
    [
        {Ip, Port}
     || {Ip, Port, Inode} <- udp_sockets(),
        lists:member("socket:[" ++ integer_to_list(Inode) ++ "]", Links)
    ].

%% Logs

%% @doc What the node has logged until now, one event a line (`level text'). Also after its end.
-spec log(t()) -> string().
log(#{log_file := File}) ->
    case file:read_file(File) of
        {ok, Text} -> unicode:characters_to_list(Text);
        {error, enoent} -> ""
    end.

%% @private The log handler of our nodes. Who logs writes: when an event has been seen its log is
%% there, and nothing waits for a disk.
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

%% Names and places

%% @doc A name that nothing else of any run uses: `Prefix', a number, this VM's process.
-spec unique(string()) -> string().
unique(Prefix) ->
    lists:concat([Prefix, "_", registry(number), "_", os:getpid()]).

%% @doc A UDP and TCP port that is free on every address, that is outside the range from which
%% sockets without a port of their own take theirs, and that this run has not handed out before.
-spec free_port() -> inet:port_number().
free_port() -> registry(port).

-spec cookie() -> atom().
cookie() -> list_to_atom("cookie_" ++ os:getpid()).

%% @doc The library's quicdistd for this machine.
-spec executable() -> file:filename().
executable() ->
    {ok, Target} = quic_dist_exe:target(),
    filename:join([filename:dirname(ebin()), "priv", Target, "quicdistd"]).

%% @doc The library's compiled modules. QUIC_DIST_TEST_EBIN in the environment decides, then the
%% first `_build/default/lib/quic_dist/ebin' upwards of these tests, then the code path.
-spec ebin() -> file:filename().
ebin() ->
    case os:getenv("QUIC_DIST_TEST_EBIN") of
        false -> ebin_upwards(filename:dirname(test_beam()));
        Dir -> Dir
    end.

ebin_upwards("/") ->
    App = code:where_is_file("quic_dist.app"),
    is_list(App) orelse error("build the library first: make build"),
    filename:absname(filename:dirname(App));
ebin_upwards(Dir) ->
    Ebin = filename:join(Dir, "_build/default/lib/quic_dist/ebin"),
    case filelib:is_regular(filename:join(Ebin, "quic_dist.app")) of
        true -> Ebin;
        false -> ebin_upwards(filename:dirname(Dir))
    end.

test_beam() -> filename:absname(code:which(?MODULE)).

%% @doc The code paths that each node gets: the library, and these tests.
-spec paths() -> [file:filename()].
paths() -> [ebin(), filename:dirname(test_beam())].

%% @doc The erl of the OTP that runs this.
-spec erl() -> file:filename().
erl() -> filename:join([code:root_dir(), "bin", "erl"]).

%% @doc A folder of this run, for logs and files; end_run/0 removes it.
-spec dir() -> file:filename().
dir() ->
    Dir = filename:join(os:getenv("TMPDIR", "/tmp"), "quic_dist_test." ++ mark()),
    ok = filelib:ensure_dir(filename:join(Dir, "x")),
    Dir.

mark() -> registry(mark).

%% Certificates

%% @doc A certificate authority, and for each name a certificate that it has signed, as PEM files in
%% a new folder. A name is a DNS name or an IP address.
-spec certificates([inet:ip_address() | string()]) ->
    #{
        cacertfile := file:filename(),
        certs := [#{certfile := file:filename(), keyfile := file:filename()}]
    }.
certificates(Names) ->
    Dir = filename:join(dir(), unique("certs")),
    ok = file:make_dir(Dir),
    %% Others than Erlang take no SHA-1, which is what it would be.
    Strong = [{key, ?CURVE}, {digest, sha256}],
    Root = public_key:pkix_test_root_cert("quic dist test authority", Strong),
    #{
        cacertfile => pem(Dir, "ca.pem", {'Certificate', maps:get(cert, Root), not_encrypted}),
        certs => [certificate(Dir, Root, N, Name) || {N, Name} <- lists:enumerate(Names)]
    }.

certificate(Dir, Root, N, Whose) ->
    San =
        case Whose of
            Ip when is_tuple(Ip) -> {iPAddress, ip_bytes(Ip)};
            Dns -> {dNSName, Dns}
        end,
    %% The record 'Extension' of public_key.hrl, and its 'id-ce-subjectAltName'.
    Name = {extensions, [{'Extension', {2, 5, 29, 17}, false, [San]}]},
    Peer = [{key, ?CURVE}, {digest, sha256}, Name],
    Chain = #{root => Root, intermediates => [], peer => Peer},
    #{server_config := Config} =
        public_key:pkix_test_data(#{server_chain => Chain, client_chain => Chain}),
    {KeyType, Key} = proplists:get_value(key, Config),
    Cert = proplists:get_value(cert, Config),
    Id = integer_to_list(N),
    #{
        certfile => pem(Dir, "cert" ++ Id ++ ".pem", {'Certificate', Cert, not_encrypted}),
        keyfile => pem(Dir, "key" ++ Id ++ ".pem", {KeyType, Key, not_encrypted})
    }.

ip_bytes({A, B, C, D}) -> <<A, B, C, D>>;
ip_bytes(Ip) -> << <<Word:16>> || Word <- tuple_to_list(Ip) >>.

pem(Dir, Name, Entry) ->
    File = filename:join(Dir, Name),
    ok = file:write_file(File, public_key:pem_encode([Entry])),
    File.

%% The registry: which nodes live, which numbers and ports are given away. A process of its own,
%% since Common Test runs each case and each init in another.

registry(Request) ->
    Pid = registry_pid(),
    Ref = monitor(process, Pid),
    Pid ! {self(), Ref, Request},
    receive
        {Ref, Reply} ->
            demonitor(Ref, [flush]),
            Reply;
        {'DOWN', Ref, _, _, Reason} ->
            error({registry, Reason})
    end.

registry_pid() ->
    case whereis(?REGISTRY) of
        undefined ->
            Self = self(),
            {Starter, Ref} = spawn_monitor(fun() -> registry_init(Self) end),
            receive
                {Starter, ready} -> demonitor(Ref, [flush]);
                {'DOWN', Ref, _, _, _} -> another_was_faster
            end,
            registry_pid();
        Pid ->
            Pid
    end.

registry_init(Caller) ->
    true = register(?REGISTRY, self()),
    Caller ! {self(), ready},
    Mark = os:getpid() ++ "." ++ integer_to_list(erlang:system_time(millisecond), 36),
    %% Ports below the range for ephemeral ports (32768 on Linux), from a place that depends on us.
    First = 20000 + (erlang:phash2(Mark) rem 10000),
    Epmd = next_free(First),
    registry_loop(#{nodes => [], number => 1, port => next(Epmd), epmd_port => Epmd, mark => Mark}).

registry_loop(#{nodes := Nodes, number := Number, port := Port, mark := Mark} = State0) ->
    receive
        {From, Ref, Request} ->
            {Reply, State} =
                case Request of
                    {started, Node} -> {ok, State0#{nodes := [Node | Nodes]}};
                    {stopped, Node} -> {ok, State0#{nodes := lists:delete(Node, Nodes)}};
                    nodes -> {Nodes, State0};
                    number -> {Number, State0#{number := Number + 1}};
                    mark -> {Mark, State0};
                    epmd_port -> {maps:get(epmd_port, State0), State0};
                    port ->
                        Free = next_free(Port),
                        {Free, State0#{port := next(Free)}}
                end,
            From ! {Ref, Reply},
            registry_loop(State)
    end.

next(Port) when Port >= 32000 -> 20000;
next(Port) -> Port + 1.

next_free(Port) ->
    case is_free(gen_udp, Port) andalso is_free(gen_tcp, Port) of
        true -> Port;
        false -> next_free(next(Port))
    end.

is_free(Module, Port) ->
    lists:all(
        fun(Options) ->
            Opened =
                case Module of
                    gen_udp -> gen_udp:open(Port, Options);
                    gen_tcp -> gen_tcp:listen(Port, Options)
                end,
            case Opened of
                {ok, Socket} -> Module:close(Socket) =:= ok;
                {error, eaddrinuse} -> false;
                %% No IPv6 here.
                {error, _} -> lists:member(inet6, Options)
            end
        end,
        [[inet], [inet6, {ipv6_v6only, true}]]
    ).
