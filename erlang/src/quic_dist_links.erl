%% @doc The links of this node to its peers, over QUIC, local and over HTTP, from their beginning to
%% their end, and failed attempts. This process logs them, tells {@link quic_dist_events}, and sends
%% the status page what the sidecar does not know.
%%
%% The core tells of channels, and each connection supervisor tells when its distribution handshake
%% is over. Only then is a link up: its peer has a name that this VM knows, which may differ from
%% the name that the peer gave the sidecar (a peer may ask for a name). The sidecar may have given
%% the socket of a link over HTTP away, so the figures of that link are those that this VM counts.
%%
%% No process waits for this one but {@link known/0}, and it waits for none.
-module(quic_dist_links).
-behaviour(gen_server).
-behaviour(quic_dist_feature).

-export([start_link/0]).
-export([topics/0, handle/3]).
-export([tell/1, watch/2, repeated/5, failed/2]).
-export([known/0, figures/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).
-export_type([link/0, internal_event/0, web/0]).

-include_lib("kernel/include/dist_util.hrl").

-type link() :: {channel, Id :: non_neg_integer()} | {web, web()}.
%% By which a connection supervisor names its link.

-type web() :: #{
    carrier := local | webdist_config:carrier(),
    direction := dialled | accepted,
    address := {inet:ip_address(), inet:port_number()},
    identity := quic_dist_report:identity(),
    url => binary()
}.
%% A link on a socket of this VM: over HTTP, or local. The address is the other end of the
%% connection, a proxy perhaps; of a local link it is that of the peer's sidecar.

-type internal_event() ::
    {channel_up, Id :: non_neg_integer(), Fields :: map()}
    | {channel_down, Id :: non_neg_integer(), Reason :: atom(), Text :: binary()}
    | {sidecar_up, Fields :: map(), Page :: boolean()}
    | {sidecar_down, Text :: string()}
    | {certificates, [quic_dist_report:certificate()]}
    | {socket, port(), web()}
    | quic_dist_events:event().
%% What the core and the carriers tell. A `socket' is one that another carrier uses: no one tells
%% when its handshake is over. `Page': is there a status page?

-record(link, {
    %% The fields of its events. The node is the one that the peer claims until the link is up.
    fields :: map(),
    since :: integer(),
    up = false :: boolean()
}).

-record(state, {
    channels = #{} :: #{non_neg_integer() => #link{}},
    %% Links over HTTP, by the monitor of their port.
    sockets = #{} :: #{reference() => {port(), #link{}}},
    repeats = quic_dist_repeats:new() :: quic_dist_repeats:repeats(),
    %% Those that the sidecar uses from files.
    certificates = [] :: [quic_dist_report:certificate()],
    page = false :: boolean(),
    %% For the page: a timer runs; and the last events, the youngest first.
    ticking = false :: boolean(),
    recent = [] :: [map()]
}).

%% Links in one message, and events that are kept for the next sidecar's page.
-define(PAGE, 32).
-define(RECENT, 50).
%% Milliseconds.
-define(TICK, 1000).
-define(CALL_TIMEOUT, 5000).
%% Characters of a text on the page.
-define(TEXT, 500).

%% @private
-spec start_link() -> gen_server:start_ret().
start_link() ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, [], []).

%% @private
-spec topics() -> [quic_dist_feature:topic(), ...].
topics() ->
    [sidecar_up, sidecar_down, listening, channel_up, channel_down, log, certificates].

%% @private In the process of the sidecar's owner.
-spec handle(quic_dist_feature:topic(), map(), quic_dist_feature:context()) -> ok | broken.
handle(sidecar_up, Fields, #{options := Options}) ->
    tell({sidecar_up, Fields, is_map_key(status_port, Options)});
handle(sidecar_down, #{text := Text}, _) ->
    tell({sidecar_down, Text});
handle(listening, #{address := Address}, _) ->
    tell(#{event => listening, address => Address});
handle(channel_up, #{channel := Id} = Fields, #{options := Options}) ->
    Identity = quic_dist_report:identity(maps:get(identity, Fields, <<>>), Options),
    tell({channel_up, Id, Fields#{identity => Identity}});
handle(channel_down, #{channel := Id, reason := Reason, text := Text}, _) ->
    tell({channel_down, Id, Reason, Text});
handle(log, Line, #{options := #{log_level := Least}}) ->
    case quic_dist_report:event(Line) of
        {ok, Event} -> tell(Event);
        none -> ok
    end,
    quic_dist_report:log(Line, Least);
handle(certificates, #{certificates := Found}, #{options := Options}) ->
    case quic_dist_report:certificates(Found, Options) of
        {ok, Certificates} -> tell({certificates, Certificates});
        error -> broken
    end.

%% @doc Tells what has happened. Does not wait.
-spec tell(internal_event()) -> ok.
tell(Event) ->
    gen_server:cast(?MODULE, Event).

%% @doc The handshake record of a link, with a callback that tells this process when the handshake
%% is over.
-spec watch(link(), #hs_data{}) -> #hs_data{}.
watch(Link, #hs_data{f_handshake_complete = Complete} = Hs) ->
    Hs#hs_data{
        f_handshake_complete = fun(Ctrl, Node, DHandle) ->
            case Complete of
                undefined -> ok;
                _ -> Complete(Ctrl, Node, DHandle)
            end,
            gen_server:cast(?MODULE, {complete, Link, Ctrl, Node})
        end
    }.

%% @doc Logs a line about a link, once a minute with the number of times if the same reason `Why'
%% repeats for the same `Key'.
-spec repeated(
    Key :: term(),
    logger:level(),
    Text :: unicode:chardata(),
    Why :: unicode:chardata(),
    quic_dist_log:facts()
) -> ok.
repeated(Key, Level, Text, Why, Facts) ->
    gen_server:cast(?MODULE, {repeated, Key, Level, Text, Why, Facts}).

%% @doc This node did not reach a peer.
-spec failed(node(), Why :: unicode:chardata()) -> ok.
failed(Node, Why) ->
    Reason = unicode:characters_to_binary(Why),
    Text = ["cannot connect to ", atom_to_binary(Node), ": ", Reason],
    repeated({connect, Node}, warning, Text, Reason, []),
    tell(#{event => connect_failed, node => Node, text => Reason}).

%% @doc The names of the peers whose channels are up; the links over HTTP, with their ports and the
%% times when they began, in milliseconds of monotonic time; and the sidecar's certificates.
-spec known() ->
    #{
        names := #{non_neg_integer() => node()},
        webs := [{node(), port(), Since :: integer(), web()}],
        certificates := [quic_dist_report:certificate()]
    }.
known() ->
    try
        gen_server:call(?MODULE, known, ?CALL_TIMEOUT)
    catch
        exit:_ -> #{names => #{}, webs => [], certificates => []}
    end.

%% @doc What this VM counts at a socket: bytes sent, received, and waiting to be sent.
-spec figures(port()) -> {ok, Sent, Received, Queued} | error when
    Sent :: quic_dist_info:amount(), Received :: quic_dist_info:amount(), Queued :: integer().
figures(Port) ->
    Keys = [send_oct, send_cnt, recv_oct, recv_cnt, send_pend],
    case inet:getstat(Port, Keys) of
        {ok, Counts} ->
            [SentBytes, Sent, ReceivedBytes, Received, Queued] =
                [proplists:get_value(Key, Counts) || Key <- Keys],
            {ok, #{bytes => SentBytes, packets => Sent},
                #{bytes => ReceivedBytes, packets => Received}, Queued};
        {error, _} ->
            error
    end.

%% gen_server

%% @private
-spec init([]) -> {ok, #state{}}.
init([]) ->
    {ok, #state{}}.

%% @private
-spec handle_call(known, gen_server:from(), #state{}) -> {reply, term(), #state{}}.
handle_call(known, _, #state{channels = Channels, certificates = Certificates} = State) ->
    Names = maps:map(
        fun(_, #link{fields = #{node := Node}}) -> Node end,
        maps:filter(fun(_, #link{up = Up}) -> Up end, Channels)
    ),
    {reply, #{names => Names, webs => sockets(State), certificates => Certificates}, State}.

%% @private
-spec handle_cast(term(), #state{}) -> {noreply, #state{}}.
handle_cast({channel_up, Id, Fields}, #state{channels = Channels} = State) ->
    {noreply, State#state{channels = Channels#{Id => new_link(Fields#{carrier => quic})}}};
handle_cast({complete, {channel, Id}, _, Node}, #state{channels = Channels} = State) ->
    case Channels of
        #{Id := #link{fields = Fields} = Link0} ->
            Link = Link0#link{fields = Fields#{node := Node}, up = true},
            {noreply, is_up(Link, State#state{channels = Channels#{Id := Link}})};
        #{} ->
            %% It has ended meanwhile.
            {noreply, State}
    end;
handle_cast({complete, {web, Web}, Port, Node}, State0) ->
    Link = (new_link(Web#{node => Node}))#link{up = true},
    State = is_up(Link, add_socket(Port, Link, State0)),
    {noreply, show(State)};
handle_cast({socket, Port, Web}, State) ->
    {noreply, show(add_socket(Port, new_link(Web), State))};
handle_cast({channel_down, Id, Reason, Text}, #state{channels = Channels} = State) ->
    case maps:take(Id, Channels) of
        {Link, Rest} ->
            {noreply, is_down(Link, Reason, Text, State#state{channels = Rest})};
        error ->
            {noreply, State}
    end;
handle_cast({sidecar_up, Fields, Page}, State0) ->
    quic_dist_events:tell(Fields#{event => sidecar_up}),
    #state{recent = Recent} = State = State0#state{page = Page},
    Page andalso lists:foreach(fun send_happened/1, lists:reverse(Recent)),
    {noreply, show(State)};
handle_cast({sidecar_down, Text}, #state{channels = Channels} = State0) ->
    Reason = unicode:characters_to_binary(Text),
    State1 = State0#state{channels = #{}, certificates = []},
    State = maps:fold(
        fun(_, Link, State) -> is_down(Link, sidecar_down, Reason, State) end, State1, Channels
    ),
    {noreply, happened(#{event => sidecar_down, text => Reason}, State)};
handle_cast({certificates, Certificates}, State) ->
    Event = #{event => certificates, certificates => quic_dist_report:days_left(Certificates)},
    {noreply, happened(Event, State#state{certificates = Certificates})};
handle_cast({repeated, Key, Level, Text, Why, Facts}, #state{repeats = Repeats0} = State) ->
    {Say, Repeats} = quic_dist_repeats:add(Key, Why, now_ms(), Repeats0),
    case Say of
        say ->
            quic_dist_log:log(link, Level, Text, Facts);
        {again, Times} ->
            quic_dist_log:log(link, Level, Text, [{times_since_the_last_line, Times} | Facts]);
        silent ->
            ok
    end,
    {noreply, State#state{repeats = Repeats}};
handle_cast(#{event := _} = Event, State) ->
    {noreply, happened(Event, State)}.

%% @private
-spec handle_info(term(), #state{}) -> {noreply, #state{}}.
handle_info({'DOWN', Monitor, port, _, _}, #state{sockets = Sockets} = State0) ->
    case maps:take(Monitor, Sockets) of
        {{_, Link}, Rest} ->
            State = State0#state{sockets = Rest},
            {noreply, show(is_down(Link, closed, <<"the connection has ended">>, State))};
        error ->
            {noreply, State0}
    end;
handle_info(tick, State) ->
    {noreply, show(State#state{ticking = false})};
handle_info(Message, State) ->
    quic_dist_log:log(warning, "unexpected message", [{message, Message}]),
    {noreply, State}.

%% Links

new_link(Fields) ->
    #link{fields = Fields, since = now_ms()}.

now_ms() ->
    erlang:monotonic_time(millisecond).

add_socket(Port, Link, #state{sockets = Sockets} = State) ->
    State#state{sockets = Sockets#{erlang:monitor(port, Port) => {Port, Link}}}.

is_up(#link{fields = #{node := Node} = Fields}, #state{repeats = Repeats0} = State) ->
    {Failed, Repeats1} = quic_dist_repeats:ended({connect, Node}, Repeats0),
    Failed > 1 andalso
        quic_dist_log:log(
            link, notice, ["connected to ", atom_to_binary(Node)], [{failed_attempts, Failed}]
        ),
    quic_dist_events:tell(Fields#{event => up}),
    State#state{repeats = Repeats1}.

%% The link of another carrier is no event.
is_down(#link{fields = Fields}, _, _, State) when not is_map_key(node, Fields) ->
    State;
is_down(#link{fields = Fields, since = Since, up = Up}, Reason, Text, State) ->
    Uptime = now_ms() - Since,
    log_end(Fields, Up, Reason, Text, Uptime),
    case Up of
        true ->
            End = #{event => down, reason => Reason, text => Text, uptime => Uptime},
            happened(maps:merge(maps:remove(identity, Fields), End), State);
        false ->
            State
    end.

log_end(_, _, sidecar_down, _, _) ->
    %% One line, that of the sidecar, is enough for all links.
    ok;
log_end(#{node := Node} = Fields, Up, Reason, Text, Uptime) ->
    Line = [
        ["link to ", name(Node), over(Fields)],
        [how(Up, Reason), after_time(Up, Uptime), why(Reason, Text)]
    ],
    quic_dist_log:log(link, level(Reason), Line, [{reason, Reason} | channel(Fields)]).

over(#{carrier := quic}) -> "";
over(#{carrier := local}) -> " on this host";
over(#{carrier := Carrier}) -> [" over ", atom_to_binary(Carrier)].

how(true, peer_closed) -> " closed by it";
how(true, local) -> " closed by this node";
how(true, connection_lost) -> " lost";
how(true, _) -> " ended";
how(false, _) -> " ended before the distribution handshake was over".

after_time(true, Ms) when Ms < 10000 -> io_lib:format(" after ~.1f s", [Ms / 1000]);
after_time(true, Ms) -> io_lib:format(" after ~w s", [Ms div 1000]);
after_time(false, _) -> "".

why(Reason, _) when Reason =:= peer_closed; Reason =:= local; Reason =:= closed -> "";
why(_, Text) -> [": ", Text].

level(protocol_error) -> error;
level(connection_lost) -> notice;
level(_) -> info.

channel(#{channel := Id}) -> [{channel, Id}];
channel(_) -> [].

name(Node) when is_atom(Node) -> atom_to_binary(Node);
name(Node) -> Node.

%% The emulator knows the node of a socket that another carrier uses.
sockets(#state{sockets = Sockets}) ->
    Others = [{Port, Node} || {Node, Port} <- erlang:system_info(dist_ctrl), is_port(Port)],
    [
        {Node, Port, Since, maps:remove(node, Web)}
     || {Port, #link{fields = Web, since = Since}} <- maps:values(Sockets),
        Node <- node_of(Web, Port, Others)
    ].

node_of(#{node := Node}, _, _) -> [Node];
node_of(_, Port, Others) -> [Node || {Of, Node} <- Others, Of =:= Port].

%% The status page

%% Events for the page are kept for the page of the next sidecar, too.
happened(#{event := Kind} = Event, #state{page = Page, recent = Recent} = State) ->
    quic_dist_events:tell(Event),
    Listed = [
        down,
        connect_failed,
        connection_ended,
        refused,
        untrusted,
        flood,
        certificates_failed,
        sidecar_down
    ],
    case lists:member(Kind, Listed) of
        true ->
            Fields = #{
                event => Kind,
                node => cut(peer(Event)),
                text => cut(text(Event)),
                time => erlang:system_time(second)
            },
            Page andalso send_happened(Fields),
            State#state{recent = lists:sublist([Fields | Recent], ?RECENT)};
        false ->
            State
    end.

send_happened(Fields) ->
    quic_dist_sidecar:send(happened, Fields).

peer(#{node := Node}) -> name(Node);
peer(#{facts := #{<<"node">> := Node}}) -> Node;
peer(#{facts := #{<<"peer">> := Peer}}) -> Peer;
peer(_) -> <<>>.

text(#{text := Text, facts := #{<<"err">> := Why}}) -> [Text, ": ", Why];
text(#{text := Text}) -> Text.

cut(Text) ->
    unicode:characters_to_binary(string:slice(Text, 0, ?TEXT)).

%% Shows the links over HTTP, now and each second while there is one.
show(#state{page = false} = State) ->
    State;
show(#state{sockets = Sockets, ticking = Ticking} = State) ->
    Now = now_ms(),
    send_links([
        {
            name(Node),
            cut(name(Identity)),
            list_to_binary(inet:ntoa(Ip)),
            Port,
            Direction,
            Carrier,
            Now - Since,
            Sent,
            Received,
            Queued
        }
     || {Node, Socket, Since, Web} <- sockets(State),
        {ok, #{bytes := Sent}, #{bytes := Received}, Queued} <- [figures(Socket)],
        #{identity := Identity, address := {Ip, Port}, direction := Direction} <- [Web],
        #{carrier := Carrier} <- [Web]
    ]),
    case map_size(Sockets) > 0 andalso not Ticking of
        true ->
            _ = erlang:send_after(?TICK, self(), tick),
            State#state{ticking = true};
        false ->
            State
    end.

send_links(Links) when length(Links) > ?PAGE ->
    {First, Rest} = lists:split(?PAGE, Links),
    quic_dist_sidecar:send(links, #{links => First, more => true}),
    send_links(Rest);
send_links(Links) ->
    quic_dist_sidecar:send(links, #{links => Links, more => false}).
