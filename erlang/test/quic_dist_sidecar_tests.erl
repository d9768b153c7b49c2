%% Nothing secret is shown by the sidecar's owner, in `sys:get_status/1' or in the reports of its
%% own crash.
-module(quic_dist_sidecar_tests).

-include_lib("eunit/include/eunit.hrl").

-export([log/2]).

-define(PASSWORD, "the pass phrase").
-define(TOKEN, <<"the token of a channel">>).
-define(PARAMETER, <<"a parameter of a request">>).
-define(FRAME, <<"a frame of an application">>).

secrets_test_() ->
    {setup, fun setup/0, fun cleanup/1, fun(Sidecar) ->
        [
            {"status", fun() -> status(Sidecar) end},
            {"crash", {timeout, 30, fun() -> crash(Sidecar) end}}
        ]
    end}.

%% Starts a sidecar that never sends its hello, so that requests wait.
setup() ->
    process_flag(trap_exit, true),
    ok = application:set_env([
        {quic_dist, [
            {executable, silent_executable()},
            {certfile, "cert.pem"},
            {password, ?PASSWORD}
        ]}
    ]),
    {ok, Sidecar} = quic_dist_sidecar:start_link([]),
    Sidecar.

silent_executable() ->
    {ok, Folder} = file:get_cwd(),
    File = filename:join(Folder, "silent-" ++ os:getpid()),
    ok = file:write_file(File, "#!/bin/sh\nexec sleep 60\n"),
    ok = file:change_mode(File, 8#700),
    File.

cleanup(_) ->
    _ = file:delete(silent_executable()),
    [application:unset_env(quic_dist, Key) || Key <- [executable, certfile, password]],
    process_flag(trap_exit, false).

%% Configuration, key, frames that wait to be written, requests: none of it is in the status.
status(Sidecar) ->
    From = {self(), make_ref()},
    Accepted = #{
        channel => 1, node => <<"a@h">>, address => <<"::1">>, port => 1, streams => single,
        credit => 0, token => ?TOKEN
    },
    _ = sys:replace_state(Sidecar, fun({State, Data}) ->
        At = position(router, Data),
        Router0 = element(At, Data),
        Parameters = #{node => ?PARAMETER},
        Router1 = quic_dist_router:requested(dialled, Parameters, From, Router0),
        {ok, _, Router} = quic_dist_router:handle({control, accepted, Accepted}, Router1),
        {State, setelement(At, Data, Router)}
    end),
    Asking = ask(),
    {_, Data} = sys:get_state(Sidecar),
    %% What is looked for is there.
    [?assert(is_in(Secret, Data)) || Secret <- [?PASSWORD, ?PARAMETER, ?TOKEN]],
    Key = element(position(reset_key, Data), Data),
    ?assertEqual(32, byte_size(Key)),
    Status = sys:get_status(Sidecar),
    [?assertNot(is_in(Secret, Status)) || Secret <- [?PASSWORD, Key, ?PARAMETER, ?TOKEN]],
    exit(Asking, kill).

%% When it crashes, with frames and requests in its mailbox, the reports of that have none of them.
crash(Sidecar) ->
    {_, Data} = sys:get_state(Sidecar),
    Key = element(position(reset_key, Data), Data),
    Monitor = monitor(process, Sidecar),
    true = erlang:suspend_process(Sidecar),
    exit(Sidecar, {crash, for_the_test}),
    Asking = ask(),
    [APort | _] = erlang:ports(),
    Sidecar ! {APort, {data, ?FRAME}},
    ok = logger:add_handler(?MODULE, ?MODULE, #{config => self()}),
    Default = logger:get_handler_config(default),
    _ = logger:remove_handler(default),
    try
        true = erlang:resume_process(Sidecar),
        receive
            {'DOWN', Monitor, process, _, _} -> ok
        end,
        Events = events(),
        ?assert(lists:any(fun(Event) -> is_in("crash_report", Event) end, Events)),
        [
            ?assertNot(is_in(Secret, Event))
         || Secret <- [?PASSWORD, Key, ?PARAMETER, ?TOKEN, ?FRAME], Event <- Events
        ]
    after
        ok = logger:remove_handler(?MODULE),
        restore(Default),
        exit(Asking, kill)
    end.

restore({ok, #{module := Module} = Handler}) -> ok = logger:add_handler(default, Module, Handler);
restore({error, _}) -> ok.

%% A process whose request is in the mailbox, or waits for the sidecar, when this returns.
ask() ->
    Pid = spawn(fun() ->
        quic_dist_channel:dial(#{
            node => ?PARAMETER, local => <<"a@h">>, targets => [], timeout => 20000
        })
    end),
    wait_until(fun() -> process_info(Pid, status) =:= {status, waiting} end),
    Pid.

wait_until(Fun) ->
    case Fun() of
        true ->
            ok;
        false ->
            timer:sleep(1),
            wait_until(Fun)
    end.

%% Handlers run in the process that logs, and its end comes after that.
events() ->
    receive
        {event, Event} -> [Event | events()]
    after 0 ->
        []
    end.

%% @private The log handler.
log(Event, #{config := Pid}) -> Pid ! {event, Event}.

is_in(Secret, Term) ->
    binary:match(term_to_binary(Term), iolist_to_binary(Secret)) =/= nomatch.

%% The record's fields are its module's own.
position(Field, Data) ->
    Fields = [reset_key, router],
    true = lists:member(Field, Fields),
    {ok, {_, [{abstract_code, {_, Forms}}]}} =
        beam_lib:chunks(code:which(quic_dist_sidecar), [abstract_code]),
    [Names] = [[name(F) || F <- Fs] || {attribute, _, record, {data, Fs}} <- Forms],
    data = element(1, Data),
    1 + length(lists:takewhile(fun(Name) -> Name =/= Field end, Names)) + 1.

name({typed_record_field, Field, _}) -> name(Field);
name({record_field, _, {atom, _, Name}}) -> Name;
name({record_field, _, {atom, _, Name}, _}) -> Name.
