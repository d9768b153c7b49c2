%% @doc The `stdio' data plane: a channel's data travels as frames on the sidecar's standard input
%% and output, moved by two processes. It works wherever a port program does.
%%
%% ```
%%   emulator --dist_ctrl_get_data--> output handler --data frames--> port --> sidecar
%%   emulator <--dist_ctrl_put_data-- input handler <--{data, _}-- quic_dist_sidecar <-- sidecar
%% '''
%%
%% The output handler is the distribution controller. It and the input handler are linked, and the
%% output handler to the connection supervisor: they end together. Neither traps exits, so that
%% net_kernel's `exit(Controller, disconnect)' works at once and a simultaneous connect cannot
%% wedge.
%%
%% Back-pressure, outwards: without credit from the sidecar the output handler takes no more data
%% from the emulator, whose own queue then fills up and suspends senders (`busy_dist_port').
%% Inwards: the input handler grants credit for what it has given to the emulator.
-module(quic_dist_stdio).
-behaviour(quic_dist_plane).

-export([open/1, hand_over/2, hs_data/1]).

-include_lib("kernel/include/dist_util.hrl").

-record(ctrl, {
    output :: pid(),
    input :: pid()
}).

-record(out, {
    port :: port(),
    %% The front of every data frame of this channel.
    header :: binary(),
    credit :: integer(),
    dhandle :: undefined | erlang:dist_handle(),
    %% Does the emulator owe a notification of new data? It is not asked while there is no credit.
    armed = false :: boolean(),
    %% Does a tick wait for credit? One tick is enough.
    tick = false :: boolean(),
    %% The caller that waits until the emulator has nothing left to write.
    flush :: undefined | reference()
}).

-record(in, {
    port :: port(),
    id :: non_neg_integer(),
    owner :: reference(),
    dhandle :: undefined | erlang:dist_handle(),
    %% Has the channel ended before the end of the handshake?
    closed = false :: boolean(),
    %% Bytes consumed for which no credit has been granted.
    owed = 0 :: non_neg_integer(),
    %% The beginning of a distribution frame, newest part first, its size, and the size wanted.
    parts = [] :: [binary()],
    have = 0 :: non_neg_integer(),
    want = 4 :: pos_integer()
}).

%% Bytes that the sidecar may send before it gets credit again: several of its reads.
-define(WINDOW, 16#100000).
%% Credit is granted in pieces of this size, so that it costs one frame for each 256 KB.
-define(GRANT, (?WINDOW div 4)).
%% Bytes that the output handler gathers before it writes.
-define(BATCH, 16#10000).

%% @private After it has returned the output handler owns the channel, so nothing can be written
%% after the channel's close.
-spec open(quic_dist_channel:channel()) -> {ok, #ctrl{}} | {error, term()}.
open(Channel) ->
    Caller = self(),
    Options = [link, {priority, max}, {message_queue_data, off_heap}, {fullsweep_after, 0}],
    Output = spawn_opt(fun() -> output_init(Channel, Caller, Options) end, Options),
    Monitor = monitor(process, Output),
    receive
        {Output, attached, Input} ->
            demonitor(Monitor, [flush]),
            {ok, #ctrl{output = Output, input = Input}};
        {'DOWN', Monitor, process, Output, Reason} ->
            {error, Reason}
    end.

%% @private
-spec hand_over(#ctrl{}, pid()) -> ok | {error, closed}.
hand_over(#ctrl{output = Output}, Supervisor) ->
    call(Output, {hand_over, Supervisor}).

%% @private
-spec hs_data(#ctrl{}) -> #hs_data{}.
hs_data(#ctrl{} = Ctrl) ->
    #hs_data{
        socket = Ctrl,
        this_flags = 0,
        f_send = fun(#ctrl{output = Output}, Data) -> call(Output, {send, Data}) end,
        f_recv = fun(#ctrl{input = Input}, 0, infinity) -> call(Input, recv) end,
        f_setopts_pre_nodeup = fun(_) -> ok end,
        f_setopts_post_nodeup = fun(_) -> ok end,
        f_getll = fun(#ctrl{output = Output}) -> {ok, Output} end,
        f_handshake_complete = fun(#ctrl{output = Output}, _Node, DHandle) ->
            ok = call(Output, {handshake_complete, DHandle})
        end,
        mf_tick = fun(#ctrl{output = Output}) ->
            Output ! tick,
            ok
        end
    }.

call(Pid, Request) ->
    Ref = monitor(process, Pid, [{alias, reply_demonitor}]),
    Pid ! {Ref, Request},
    receive
        {Ref, Reply} -> Reply;
        {'DOWN', Ref, process, Pid, _} -> {error, closed}
    end.

reply(Ref, Reply) ->
    Ref ! {Ref, Reply},
    ok.

%% The output handler: the distribution controller

output_init(#{port := Port, id := Id, credit := Credit} = Channel, Caller, Options) ->
    Output = self(),
    Input = spawn_opt(fun() -> input_init(Channel, Output, Caller) end, Options),
    Out = #out{port = Port, header = quic_dist_proto:data_header(Id), credit = Credit},
    output_handshake(Out, Caller, Input).

output_handshake(Out, Owner, Input) ->
    receive
        {Ref, {send, Data}} ->
            Frame = [<<(iolist_size(Data)):32>>, Data],
            Out1 = write(Frame, iolist_size(Frame), Out),
            reply(Ref, ok),
            output_handshake(Out1, Owner, Input);
        {credit, Bytes} ->
            output_handshake(add_credit(Bytes, Out), Owner, Input);
        {Ref, {hand_over, Supervisor}} ->
            unlink(Owner),
            try link(Supervisor) of
                true -> reply(Ref, ok)
            catch
                error:noproc -> exit(normal)
            end,
            output_handshake(Out, Supervisor, Input);
        {Ref, {handshake_complete, DHandle}} ->
            ok = erlang:dist_ctrl_input_handler(DHandle, Input),
            Input ! {handshake_complete, DHandle},
            false = erlang:dist_ctrl_set_opt(DHandle, get_size, true),
            process_flag(priority, normal),
            reply(Ref, ok),
            output(arm(Out#out{dhandle = DHandle}));
        tick ->
            output_handshake(Out, Owner, Input)
    end.

%% The emulator has nothing left.
arm(#out{dhandle = DHandle, flush = Flush} = Out) ->
    flushed(Flush),
    erlang:dist_ctrl_get_data_notification(DHandle),
    Out#out{armed = true, flush = undefined}.

flushed(undefined) ->
    ok;
flushed(Ref) ->
    Ref ! {flushed, Ref},
    ok.

output(Out) ->
    receive
        Message -> output(Message, Out)
    end.

output(dist_data, Out) ->
    gather(Out#out{armed = false});
output({credit, Bytes}, Out0) ->
    Out = add_credit(Bytes, Out0),
    case Out of
        #out{credit = Credit} when Credit =< 0 -> output(Out);
        #out{tick = true} -> gather(write_tick(Out));
        #out{armed = false} -> gather(Out);
        #out{armed = true} -> output(Out)
    end;
output(tick, #out{credit = Credit} = Out) when Credit > 0 ->
    output(write_tick(Out));
output(tick, Out) ->
    output(Out#out{tick = true});
output({flush, Ref}, #out{armed = true} = Out) ->
    %% The emulator may have data that it has not notified us of yet.
    gather(Out#out{flush = Ref});
output({flush, Ref}, Out) ->
    output(Out#out{flush = Ref});
output(Unknown, Out) ->
    quic_dist_log:log(warning, "unexpected message to an output handler", [{message, Unknown}]),
    output(Out).

%% Moves the emulator's data to the sidecar, as far as there is credit. Between two batches it reads
%% the mailbox, so that a sender that never pauses delays neither ticks nor credit.
gather(#out{credit = Credit} = Out) when Credit =< 0 ->
    output(Out);
gather(#out{dhandle = DHandle} = Out0) ->
    case take(DHandle, 0, []) of
        {0, _, []} ->
            output(arm(Out0));
        {Size, none, Batch} ->
            output(arm(write(Batch, Size, Out0#out{tick = false})));
        {Size, more, Batch} ->
            Out = write(Batch, Size, Out0#out{tick = false}),
            receive
                {credit, Bytes} -> gather(add_credit(Bytes, Out));
                tick -> gather(Out)
            after 0 ->
                gather(Out)
            end
    end.

take(_, Size, Acc) when Size >= ?BATCH ->
    {Size, more, lists:reverse(Acc)};
take(DHandle, Size, Acc) ->
    case erlang:dist_ctrl_get_data(DHandle) of
        {FrameSize, Frame} ->
            take(DHandle, Size + 4 + FrameSize, [[<<FrameSize:32>> | Frame] | Acc]);
        none ->
            {Size, none, lists:reverse(Acc)}
    end.

write_tick(Out) ->
    write(<<0:32>>, 4, Out#out{tick = false}).

%% `port_command/2' suspends us while the pipe is full. The sidecar always reads the pipe, whatever
%% its peers do, and if the sidecar dies the port closes.
write(Data, Size, #out{port = Port, header = Header, credit = Credit} = Out) ->
    case Size =< quic_dist_proto:max_payload() of
        true ->
            command(Port, [Header | Data]),
            Out#out{credit = Credit - Size};
        false ->
            write_pieces(erlang:iolist_to_iovec(Data), Out)
    end.

%% A frame over the payload's limit. The emulator makes one of a message that it cannot fragment,
%% such as one that is sent while the connection is set up. It may have gigabytes, so it is not
%% copied.
write_pieces([], Out) ->
    Out;
write_pieces(Parts, #out{credit = Credit} = Out) when Credit =< 0 ->
    receive
        {credit, Bytes} -> write_pieces(Parts, add_credit(Bytes, Out))
    end;
write_pieces(Parts, Out) ->
    {Piece, Size, Rest} = piece(Parts, quic_dist_proto:max_payload(), []),
    write_pieces(Rest, write(Piece, Size, Out)).

%% The first bytes of a list of binaries, at most this many.
piece([Part | Parts], Room, Acc) when byte_size(Part) =< Room ->
    piece(Parts, Room - byte_size(Part), [Part | Acc]);
piece([Part | Parts], Room, Acc) when Room > 0 ->
    <<Fits:Room/binary, Rest/binary>> = Part,
    piece([Rest | Parts], 0, [Fits | Acc]);
piece(Parts, Room, Acc) ->
    {lists:reverse(Acc), quic_dist_proto:max_payload() - Room, Parts}.

command(Port, Frame) ->
    try
        true = erlang:port_command(Port, Frame),
        ok
    catch
        error:badarg -> exit(connection_closed)
    end.

add_credit(Bytes, #out{credit = Credit} = Out) ->
    Out#out{credit = Credit + Bytes}.

%% The input handler

input_init(#{port := Port, id := Id} = Channel, Output, Caller) ->
    Owner = monitor(process, quic_dist_sidecar),
    case quic_dist_channel:attach(Channel, self(), Output) of
        ok ->
            Caller ! {Output, attached, self()},
            command(Port, quic_dist_proto:credit(Id, ?WINDOW)),
            input_handshake(#in{port = Port, id = Id, owner = Owner}, []);
        {error, _} ->
            exit(connection_closed)
    end.

%% Frames of the handshake wait here, oldest first, until dist_util asks for them. Frames right
%% behind its last one wait until the emulator is ready. The window bounds them.
%%
%% If the channel closes in this state, dist_util gets an error when it asks for more, and no
%% process ends: of two simultaneous attempts the one that is told "nok" must wait for the other,
%% and net_kernel ends it.
input_handshake(#in{owner = Owner, closed = Closed} = In, Frames) ->
    receive
        {data, Payload} ->
            {New, In1} = cut(Payload, In),
            input_handshake(owe(byte_size(Payload), In1), Frames ++ New);
        {Ref, recv} when Frames =/= [] ->
            reply(Ref, {ok, binary_to_list(hd(Frames))}),
            input_handshake(In, tl(Frames));
        {Ref, recv} when Closed ->
            reply(Ref, {error, closed}),
            input_handshake(In, Frames);
        {handshake_complete, DHandle} ->
            process_flag(priority, normal),
            put_frames(DHandle, Frames),
            not Closed orelse exit(connection_closed),
            input(In#in{dhandle = DHandle});
        closed ->
            input_handshake(In#in{closed = true}, Frames);
        {'DOWN', Owner, process, _, _} ->
            input_handshake(In#in{closed = true}, Frames)
    end.

input(#in{owner = Owner} = In) ->
    receive
        {data, Payload} ->
            input(owe(byte_size(Payload), deliver(Payload, In)));
        closed ->
            %% The emulator has got all data that arrived before.
            exit(connection_closed);
        {'DOWN', Owner, process, _, _} ->
            exit(connection_closed);
        Unknown ->
            quic_dist_log:log(warning, "unexpected message to an input handler", [
                {message, Unknown}
            ]),
            input(In)
    end.

owe(Bytes, #in{owed = Owed, port = Port, id = Id} = In) ->
    case Owed + Bytes of
        Due when Due >= ?GRANT ->
            command(Port, quic_dist_proto:credit(Id, Due)),
            In#in{owed = 0};
        Due ->
            In#in{owed = Due}
    end.

%% The sidecar cuts where frames end, so the first clause is almost always enough.
deliver(Payload, #in{parts = [], dhandle = DHandle} = In) ->
    case put_whole(DHandle, Payload) of
        <<>> ->
            In;
        Rest ->
            {[], In1} = cut(Rest, In),
            In1
    end;
deliver(Payload, #in{dhandle = DHandle} = In0) ->
    {Frames, In} = cut(Payload, In0),
    put_frames(DHandle, Frames),
    In.

put_whole(DHandle, <<Size:32, Frame:Size/binary, Rest/binary>>) ->
    erlang:dist_ctrl_put_data(DHandle, Frame),
    put_whole(DHandle, Rest);
put_whole(_, Rest) ->
    Rest.

put_frames(DHandle, Frames) ->
    lists:foreach(fun(Frame) -> erlang:dist_ctrl_put_data(DHandle, Frame) end, Frames).

%% Cuts at any byte: gives whole frames, oldest first, and keeps the rest in the state. Parts are
%% joined once, when a frame is complete.
cut(Payload, #in{parts = Parts, have = Have0, want = Want} = In) ->
    case Have0 + byte_size(Payload) of
        Have when Have < Want ->
            {[], In#in{parts = [Payload | Parts], have = Have}};
        _ ->
            Bytes = iolist_to_binary(lists:reverse(Parts, [Payload])),
            whole(Bytes, In#in{parts = [], have = 0, want = 4}, [])
    end.

whole(<<Size:32, Frame:Size/binary, Rest/binary>>, In, Acc) ->
    whole(Rest, In, [Frame | Acc]);
whole(<<>>, In, Acc) ->
    {lists:reverse(Acc), In};
whole(Rest, In, Acc) ->
    {lists:reverse(Acc), In#in{parts = [Rest], have = byte_size(Rest), want = wanted(Rest)}}.

wanted(<<Size:32, _/binary>>) -> 4 + Size;
wanted(_) -> 4.
