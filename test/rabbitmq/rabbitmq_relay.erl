%% @doc A relay for UDP between one node that dials and one that accepts, as a NAT is one: each
%% source address has a flow, with a socket of its own towards the acceptor. The test breaks flows.
-module(rabbitmq_relay).

-export([start/1, port/1, break/2, cut/2, busy/1, flows/1]).
-export_type([relay/0, kind/0]).

%% `node' and `port' are the acceptor's. `secret' is the file from which the sidecar makes the keys
%% of its stateless resets.
-type acceptor() :: #{
    node := string(), port := inet:port_number(), secret := file:filename()
}.

-type kind() :: forget | forth | back | reset | rebind.
%% The flows that are there: no packet passes; none to the acceptor; none from it; no packet passes
%% and the dialler gets a stateless reset; the port that the acceptor sees changes.

-opaque relay() :: {pid(), inet:port_number()}.

-record(flow, {
    socket :: gen_udp:socket(),
    source :: {inet:ip_address(), inet:port_number()},
    forth = true :: boolean(),
    back = true :: boolean(),
    %% The acceptor's connection ID in the last packet that has a short header.
    id = <<>> :: binary(),
    %% Packets from the acceptor that have passed since the last break/2 or cut/2.
    answers = 0 :: non_neg_integer()
}).

-record(state, {
    front :: gen_udp:socket(),
    acceptor :: acceptor(),
    cut = false :: boolean(),
    flows = #{} :: #{gen_udp:socket() => #flow{}}
}).

%% A resumed channel has at least so many packets soon. Lone questions to the port have fewer.
-define(BUSY, 10).
-define(LOOPBACK, {127, 0, 0, 1}).

%% @doc Starts a relay, which ends with the caller.
-spec start(acceptor()) -> relay().
start(Acceptor) ->
    Caller = self(),
    Pid = spawn_link(fun() ->
        Front = open(),
        {ok, Port} = inet:port(Front),
        Caller ! {self(), Port},
        loop(#state{front = Front, acceptor = Acceptor})
    end),
    receive {Pid, Port} -> {Pid, Port} end.

%% @doc The UDP port to which the dialler sends.
-spec port(relay()) -> inet:port_number().
port({_, Port}) -> Port.

%% @doc Breaks the flows that there are. New flows pass, and those that were broken before are new.
-spec break(relay(), kind()) -> ok.
break(Relay, Kind) -> ask(Relay, {break, Kind}).

%% @doc Lets no packet pass, or all again, and counts from now on for busy/1.
-spec cut(relay(), boolean()) -> ok.
cut(Relay, Cut) -> ask(Relay, {cut, Cut}).

%% @doc Has a flow carried a connection since the last break/2 or cut/2?
-spec busy(relay()) -> boolean().
busy(Relay) -> ask(Relay, busy).

%% @doc The flows for a message: source, whether packets pass to and from the acceptor, and how many
%% came from it since the last break/2 or cut/2.
-spec flows(relay()) -> [tuple()].
flows(Relay) -> ask(Relay, flows).

ask({Pid, _}, Question) ->
    Pid ! {ask, self(), Question},
    receive {Pid, Answer} -> Answer end.

open() ->
    {ok, Socket} = gen_udp:open(0, [
        binary, {ip, ?LOOPBACK}, {active, true}, {recbuf, 4194304}, {sndbuf, 4194304}
    ]),
    Socket.

loop(#state{front = Front} = State) ->
    receive
        {udp, Front, Ip, Port, Packet} -> loop(forth({Ip, Port}, Packet, State));
        {udp, Socket, _, _, Packet} -> loop(back(Socket, Packet, State));
        {ask, From, Question} ->
            {Answer, State1} = answer(Question, State),
            From ! {self(), Answer},
            loop(State1)
    end.

forth(Source, Packet, State0) ->
    {Flow0, #state{acceptor = #{port := Port}, flows = Flows} = State} = flow(Source, State0),
    Flow =
        case Packet of
            <<0:1, _:7, Id:8/binary, _/binary>> -> Flow0#flow{id = Id};
            _ -> Flow0
        end,
    send(Flow#flow.forth, State, Flow#flow.socket, {?LOOPBACK, Port}, Packet),
    State#state{flows = Flows#{Flow#flow.socket => Flow}}.

flow(Source, #state{flows = Flows} = State) ->
    case [Flow || #flow{source = From} = Flow <- maps:values(Flows), From =:= Source] of
        [Flow] -> {Flow, State};
        [] -> {#flow{socket = open(), source = Source}, State}
    end.

back(Socket, Packet, #state{front = Front, flows = Flows} = State) ->
    case Flows of
        #{Socket := #flow{source = Source, back = Back, answers = Answers} = Flow} ->
            case send(Back, State, Front, Source, Packet) of
                true -> State#state{flows = Flows#{Socket := Flow#flow{answers = Answers + 1}}};
                false -> State
            end;
        #{} ->
            State
    end.

%% A full buffer loses a packet, as on any path.
send(true, #state{cut = false}, Socket, To, Packet) ->
    _ = gen_udp:send(Socket, To, Packet),
    true;
send(_, _, _, _, _) ->
    false.

answer(busy, #state{flows = Flows} = State) ->
    {lists:any(fun is_busy/1, maps:values(Flows)), State};
answer(flows, #state{flows = Flows} = State) ->
    Facts = [
        {Source, Forth, Back, Answers}
     || #flow{source = Source, forth = Forth, back = Back, answers = Answers} <- maps:values(Flows)
    ],
    {Facts, State};
answer({cut, Cut}, #state{flows = Flows} = State) ->
    {ok, State#state{cut = Cut, flows = maps:map(fun(_, F) -> F#flow{answers = 0} end, Flows)}};
answer({break, Kind}, #state{flows = Flows} = State) ->
    {Whole, Broken} = lists:partition(fun is_whole/1, maps:values(Flows)),
    [gen_udp:close(Socket) || #flow{socket = Socket} <- Broken],
    New = [broken(Kind, Flow#flow{answers = 0}, State) || Flow <- Whole],
    {ok, State#state{flows = maps:from_list([{Flow#flow.socket, Flow} || Flow <- New])}}.

is_whole(#flow{forth = Forth, back = Back}) -> Forth andalso Back.

is_busy(#flow{answers = Answers} = Flow) -> is_whole(Flow) andalso Answers >= ?BUSY.

broken(forget, Flow, _) ->
    Flow#flow{forth = false, back = false};
broken(forth, Flow, _) ->
    Flow#flow{forth = false};
broken(back, Flow, _) ->
    Flow#flow{back = false};
broken(rebind, #flow{socket = Socket} = Flow, _) ->
    ok = gen_udp:close(Socket),
    Flow#flow{socket = open()};
broken(reset, #flow{id = Id, source = Source} = Flow, State) ->
    #state{front = Front, acceptor = Acceptor} = State,
    _ = gen_udp:send(Front, Source, [<<16#40, 1, 2, 3, 4>>, token(Id, Acceptor)]),
    broken(forget, Flow, State).

%% As streams/reset.go makes it.
token(Id, #{node := Node, port := Port, secret := File}) ->
    {ok, Secret} = file:read_file(File),
    Purpose = ["erldist stateless reset", 0, integer_to_list(Port), 0, Node],
    Key = crypto:mac(hmac, sha256, Secret, Purpose),
    binary:part(crypto:mac(hmac, sha256, Key, Id), 0, 16).
