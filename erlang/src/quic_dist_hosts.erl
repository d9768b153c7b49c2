%% @doc The addresses of hosts, as Erlang's own resolver has them: the VM's answers to its sidecar
%% (the event `look_up' of portproto/PROTOCOL.md).
%%
%% So every carrier reaches a host that `inet:getaddrs/2' knows: by inetrc, by `inet_db', by a
%% module of the C library's name service, or because it is this host.
-module(quic_dist_hosts).
-behaviour(quic_dist_feature).

-export([topics/0, handle/3, addresses/2]).

%% Milliseconds that the addresses of one family wait for those of the other.
-define(MOMENT, 300).
%% As many as the sidecar takes.
-define(MAX_ADDRESSES, 64).

%% @private
-spec topics() -> [quic_dist_feature:topic(), ...].
topics() ->
    [look_up].

%% @private Answers a question of the sidecar, from a process of its own, because a resolver may
%% take its time. There are at most as many such processes as the sidecar has open questions.
-spec handle(look_up, quic_dist_proto:fields(), quic_dist_feature:context()) -> ok.
handle(look_up, #{question := Question, host := Host, timeout := Timeout}, #{port := Port}) ->
    _ = spawn_opt(
        fun() ->
            Found =
                case addresses(Host, Timeout) of
                    {ok, Ips} ->
                        Texts = [list_to_binary(inet:ntoa(Ip)) || Ip <- Ips],
                        #{addresses => lists:sublist(Texts, ?MAX_ADDRESSES)};
                    {error, Reason} ->
                        #{addresses => [], text => atom_to_binary(Reason)}
                end,
            Frame = quic_dist_proto:control(looked_up, Found#{question => Question}),
            quic_dist_pipe:write(Port, Frame)
        end,
        %% As the processes that set up connections have.
        [{priority, max}]
    ),
    ok.

%% @doc The addresses of a host, of both families, within so many milliseconds.
-spec addresses(Host :: binary(), timeout()) -> {ok, [inet:ip_address(), ...]} | {error, atom()}.
addresses(Host, Timeout) ->
    case whereis(kernel_safe_sup) of
        undefined ->
            %% The native resolver would be its child.
            {error, booting};
        _ ->
            Name = unicode:characters_to_list(Host),
            Deadline = erlang:monotonic_time(millisecond) + Timeout,
            Asked6 = ask(Name, inet6),
            case await(ask(Name, inet), Deadline) of
                {ok, Ips4} ->
                    Soon = erlang:monotonic_time(millisecond) + ?MOMENT,
                    case await(Asked6, min(Soon, Deadline)) of
                        {ok, Ips6} -> {ok, Ips6 ++ Ips4};
                        {error, _} -> {ok, Ips4}
                    end;
                {error, _} = Error ->
                    case await(Asked6, Deadline) of
                        {ok, Ips6} -> {ok, Ips6};
                        {error, _} -> Error
                    end
            end
    end.

ask(Name, Family) ->
    Asker = self(),
    spawn_opt(
        fun() -> Asker ! {looked_up, self(), inet:getaddrs(Name, Family)} end,
        [monitor, {priority, max}]
    ).

await({Pid, Monitor}, Deadline) ->
    receive
        {looked_up, Pid, Answer} ->
            demonitor(Monitor, [flush]),
            case Answer of
                {ok, [_ | _]} -> Answer;
                {error, _} -> Answer;
                {ok, []} -> {error, nxdomain}
            end;
        {'DOWN', Monitor, process, Pid, _} ->
            {error, einval}
    after max(0, Deadline - erlang:monotonic_time(millisecond)) ->
        demonitor(Monitor, [flush]),
        exit(Pid, kill),
        {error, timeout}
    end.
