%% @doc A UDP relay between two nodes that fails as NATs, firewalls and networks do. It is a process
%% of the test VM, and ends with the process that started it.
%%
%% Each address of a client has a flow, with a socket of its own towards the server. The server sees
%% that socket's address, and answers it.
-module(quic_dist_relay).

-export([start/1, port/1, conversations/1]).
-export([forget/1, mute/1, deafen/1, rebind/1, reset/2, cut/1, cut/2, heal/1]).
-export_type([t/0]).

%% After so many packets of a socket its next ones wait in the kernel until the relay has relayed
%% these. The kernel drops packets for which it has no room, as a busy router does.
-define(ACTIVE, 100).

%% A flow with fewer packets from the server is a question about it, or a try that failed.
-define(CONVERSATION, 20).

-type address() :: {inet:ip_address(), inet:port_number()}.
-opaque t() :: {pid(), inet:port_number()}.

-record(flow, {
    back :: gen_udp:socket(),
    %% Packets to the server pass; those from it do.
    forth = true :: boolean(),
    on = true :: boolean(),
    %% The server's connection ID in the last packet that has a short header.
    id = <<>> :: binary(),
    %% Packets that came from the server, up to CONVERSATION.
    heard = 0 :: non_neg_integer()
}).

-record(state, {
    front :: gen_udp:socket(),
    server :: inet:port_number(),
    owner :: reference(),
    flows = #{} :: #{address() => #flow{}},
    clients = #{} :: #{gen_udp:socket() => address()},
    cut = false :: boolean(),
    timer :: reference() | undefined
}).

%% @doc Starts a relay to this UDP port of the loopback address.
-spec start(Server :: inet:port_number()) -> t().
start(Server) ->
    Owner = self(),
    {Pid, Monitor} = spawn_monitor(fun() -> init(Owner, Server) end),
    receive
        {Pid, Port} ->
            demonitor(Monitor, [flush]),
            {Pid, Port};
        {'DOWN', Monitor, process, Pid, Reason} ->
            error({no_relay, Reason})
    end.

%% @doc The UDP port at which clients find the relay.
-spec port(t()) -> inet:port_number().
port({_, Port}) -> Port.

%% @doc How many flows there were until now over which the server has sent more than a few packets.
-spec conversations(t()) -> non_neg_integer().
conversations(Relay) -> ask(Relay, conversations).

%% @doc Drops all flows that there are. New ones pass, as after the restart of a NAT.
-spec forget(t()) -> ok.
forget(Relay) -> ask(Relay, {block, both}).

%% @doc Drops what the clients of the flows that there are send.
-spec mute(t()) -> ok.
mute(Relay) -> ask(Relay, {block, forth}).

%% @doc Drops what they would get.
-spec deafen(t()) -> ok.
deafen(Relay) -> ask(Relay, {block, on}).

%% @doc Gives each flow another socket towards the server, and closes the one before.
-spec rebind(t()) -> ok.
rebind(Relay) -> ask(Relay, rebind).

%% @doc Drops all flows that there are, and sends each client the stateless reset that a sidecar of
%% this node makes with the secret in this XDG_STATE_HOME.
-spec reset(t(), {node(), StateHome :: file:filename()}) -> ok.
reset(Relay, Server) -> ask(Relay, {reset, Server}).

%% @doc Drops everything until {@link heal/1}.
-spec cut(t()) -> ok.
cut(Relay) -> cut(Relay, infinity).

%% @doc Drops everything for so many ms from now on (not scaled). It does not wait.
-spec cut(t(), timeout()) -> ok.
cut(Relay, Time) -> ask(Relay, {cut, Time}).

%% @doc Ends a cut. Blocked flows stay blocked.
-spec heal(t()) -> ok.
heal(Relay) -> ask(Relay, heal).

ask({Pid, _}, Request) ->
    Ref = monitor(process, Pid),
    Pid ! {ask, self(), Ref, Request},
    receive
        {Ref, Answer} ->
            demonitor(Ref, [flush]),
            Answer;
        {'DOWN', Ref, process, Pid, Reason} ->
            error({relay_ended, Reason})
    end.

%% The process

init(Owner, Server) ->
    process_flag(priority, high),
    Front = open(),
    {ok, Port} = inet:port(Front),
    Owner ! {self(), Port},
    loop(#state{front = Front, server = Server, owner = monitor(process, Owner)}).

open() ->
    {ok, Socket} = gen_udp:open(0, [
        binary,
        {ip, {127, 0, 0, 1}},
        {active, ?ACTIVE},
        {recbuf, 4 bsl 20},
        {sndbuf, 4 bsl 20},
        {buffer, 65536}
    ]),
    Socket.

loop(#state{front = Front, owner = Owner, clients = Clients} = State) ->
    receive
        {udp, Front, Ip, Port, Packet} ->
            loop(forth({Ip, Port}, Packet, State));
        {udp, Back, _, _, Packet} ->
            loop(on(Back, Packet, State));
        {udp_passive, Socket} when Socket =:= Front; is_map_key(Socket, Clients) ->
            ok = inet:setopts(Socket, [{active, ?ACTIVE}]),
            loop(State);
        {udp_passive, _} ->
            loop(State);
        {ask, From, Ref, Request} ->
            {Answer, Next} = answer(Request, State),
            From ! {Ref, Answer},
            loop(Next);
        {timeout, Timer, healed} when Timer =:= State#state.timer ->
            loop(State#state{cut = false, timer = undefined});
        {timeout, _, healed} ->
            loop(State);
        {'DOWN', Owner, process, _, _} ->
            ok
    end.

forth(Client, Packet, #state{flows = Flows} = State) ->
    case Flows of
        #{Client := #flow{back = Back, forth = Passes} = Flow} ->
            _ = Passes andalso not State#state.cut andalso send(Back, State#state.server, Packet),
            case Packet of
                <<0:1, _:7, Id:8/binary, _/binary>> ->
                    State#state{flows = Flows#{Client := Flow#flow{id = Id}}};
                _ ->
                    State
            end;
        #{} ->
            Back = open(),
            forth(Client, Packet, State#state{
                flows = Flows#{Client => #flow{back = Back}},
                clients = (State#state.clients)#{Back => Client}
            })
    end.

on(Back, Packet, #state{front = Front, flows = Flows, clients = Clients} = State) ->
    case Clients of
        #{Back := {_, Port} = Client} ->
            #flow{on = Passes, heard = Heard} = Flow = maps:get(Client, Flows),
            _ = Passes andalso not State#state.cut andalso send(Front, Port, Packet),
            case Heard < ?CONVERSATION of
                true -> State#state{flows = Flows#{Client := Flow#flow{heard = Heard + 1}}};
                false -> State
            end;
        #{} ->
            State
    end.

%% A packet that the system does not take is lost.
send(Socket, Port, Packet) -> gen_udp:send(Socket, {127, 0, 0, 1}, Port, Packet).

answer(conversations, #state{flows = Flows} = State) ->
    {length([Heard || #flow{heard = Heard} <- maps:values(Flows), Heard >= ?CONVERSATION]), State};
answer({block, Way}, #state{flows = Flows} = State) ->
    {ok, State#state{flows = maps:map(fun(_, Flow) -> block(Way, Flow) end, Flows)}};
answer({reset, Server}, #state{flows = Flows} = State) ->
    Key = reset_key(Server, State#state.server),
    [
        send(State#state.front, Port, [<<16#40, 0:32>>, token(Id, Key)])
     || {{_, Port}, #flow{id = Id}} <- maps:to_list(Flows)
    ],
    answer({block, both}, State);
answer(rebind, #state{flows = Flows} = State) ->
    New = maps:map(
        fun(_, #flow{back = Back} = Flow) ->
            ok = gen_udp:close(Back),
            Flow#flow{back = open()}
        end,
        Flows
    ),
    Clients = maps:from_list([{Back, Client} || {Client, #flow{back = Back}} <- maps:to_list(New)]),
    {ok, State#state{flows = New, clients = Clients}};
answer({cut, Time}, State) ->
    {ok, healed_in(Time, State#state{cut = true})};
answer(heal, State) ->
    {ok, healed_in(infinity, State#state{cut = false})}.

block(both, Flow) -> Flow#flow{forth = false, on = false};
block(forth, Flow) -> Flow#flow{forth = false};
block(on, Flow) -> Flow#flow{on = false}.

healed_in(infinity, State) -> State#state{timer = undefined};
healed_in(Time, State) -> State#state{timer = erlang:start_timer(Time, self(), healed)}.

%% As streams/reset.go makes them.
reset_key({Node, StateHome}, Port) ->
    {ok, Secret} = file:read_file(filename:join([StateHome, "quic_dist", "reset_secret"])),
    Purpose = ["erldist stateless reset", 0, integer_to_list(Port), 0, atom_to_list(Node)],
    crypto:mac(hmac, sha256, Secret, Purpose).

token(Id, Key) -> binary:part(crypto:mac(hmac, sha256, Key, Id), 0, 16).
