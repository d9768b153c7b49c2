%% @doc The pipe to a sidecar: starts the executable, writes frames without ever waiting, and ends
%% the sidecar.
%%
%% The owner of a pipe gets the Erlang port's messages, `{Port, {data, Body}}' for each frame and
%% `{Port, {exit_status, Status}}', and `flush' when it is time to call {@link flush/1}.
-module(quic_dist_pipe).

-export([open/1, is_open/1, port/1, os_pid/1, send/2, flush/1, close/2, kill/1, without_frames/1]).
-export([how_ended/1, cpu_time/1, write/2]).
-export_type([pipe/0]).

-record(pipe, {
    port :: port(),
    os_pid :: undefined | non_neg_integer(),
    %% Frames that the port was too busy to take, oldest first; when the last try was, and for how
    %% long the port has been busy.
    unsent = [] :: [iodata()],
    tried = 0 :: integer(),
    blocked = 0 :: non_neg_integer()
}).

-opaque pipe() :: #pipe{}.

%% Milliseconds: how often a busy port is tried again.
-define(FLUSH_INTERVAL, 20).
%% A try that comes later counts as this long: the VM was held up, and perhaps the sidecar too.
-define(LATE, 200).
%% Milliseconds from a signal to the exit status.
-define(REAPED, 100).

%% @doc Starts the executable. `Reason' is what `open_port/2' raises.
-spec open(file:filename_all()) -> {ok, pipe()} | {error, Reason :: term()}.
open(File) ->
    Environment = [{"GODEBUG", godebug(os:getenv("GODEBUG"))}],
    Options = [
        {packet, 4}, binary, exit_status, use_stdio, hide, {args, []}, {env, Environment}
    ],
    try open_port({spawn_executable, File}, Options) of
        Port ->
            OsPid =
                case erlang:port_info(Port, os_pid) of
                    {os_pid, Pid} -> Pid;
                    undefined -> undefined
                end,
            {ok, #pipe{port = Port, os_pid = OsPid}}
    catch
        error:Reason -> {error, Reason}
    end.

%% Go's HTTP/2 server offers the extended CONNECT (RFC 8441) only with this setting, which it reads
%% before any code of ours runs.
godebug(false) -> "http2xconnect=1";
godebug("") -> "http2xconnect=1";
godebug(Given) -> Given ++ ",http2xconnect=1".

%% @doc What an exit status says, in words: erl_child_setup adds 128 to the number of a signal.
-spec how_ended(non_neg_integer()) -> iolist().
how_ended(Status) when Status > 128, Status =< 128 + 64 ->
    case signal_name(Status - 128) of
        "" -> io_lib:format("was killed (signal ~w)", [Status - 128]);
        Name -> ["was killed (", Name, ")"]
    end;
how_ended(Status) ->
    ["ended with status ", integer_to_list(Status)].

%% Signals that have the same number on all systems.
signal_name(3) -> "SIGQUIT";
signal_name(4) -> "SIGILL";
signal_name(6) -> "SIGABRT";
signal_name(9) -> "SIGKILL";
signal_name(11) -> "SIGSEGV";
signal_name(15) -> "SIGTERM";
signal_name(_) -> "".

%% @doc The Erlang port, to write data frames to.
-spec port(pipe()) -> port().
port(#pipe{port = Port}) -> Port.

%% @doc The sidecar's operating system process, if the system tells.
-spec os_pid(pipe()) -> undefined | non_neg_integer().
os_pid(#pipe{os_pid = OsPid}) -> OsPid.

%% @doc The processor time that the sidecar has used, where the system tells (Linux).
-spec cpu_time(pipe()) -> quic_dist_pulse:cpu_time().
cpu_time(#pipe{os_pid = undefined}) ->
    unknown;
cpu_time(#pipe{os_pid = OsPid}) ->
    %% Raw: at boot there is no file server, and later it may be busy.
    case file:open("/proc/" ++ integer_to_list(OsPid) ++ "/stat", [raw, read, binary]) of
        {ok, File} ->
            Read = file:read(File, 4096),
            _ = file:close(File),
            cpu_time_of(Read);
        {error, _} ->
            unknown
    end.

%% proc(5): pid, (comm), state, ten more fields, and then utime and stime. Only comm can hold a
%% parenthesis.
cpu_time_of({ok, Stat}) ->
    Behind = lists:last(binary:split(Stat, <<")">>, [global])),
    case binary:split(Behind, <<" ">>, [global, trim_all]) of
        [_, _, _, _, _, _, _, _, _, _, _, User, System | _] ->
            binary_to_integer(User) + binary_to_integer(System);
        _ ->
            unknown
    end;
cpu_time_of(_) ->
    unknown.

%% @doc Is the port alive after it has tried to write the last frame?
-spec is_open(pipe()) -> boolean().
is_open(#pipe{port = Port}) -> erlang:port_info(Port, id) =/= undefined.

%% @doc The pipe without the frames that wait: they may hold secrets.
-spec without_frames(pipe()) -> pipe().
without_frames(Pipe) -> Pipe#pipe{unsent = []}.

%% @doc Writes a frame, or keeps it if the port is busy. A sidecar always reads its pipe, so a port
%% is busy for a moment only, or the sidecar hangs. The exit status shows a port that has just died.
-spec send(iodata(), pipe()) -> pipe().
send(Frame, #pipe{unsent = []} = Pipe0) ->
    Now = erlang:monotonic_time(millisecond),
    {_, Pipe} = flush(Pipe0#pipe{unsent = [Frame], tried = Now, blocked = 0}),
    Pipe;
send(Frame, #pipe{unsent = Unsent} = Pipe) ->
    Pipe#pipe{unsent = Unsent ++ [Frame]}.

%% @doc Writes the kept frames that the port takes, and returns for how many milliseconds it has not
%% taken all of them.
-spec flush(pipe()) -> {Blocked :: non_neg_integer(), pipe()}.
flush(#pipe{unsent = []} = Pipe) ->
    {0, Pipe};
flush(#pipe{port = Port, unsent = [Frame | Rest], tried = Tried, blocked = Blocked0} = Pipe) ->
    case command(Port, Frame) of
        true ->
            flush(Pipe#pipe{unsent = Rest});
        busy ->
            _ = erlang:send_after(?FLUSH_INTERVAL, self(), flush),
            Now = erlang:monotonic_time(millisecond),
            Blocked = Blocked0 + min(?LATE, Now - Tried),
            {Blocked, Pipe#pipe{tried = Now, blocked = Blocked}};
        closed ->
            {0, Pipe#pipe{unsent = []}}
    end.

%% @doc Writes a frame from another process than the owner. It may wait. A frame for a sidecar that
%% has ended is dropped.
-spec write(port(), iodata()) -> ok.
write(Port, Frame) ->
    try port_command(Port, Frame) of
        true -> ok
    catch
        error:badarg -> ok
    end.

command(Port, Frame) ->
    try erlang:port_command(Port, Frame, [nosuspend]) of
        true -> true;
        false -> busy
    catch
        error:badarg -> closed
    end.

%% @doc Closes the pipe of a sidecar that was told to stop, as soon as the sidecar has ended, or
%% after `Grace' milliseconds. A slow sidecar goes on after that, and delivers the rest of its data.
%% A stopped one (SIGSTOP) is continued, so that it can do the same.
-spec close(Grace :: non_neg_integer(), pipe()) -> ok.
close(Grace, #pipe{os_pid = OsPid} = Pipe) ->
    case ended(Pipe, Grace) of
        true -> ok;
        false -> close_after(fun() -> continue(os:type(), OsPid) end, Pipe)
    end.

%% @doc Kills the sidecar, unless it has ended, and closes the pipe.
-spec kill(pipe()) -> ok.
kill(#pipe{os_pid = OsPid} = Pipe) ->
    case ended(Pipe, 0) of
        true -> ok;
        false -> close_after(fun() -> kill(os:type(), OsPid) end, Pipe)
    end.

%% The UDP port of a sidecar is free when its process has been reaped.
close_after(Signal, #pipe{port = Port} = Pipe) ->
    ok = Signal(),
    _ = ended(Pipe, ?REAPED),
    _ = close_port(Port),
    ok.

ended(#pipe{port = Port}, Timeout) ->
    case erlang:port_info(Port, id) of
        undefined ->
            true;
        _ ->
            receive
                {Port, {exit_status, _}} -> true;
                {'EXIT', Port, _} -> true
            after Timeout ->
                false
            end
    end.

close_port(Port) ->
    try
        port_close(Port)
    catch
        error:badarg -> true
    end.

continue({unix, _}, OsPid) when is_integer(OsPid) -> signal("CONT", OsPid);
continue(_, _) -> ok.

kill(_, undefined) ->
    ok;
kill({unix, _}, OsPid) ->
    signal("KILL", OsPid);
kill({win32, _}, OsPid) ->
    _ = os:cmd("taskkill /F /PID " ++ integer_to_list(OsPid)),
    ok.

signal(Signal, OsPid) ->
    _ = os:cmd("kill -" ++ Signal ++ " " ++ integer_to_list(OsPid)),
    ok.
