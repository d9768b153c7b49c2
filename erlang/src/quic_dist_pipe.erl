%% @doc The pipe to a sidecar: starts the executable, writes frames without ever waiting, and makes
%% an end of it.
%%
%% Who owns a pipe gets the Erlang port's messages, `{Port, {data, Body}}' for each frame and
%% `{Port, {exit_status, Status}}', and `flush' when it is time to call {@link flush/1}.
-module(quic_dist_pipe).

-export([open/1, is_open/1, port/1, os_pid/1, send/2, flush/1, close/2, kill/1, without_frames/1]).
-export_type([pipe/0]).

-record(pipe, {
    port :: port(),
    os_pid :: undefined | non_neg_integer(),
    %% Frames that the port was too busy to take, oldest first, and since when.
    unsent = [] :: [iodata()],
    since = 0 :: integer()
}).

-opaque pipe() :: #pipe{}.

%% Milliseconds: how often a busy port is tried again.
-define(FLUSH_INTERVAL, 20).
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

%% Go's HTTP/2 server knows the extended CONNECT (RFC 8441), and offers it only with this, which it
%% reads before anything of ours runs.
godebug(false) -> "http2xconnect=1";
godebug("") -> "http2xconnect=1";
godebug(Given) -> Given ++ ",http2xconnect=1".

%% @doc The Erlang port, to write data frames to.
-spec port(pipe()) -> port().
port(#pipe{port = Port}) -> Port.

%% @doc The sidecar's operating system process, if the system tells.
-spec os_pid(pipe()) -> undefined | non_neg_integer().
os_pid(#pipe{os_pid = OsPid}) -> OsPid.

%% @doc Whether the port lives, now that it has tried to write what it was sent last.
-spec is_open(pipe()) -> boolean().
is_open(#pipe{port = Port}) -> erlang:port_info(Port, id) =/= undefined.

%% @doc What may be shown of a pipe: frames may hold secrets.
-spec without_frames(pipe()) -> pipe().
without_frames(Pipe) -> Pipe#pipe{unsent = []}.

%% @doc Writes a frame, or keeps it if the port is busy. A sidecar reads its pipe always, so that a
%% busy port is a matter of a moment, or a sidecar that hangs. A port that has just died is noticed
%% by its exit status.
-spec send(iodata(), pipe()) -> pipe().
send(Frame, #pipe{unsent = []} = Pipe0) ->
    Now = erlang:monotonic_time(millisecond),
    {_, Pipe} = flush(Pipe0#pipe{unsent = [Frame], since = Now}),
    Pipe;
send(Frame, #pipe{unsent = Unsent} = Pipe) ->
    Pipe#pipe{unsent = Unsent ++ [Frame]}.

%% @doc Writes what was kept, as far as the port takes it, and says for how many milliseconds it has
%% not taken all.
-spec flush(pipe()) -> {Blocked :: non_neg_integer(), pipe()}.
flush(#pipe{unsent = []} = Pipe) ->
    {0, Pipe};
flush(#pipe{port = Port, unsent = [Frame | Rest], since = Since} = Pipe) ->
    case command(Port, Frame) of
        true ->
            flush(Pipe#pipe{unsent = Rest});
        busy ->
            _ = erlang:send_after(?FLUSH_INTERVAL, self(), flush),
            {erlang:monotonic_time(millisecond) - Since, Pipe};
        closed ->
            {0, Pipe#pipe{unsent = []}}
    end.

command(Port, Frame) ->
    try erlang:port_command(Port, Frame, [nosuspend]) of
        true -> true;
        false -> busy
    catch
        error:badarg -> closed
    end.

%% @doc Closes the pipe of a sidecar that is to stop, as soon as that has ended, or after `Grace'
%% milliseconds: one that gets little of the processors delivers and says goodbye beyond them. One
%% that does not run at all (SIGSTOP) is continued for it.
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

%% Its UDP port is free when it has been reaped.
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
