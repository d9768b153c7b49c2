%% @doc One run of the tests: its mark, its nodes, and names, ports and a folder that nothing else
%% uses.
%%
%% A process of its own holds this, because Common Test runs each case and each init in another
%% process. Each program that a test starts inherits QUIC_DIST_TEST_RUN, an environment variable
%% with the run's mark. Tests find and end programs by that mark.
-module(quic_dist_run).



-export([environment/1, mark/0]).
-export([started/2, stopped/1, live/0, live/1]).
-export([unique/1, free_port/0, port_name/1, port_name/2, cookie/0, dir/0, file/2]).
-export([ebin/0, executable/0, paths/0, erl/0]).

-define(MARK, "QUIC_DIST_TEST_RUN").

%% @doc The environment of a program that a test starts: the run's mark, the run's own epmd, none of
%% the flags that are meant for the test VM, and then `More'. Of two values for a variable the later
%% counts.
-spec environment([{string(), string() | false}]) -> [{string(), string() | false}].
environment(More) ->
    [{Name, false} || Name <- ["ERL_FLAGS", "ERL_AFLAGS", "ERL_ZFLAGS", "ERL_LIBS"]] ++ [
        {?MARK, run_mark()},
        {"ERL_EPMD_PORT", integer_to_list(registry(epmd_port))},
        {"ERL_CRASH_DUMP_BYTES", "0"},
        {"QUICDISTD_DUMPABLE", dumpable()}
        | More
    ].

%% Tests find a sidecar by its environment. A sidecar that may not be dumped shows it to root alone.
dumpable() ->
    case os:cmd("id -u") of
        "0\n" -> false;
        _ -> "yes"
    end.

%% @doc How the run's mark stands in the environment of its programs.
-spec mark() -> binary().
mark() -> list_to_binary(?MARK ++ "=" ++ run_mark()).

%% Nodes that live

%% @doc Says that a node has started, and to whom it belongs.
-spec started(Owner :: term(), quic_dist_node:t()) -> ok.
started(Owner, Node) -> registry({started, Owner, Node}).

%% @doc Says that a node has ended.
-spec stopped(quic_dist_node:t()) -> ok.
stopped(Node) -> registry({stopped, Node}).

%% @doc The nodes that live.
-spec live() -> [quic_dist_node:t()].
live() -> [Node || {_, Node} <- registry(nodes)].

%% @doc The nodes that live and belong to this owner.
-spec live(Owner :: term()) -> [quic_dist_node:t()].
live(Owner) -> [Node || {Whose, Node} <- registry(nodes), Whose =:= Owner].

%% Names and places

%% @doc A name that nothing else of any run uses: `Prefix', a number, this VM's process.
-spec unique(string()) -> string().
unique(Prefix) ->
    lists:concat([Prefix, "_", registry(number), "_", os:getpid()]).

%% @doc A UDP and TCP port that is free on every address, that is outside the range from which
%% sockets without a port of their own take theirs, and that this run has not handed out before.
-spec free_port() -> inet:port_number().
free_port() -> registry(port).

%% @doc The name of a node at this UDP port of the loopback address.
-spec port_name(inet:port_number()) -> string().
port_name(Port) -> port_name(Port, "127.0.0.1").

%% @doc The name of a node at this UDP port of a host.
-spec port_name(inet:port_number(), Host :: string()) -> string().
port_name(Port, Host) -> integer_to_list(Port) ++ "@" ++ Host.

%% @doc The cookie of this run's nodes.
-spec cookie() -> atom().
cookie() -> list_to_atom("cookie_" ++ os:getpid()).

%% @doc The library's quicdistd for this machine.
-spec executable() -> file:filename().
executable() ->
    {ok, Target} = quic_dist_executable:target(),
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

%% @doc A folder of this run, for logs and files; quic_dist_hooks removes it at the end.
-spec dir() -> file:filename().
dir() ->
    Dir = filename:join(os:getenv("TMPDIR", "/tmp"), "quic_dist_test." ++ run_mark()),
    ok = filelib:ensure_dir(filename:join(Dir, "x")),
    Dir.

%% @doc Writes a file of this name in a new folder of this run, and returns its path.
-spec file(Name :: string(), iodata()) -> file:filename().
file(Name, Text) ->
    Dir = filename:join(dir(), unique("files")),
    ok = file:make_dir(Dir),
    File = filename:join(Dir, Name),
    ok = file:write_file(File, Text),
    File.

run_mark() -> registry(mark).

%% The process that holds the state

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
    case whereis(?MODULE) of
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
    true = register(?MODULE, self()),
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
                    {started, Owner, Node} -> {ok, State0#{nodes := [{Owner, Node} | Nodes]}};
                    {stopped, Node} -> {ok, State0#{nodes := lists:keydelete(Node, 2, Nodes)}};
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
