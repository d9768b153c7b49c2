%% @doc Terminals for tests: start `erl' on one, type, and wait for text on the screen.
-module(quic_dist_terminal).

-export([terminal/1, keys/2, screen/2]).
-export_type([terminal/0]).

-opaque terminal() :: {quic_dist_command:command(), file:filename()}.

%% @doc Starts `erl' on a terminal: a shell connects to another only if it is on one, and not on a
%% dumb one. OTP's run_erl gives it one: what is written to its pipe is typed, and what is on the
%% screen goes to its log.
-spec terminal([string()]) -> terminal().
terminal(Args) ->
    Dir = filename:join(quic_dist_run:dir(), quic_dist_run:unique("terminal")),
    ok = file:make_dir(Dir),
    Line = lists:join(" ", ["exec", quic_dist_run:erl() | ["'" ++ Arg ++ "'" || Arg <- Args]]),
    RunErl = filename:join([code:root_dir(), "bin", "run_erl"]),
    Command = quic_dist_command:open([Dir ++ "/", Dir, lists:append(Line)], #{
        exec => RunErl, env => [{"TERM", "xterm"}]
    }),
    {Command, Dir}.

%% @doc Types.
-spec keys(terminal(), iodata()) -> ok.
keys({_, Dir}, Text) ->
    Pipe = filename:join(Dir, "erlang.pipe.1.w"),
    {ok, File} = file:open(Pipe, [write, raw, binary, device]),
    ok = file:write(File, Text),
    ok = file:close(File).

%% @doc Waits until the screen matches.
-spec screen(terminal(), iodata()) -> ok.
screen({_, Dir}, Regexp) ->
    quic_dist_wait:wait_until({on_screen, Regexp}, fun() ->
        case file:read_file(filename:join(Dir, "erlang.log.1")) of
            {ok, Text} -> re:run(Text, Regexp) =/= nomatch orelse Text;
            {error, enoent} -> false
        end
    end).
