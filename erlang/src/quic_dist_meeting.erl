%% @doc Where the VMs of peers of this host and user meet this one, for local links: a Unix-domain
%% socket with a random name in Linux's abstract namespace.
%%
%% Every local user can connect. So the kernel must say that the other end is of this VM's user; the
%% other end must show the first half of a token that a sidecar has given to both VMs, over an
%% authenticated channel; and this VM answers with the second half. A channel may be expected before
%% or after its token is shown, because the peer's VM may be faster than this one.
%%
%% The name outlives this process (a persistent term), because each sidecar is told it.
-module(quic_dist_meeting).
-behaviour(gen_server).
-behaviour(quic_dist_feature).

-export([start_link/0, name/0, expect/2, is_own_user/1]).
-export_type([token/0]).
-export([topics/0, handle/3]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, format_status/1]).

-type token() :: {Shown :: binary(), Wanted :: binary()}.
%% The halves of a token.

-record(state, {
    listener :: undefined | gen_tcp:socket(),
    %% The process that accepts the next connection, and those that serve one.
    accepting :: undefined | reference(),
    serving = #{} :: #{reference() => pid()},
    %% By the first half of the token: channels whose peer has not come, and peers of whose channel
    %% nothing is known yet.
    expected = #{} :: #{binary() => {Wanted :: binary(), pid(), Channel :: map()}},
    shown = #{} :: #{binary() => gen_server:from()}
}).

%% Milliseconds. For a program that has connected to show a token; for the channel of a token to be
%% heard of; and for the peer of a channel to come, which is also what the sidecar waits.
-define(SHOW_TIMEOUT, 1000).
-define(KNOW_TIMEOUT, 1000).
-define(COME_TIMEOUT, 10000).
%% Programs that have connected and are not known yet. Others wait in the listener's queue.
-define(MAX_SERVING, 64).
-define(BACKLOG, 128).
-define(HALF, 16).

%% unix(7), getsockopt(2).
-define(SOL_SOCKET, 1).
-define(SO_PEERCRED, 17).

%% @doc Starts the process, which listens once a sidecar is up, unless the option `local_links' is
%% `off'.
-spec start_link() -> gen_server:start_ret().
start_link() ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, [], []).

%% @doc The name of the socket, the same for the whole life of the VM; `none' where there is no such
%% socket.
-spec name() -> {ok, binary()} | none.
name() ->
    case {os:type(), persistent_term:get({?MODULE, name}, none)} of
        {{unix, linux}, none} ->
            Name = <<0, "quic_dist-", (random())/binary>>,
            persistent_term:put({?MODULE, name}, Name),
            {ok, Name};
        {{unix, linux}, Name} ->
            {ok, Name};
        _ ->
            none
    end.

%% Not a secret: it is only new.
random() ->
    integer_to_binary(rand:uniform(1 bsl 128), 36).

%% @doc The caller, an acceptor, gets the channel as the message `{accepted, Channel}' with its
%% socket (`local') when the peer's VM has come to the meeting.
-spec expect(token(), Channel :: map()) -> ok.
expect(Token, Channel) ->
    gen_server:cast(?MODULE, {expect, Token, self(), Channel}).

%% @doc Does the kernel say that the other end of a Unix-domain socket is of this VM's user?
-spec is_own_user(gen_tcp:socket()) -> boolean().
is_own_user(Socket) ->
    Own = persistent_term:get({?MODULE, user}, none),
    Own =/= none andalso user(Socket) =:= {ok, Own}.

%% Of a listener it is the user that listens.
user(Socket) ->
    case inet:getopts(Socket, [{raw, ?SOL_SOCKET, ?SO_PEERCRED, 12}]) of
        {ok, [{raw, _, _, <<_Pid:32, User:32/native, _Group:32>>}]} -> {ok, User};
        _ -> error
    end.

%% @private
-spec topics() -> [quic_dist_feature:topic(), ...].
topics() ->
    [sidecar_up].

%% @private In the process of the sidecar's owner.
-spec handle(quic_dist_feature:topic(), map(), quic_dist_feature:context()) -> ok.
handle(sidecar_up, _, #{options := #{local_links := off}}) -> ok;
handle(sidecar_up, _, _) -> gen_server:cast(?MODULE, listen).

%% gen_server

%% @private
-spec init([]) -> {ok, #state{}}.
init([]) ->
    %% A successor listens at once, where its predecessor did.
    persistent_term:get({?MODULE, user}, none) =/= none andalso gen_server:cast(self(), listen),
    {ok, #state{}}.

%% @private Tokens stay out of crash reports and `sys:get_status/1'.
-spec format_status(gen_server:format_status()) -> gen_server:format_status().
format_status(Status) ->
    maps:map(
        fun
            (state, #state{} = State) -> State#state{expected = #{}, shown = #{}};
            (Key, _) when Key =:= message; Key =:= log -> '***';
            (_, Value) -> Value
        end,
        Status
    ).

%% @private A program shows a token: it gets the answer, and the acceptor and the channel that the
%% token is for.
-spec handle_call({show, binary()}, gen_server:from(), #state{}) -> {noreply, #state{}}.
handle_call({show, Half}, From, #state{expected = Expected, shown = Shown} = State) ->
    case maps:take(Half, Expected) of
        {Answer, Rest} ->
            gen_server:reply(From, Answer),
            {noreply, State#state{expected = Rest}};
        error ->
            {noreply, State#state{shown = Shown#{Half => From}}}
    end.

%% @private
-spec handle_cast(term(), #state{}) -> {noreply, #state{}}.
handle_cast(listen, #state{listener = undefined} = State) ->
    {noreply, listen(State)};
handle_cast(listen, State) ->
    {noreply, State};
handle_cast({expect, {Half, Wanted}, Acceptor, Channel}, State) ->
    #state{expected = Expected, shown = Shown} = State,
    Answer = {Wanted, Acceptor, Channel},
    case maps:take(Half, Shown) of
        {From, Rest} ->
            gen_server:reply(From, Answer),
            {noreply, State#state{shown = Rest}};
        error ->
            _ = erlang:send_after(?COME_TIMEOUT, self(), {late, Half}),
            {noreply, State#state{expected = Expected#{Half => Answer}}}
    end.

%% @private
-spec handle_info(term(), #state{}) -> {noreply, #state{}}.
handle_info({late, Half}, #state{expected = Expected} = State) ->
    {noreply, State#state{expected = maps:remove(Half, Expected)}};
handle_info({connected, Pid}, #state{accepting = Monitor, serving = Serving} = State) ->
    {noreply, accept(State#state{accepting = undefined, serving = Serving#{Monitor => Pid}})};
handle_info({'DOWN', Monitor, process, _, _}, #state{accepting = Monitor} = State) ->
    %% The listener is closed.
    {noreply, State#state{accepting = undefined, listener = undefined}};
handle_info({'DOWN', Monitor, process, Pid, _}, #state{serving = Serving, shown = Shown} = State) ->
    Others = maps:filter(fun(_, {Of, _}) -> Of =/= Pid end, Shown),
    {noreply, accept(State#state{serving = maps:remove(Monitor, Serving), shown = Others})}.

%% The listener

listen(State) ->
    case name() of
        {ok, Name} -> listen(Name, State);
        none -> State
    end.

listen(Name, State) ->
    Options = [
        {inet_backend, inet},
        local,
        {ifaddr, {local, Name}},
        {active, false},
        {packet, 4},
        {packet_size, ?HALF},
        {backlog, ?BACKLOG}
    ],
    case gen_tcp:listen(0, Options) of
        {ok, Listener} ->
            case user(Listener) of
                {ok, User} ->
                    persistent_term:put({?MODULE, user}, User),
                    accept(State#state{listener = Listener});
                error ->
                    ok = gen_tcp:close(Listener),
                    no_local_links("the kernel does not tell the users of sockets", State)
            end;
        {error, Reason} ->
            no_local_links(inet:format_error(Reason), State)
    end.

no_local_links(Why, State) ->
    quic_dist_log:log(info, ["no local links: ", Why], []),
    State.

%% One process accepts, unless too many serve.
accept(#state{accepting = undefined, serving = Serving, listener = Listener} = State) when
    Listener =/= undefined, map_size(Serving) < ?MAX_SERVING
->
    Server = self(),
    {_, Monitor} = spawn_monitor(fun() -> accept(Server, Listener) end),
    State#state{accepting = Monitor};
accept(State) ->
    State.

accept(Server, Listener) ->
    case gen_tcp:accept(Listener) of
        {ok, Socket} ->
            Server ! {connected, self()},
            is_own_user(Socket) andalso serve(Server, Socket);
        {error, closed} ->
            ok;
        {error, _} ->
            %% The VM has no descriptor left, perhaps.
            receive
            after ?SHOW_TIMEOUT -> accept(Server, Listener)
            end
    end.

%% Closes the socket by its end, unless that has another owner.
serve(Server, Socket) ->
    case gen_tcp:recv(Socket, 0, ?SHOW_TIMEOUT) of
        {ok, Half} ->
            try gen_server:call(Server, {show, list_to_binary(Half)}, ?KNOW_TIMEOUT) of
                {Wanted, Acceptor, Channel} -> hand_over(Socket, Wanted, Acceptor, Channel)
            catch
                %% No channel waits for this token.
                exit:_ -> ok
            end;
        {error, _} ->
            ok
    end.

hand_over(Socket, Wanted, Acceptor, Channel) ->
    case gen_tcp:send(Socket, Wanted) of
        ok ->
            _ = inet:setopts(Socket, [{packet_size, 0}]),
            _ = gen_tcp:controlling_process(Socket, Acceptor),
            Acceptor ! {accepted, Channel#{local => Socket}},
            ok;
        {error, _} ->
            ok
    end.
