%% @doc An emulated link for tests, of test/wan/link: two network namespaces that it joins. There is
%% one at a time. It needs root.
-module(quic_dist_link).

-export([open/1, close/0]).

-define(READY, 10000).

%% @doc Makes a link with these settings, words of test/wan/link. Returns for each end what
%% `quic_dist_node:start/1' needs to know to start a node there. It stays, beyond the process that
%% made it, until {@link close/0}.
-spec open(Settings :: string()) -> {ok, [quic_dist_node:start_options()]} | {error, string()}.
open(Settings) ->
    Ip = executable("ip"),
    case os:cmd("id -u") of
        "0\n" when Ip =/= false ->
            File = filename:join(quic_dist_fixtures:dir(), "link"),
            quic_dist_fixtures:build(["-o ", File], "./test/wan/link"),
            start(File, string:lexemes(Settings, " "), Ip);
        _ ->
            {error, "an emulated link needs root and iproute2"}
    end.

%% Not on everyone's path.
executable(Name) ->
    os:find_executable(Name, string:join([os:getenv("PATH"), "/usr/sbin", "/sbin"], ":")).

%% The link lives until its standard input ends, and that is until its owner does.
start(File, Words, Ip) ->
    Self = self(),
    Owner = spawn(fun() ->
        Port = open_port({spawn_executable, File}, [
            {args, Words}, {line, 1024}, exit_status, stderr_to_stdout
        ]),
        own(Port, Self)
    end),
    Monitor = monitor(process, Owner),
    receive
        {Owner, {ends, Ends}} ->
            demonitor(Monitor, [flush]),
            register(?MODULE, Owner),
            {ok, [end_of(Ip, End) || End <- Ends]};
        {'DOWN', Monitor, process, Owner, Reason} ->
            {error, lists:flatten(io_lib:format("no emulated link: ~0tp", [Reason]))}
    after ?READY ->
        exit(Owner, kill),
        {error, "no emulated link: it is not ready in time"}
    end.

own(Port, User) ->
    receive
        {Port, {data, {eol, "ready " ++ Line}}} ->
            [NamespaceA, AddressA, NamespaceB, AddressB] = string:lexemes(Line, " "),
            User ! {self(), {ends, [{NamespaceA, AddressA}, {NamespaceB, AddressB}]}},
            own(Port, User);
        {Port, {data, {eol, Line}}} ->
            exit({said, Line});
        {Port, {exit_status, Status}} ->
            exit({status, Status});
        {close, From, Ref} ->
            %% It removes its namespaces, and then ends.
            true = port_close(Port),
            From ! Ref
    end.

%% `ip netns exec' becomes the program that it starts.
end_of(Ip, {Namespace, Address}) ->
    #{
        exec => {Ip, ["netns", "exec", Namespace, quic_dist_run:erl()]},
        name => {numbered, Address}
    }.

%% @doc Ends the link, if there is one.
-spec close() -> ok.
close() ->
    case whereis(?MODULE) of
        undefined ->
            ok;
        Owner ->
            Ref = make_ref(),
            Owner ! {close, self(), Ref},
            receive
                Ref -> ok
            end
    end.
