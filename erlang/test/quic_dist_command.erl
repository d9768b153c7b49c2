%% @doc Programs that tests start: their input, their output, and their end. Most are `erl' with a
%% command line of its own.
-module(quic_dist_command).

-export([run/2, boot/1, boot_fails/2, boot_fails/3]).
-export([open/2, enter/2, expect/3, finish/2, output/1, os_pid/1]).
-export_type([command/0, command_options/0]).

-import(quic_dist_wait, [deadline/1, left/1]).

-type command_options() :: #{
    env => [{string(), string() | false}],
    %% For run/2: milliseconds before scaling, default 15000.
    timeout => timeout(),
    %% Default: the erl of this OTP.
    exec => file:filename(),
    cd => file:filename()
}.

-opaque command() :: {command, port(), OsPid :: pos_integer(), reference()}.
%% A program whose input we write and whose output we collect.

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
        {spawn_executable, maps:get(exec, Options, quic_dist_run:erl())},
        [
            {args, Args},
            {env, quic_dist_run:environment(maps:get(env, Options, []))},
            {cd, maps:get(cd, Options, quic_dist_run:dir())},
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

%% @doc The command's operating system process, for quic_dist_os:signal/2.
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
        quic_dist_os:signal(OsPid, kill),
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

%% @doc Boots a node over QUIC with the least arguments and with these, and waits for its end, as
%% run/2.
-spec boot([string()]) -> {exit_status, non_neg_integer(), string()} | {timeout, string()}.
boot(Args) -> run(bare(Args), #{}).

bare(Args) ->
    Cookie = atom_to_list(quic_dist_run:cookie()),
    Library = quic_dist_run:ebin(),
    ["-noinput", "-setcookie", Cookie, "-proto_dist", "quic", "-pa", Library | Args].

%% @doc boot_fails/3 for the boot of boot/1.
-spec boot_fails([string()], Words :: [string()]) -> string().
boot_fails(Args, Words) -> boot_fails(bare(Args), #{}, Words).

%% @doc Runs `erl' with these arguments. It must end with status 1, and a line of its output must
%% have all these words. Returns the output.
-spec boot_fails([string()], command_options(), Words :: [string()]) -> string().
boot_fails(Args, Options, Words) ->
    case run(Args, Options) of
        {exit_status, 1, Output} ->
            HasAll = fun(Line) ->
                lists:all(fun(Word) -> string:find(Line, Word) =/= nomatch end, Words)
            end,
            case lists:any(HasAll, string:lexemes(Output, "\n")) of
                true -> Output;
                false -> no_boot_error("no line has all of ~p", [Words], Args, Output)
            end;
        {exit_status, Status, Output} ->
            no_boot_error("status ~w", [Status], Args, Output);
        {timeout, Output} ->
            no_boot_error("no end in time", [], Args, Output)
    end.

%% What Common Test shows of a reason ends after a few words.
-spec no_boot_error(string(), [term()], [string()], string()) -> no_return().
no_boot_error(Format, Values, Args, Output) ->
    io:format(user, "erl ~p: " ++ Format ++ " in~n~ts~n", [Args | Values] ++ [Output]),
    error({no_boot_error, Args}).
