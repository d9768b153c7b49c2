%% The router, without a process but the test's own: frames and wishes in, effects out.
-module(quic_dist_router_tests).

-include_lib("eunit/include/eunit.hrl").

%% Frames of a channel go to its two processes; those of a channel that nobody has go nowhere.
data_and_credit_test() ->
    {Input, Output} = {process(), process()},
    Router0 = dialled(7, opened()),
    {[{reply, from, ok}], Router} = call({attach, port(), 7, Input, Output}, Router0),
    ?assertEqual([{send, Input, {data, <<"x">>}}], effects({data, 7, <<"x">>}, Router)),
    ?assertEqual([{send, Output, {credit, 9}}], effects({credit, 7, 9}, Router)),
    ?assertEqual([], effects({data, 8, <<"x">>}, Router)),
    ?assertEqual([], effects({credit, 7, 9}, Router0)),
    ?assertEqual([Output], quic_dist_router:outputs(Router)),
    ?assertEqual(1, quic_dist_router:count(Router)).

%% The channel that answers a dial is the caller's, and is announced before the caller has it.
dialled_test() ->
    Router0 = requested(dialled, #{node => <<"b@h">>, cookie => <<"c">>}, opened()),
    {Effects, Router} = handle(dialled, (fields(7))#{id => 1, identity => <<"b">>}, Router0),
    ?assertMatch(
        [
            {event, channel_up, #{
                channel := 7,
                node := <<"b@h">>,
                direction := dialled,
                address := {{10, 0, 0, 1}, 4433},
                identity := <<"b">>
            }},
            {reply, _, {ok, #{id := 7, address := {10, 0, 0, 1}, udp_port := 4433}}}
        ],
        Effects
    ),
    ?assertEqual(1, quic_dist_router:count(Router)),
    %% An answer comes once.
    ?assertEqual(broken, handle(dialled, (fields(7))#{id => 1}, Router)).

%% A channel that introduces two VMs is handed out as any other, and is no link: nothing is told of
%% it. Its token is no secret that is shown.
introduction_test() ->
    Meeting = #{meeting => <<0, "quic_dist-1">>, meeting_token => <<1:256>>, identity => <<"b">>},
    Fields = maps:merge(fields(7), Meeting),
    Router0 = requested(dialled, #{node => <<"b@h">>}, opened()),
    {Effects, Router} = handle(dialled, Fields#{id => 1}, Router0),
    ?assertMatch([{reply, _, {ok, #{id := 7, meeting_token := <<1:256>>}}}], Effects),
    [{reply, _, {ok, Channel}}] = Effects,
    ?assertEqual(Meeting, maps:with(maps:keys(Meeting), Channel)),
    ?assertEqual(1, quic_dist_router:count(Router)),
    {[], Waiting} = handle(accepted, (maps:merge(fields(8), Meeting))#{node => <<"b@h">>}, Router),
    Shown = io_lib:format("~w", [quic_dist_router:without_secrets(Waiting)]),
    ?assertEqual(nomatch, string:find(lists:flatten(Shown), "meeting_token")).

%% A request of a process that has died is cancelled; the channel that it may get all the same is
%% closed, and an error reaches nobody.
abandoned_test() ->
    {Asked, Monitors} = ended(fun(Pid) ->
        quic_dist_router:requested(dialled, #{node => <<"b@h">>}, {Pid, tag}, opened())
    end),
    {Effects, Router} = down_all(Asked, Monitors),
    ?assertEqual([{frame, cancel, #{id => 1}}], Effects),
    ?assertEqual(
        [{frame, close, #{channel => 7}}],
        effects({control, dialled, (fields(7))#{id => 1}}, Router)
    ),
    Error = #{id => 1, code => cancelled, text => <<>>},
    ?assertEqual([], effects({control, error, Error}, Router)).

%% The owner of a channel dies: the channel is closed, and forgotten.
owner_down_test() ->
    {Router0, Monitors} = ended(fun(Pid) ->
        {_, Router} = accept(Pid, quic_dist_router:new()),
        {_, Accepted} = handle(accepted, (fields(7))#{node => <<"b@h">>}, Router),
        Accepted
    end),
    {Effects, Router} = down_all(Router0, Monitors),
    ?assertEqual([{frame, close, #{channel => 7}}], Effects),
    ?assertEqual(0, quic_dist_router:count(Router)).

%% Accepted channels wait for an acceptor, the oldest first, and no more than 64.
acceptor_test() ->
    Accept = fun(Id, Router) ->
        {Effects, Next} = handle(accepted, (fields(Id))#{node => <<"b@h">>}, Router),
        ?assertMatch([{event, channel_up, #{channel := Id, direction := accepted}}], Effects),
        Next
    end,
    Full = lists:foldl(Accept, opened(), lists:seq(1, 64)),
    ?assertEqual(
        [{frame, close, #{channel => 65}}],
        effects({control, accepted, (fields(65))#{node => <<"b@h">>}}, Full)
    ),
    %% One of those that wait ends.
    Closed = #{channel => 2, reason => peer_closed, text => <<>>},
    {[{event, channel_down, Closed}], Fewer} = handle(closed, Closed, Full),
    {Effects, Router} = accept(self(), Fewer),
    ?assertEqual(
        [1 | lists:seq(3, 64)],
        [Id || {send, Pid, {accepted, #{id := Id}}} <- Effects, Pid =:= self()]
    ),
    ?assertEqual(63, quic_dist_router:count(Router)),
    ?assertMatch(
        [{event, channel_up, _}, {send, _, {accepted, #{claim := {<<"b@h">>, undefined}}}}],
        effects({control, accepted, (fields(66))#{node => <<"b@h">>}}, Router)
    ).

%% A channel that the peer or the sidecar closes ends for its input handler.
closed_test() ->
    {Input, Output} = {process(), process()},
    {_, Router0} = call({attach, port(), 7, Input, Output}, dialled(7, opened())),
    Fields = #{channel => 7, reason => connection_lost, text => <<"timeout">>},
    {Effects, Router} = handle(closed, Fields, Router0),
    ?assertEqual([{event, channel_down, Fields}, {send, Input, closed}], Effects),
    ?assertEqual(0, quic_dist_router:count(Router)),
    ?assertEqual(
        {[{reply, from, {error, closed}}], Router},
        call({attach, port(), 7, Input, Output}, Router)
    ).

%% A channel of a sidecar that is gone cannot be attached, is released to its socket, which shows
%% the end, and is not closed with the next sidecar, which may have a channel of that number.
other_sidecar_test() ->
    Router = dialled(7, opened()),
    [Other | _] = erlang:ports() -- [port()],
    ?assertEqual(
        {[{reply, from, {error, closed}}], Router},
        call({attach, Other, 7, self(), self()}, Router)
    ),
    ?assertEqual({[{reply, from, ok}], Router}, call({release, Other, 7}, Router)),
    ?assertEqual({[], Router}, quic_dist_router:cast({give_up, Other, 7}, Router)),
    {Effects, Closed} = quic_dist_router:cast({give_up, port(), 7}, Router),
    ?assertEqual([{frame, close, #{channel => 7}}], Effects),
    ?assertEqual({[], Closed}, quic_dist_router:cast({give_up, port(), 7}, Closed)).

%% The socket of a released channel owns it: no process does.
release_test() ->
    {Router0, Monitors} = ended(fun(Pid) ->
        {_, Router} = accept(Pid, opened()),
        {_, Accepted} = handle(accepted, (fields(7))#{node => <<"b@h">>}, Router),
        {_, Released} = call({release, port(), 7}, Accepted),
        Released
    end),
    %% That of the acceptor.
    ?assertMatch([_], Monitors),
    {Effects, Router} = down_all(Router0, Monitors),
    ?assertEqual([], Effects),
    ?assertEqual(1, quic_dist_router:count(Router)),
    ?assertEqual([], quic_dist_router:outputs(Router)).

%% The sidecar dies: each caller gets the reason, each channel its end, and nothing is monitored.
down_test() ->
    Before = process_info(self(), monitors),
    {Input, Output} = {process(), process()},
    {_, Attached} = call({attach, port(), 7, Input, Output}, dialled(7, opened())),
    Asked = quic_dist_router:requested(found, #{}, {Output, tag}, Attached),
    {Effects, Router} = quic_dist_router:down("it died", Asked),
    ?assertEqual(
        [{send, Input, closed}, {reply, {Output, tag}, {error, {down, "it died"}}}], Effects
    ),
    ?assertEqual(0, quic_dist_router:count(Router)),
    ?assertEqual(Before, process_info(self(), monitors)).

%% The next sidecar listens at the port that peers know, is registered, and tells the peers of the
%% last one's channels that these have ended.
next_sidecar_test() ->
    Wanted = #{node => <<"a@h">>, address => <<>>, port_min => 0, port_max => 0},
    Listening = requested(listening, Wanted, opened()),
    Fields = #{id => 1, address => <<"::">>, port => 4433},
    {[{event, listening, #{address := Bound}}, {reply, _, {ok, Listener}}], Bound1} =
        handle(listening, Fields, Listening),
    ?assertEqual({{0, 0, 0, 0, 0, 0, 0, 0}, 4433}, Bound),
    ?assertEqual(Bound, quic_dist_router:bound(Bound1)),
    Registration = #{node => <<"a">>, quic => 4433, tcp => 0},
    Registering = requested(registered, Registration, Bound1),
    {_, Registered} = handle(registered, registered(#{id => 2}), Registering),
    Channels = lists:foldl(
        fun(Id, Router) ->
            {[], Next} = handle(parting, #{channel => Id, token => <<Id:32>>}, Router),
            Next
        end,
        Registered,
        lists:seq(1, 300)
    ),
    Closed = #{channel => 300, reason => local, text => <<>>},
    {_, One} = handle(closed, Closed, Channels),
    {_, Down} = quic_dist_router:down("it died", One),
    Opened = quic_dist_router:opened(port(), Down),
    Again = (maps:remove(bound, Listener))#{id => 0},
    ?assertMatch(#{port_min := 4433, port_max := 4433}, Again),
    ?assertEqual([{frame, listen, Again}], quic_dist_router:listen_again(Opened)),
    {Effects, Up} = quic_dist_router:up(Opened),
    ?assertMatch(
        [{frame, part, #{tokens := _}}, {frame, part, #{tokens := _}}, {frame, register, _}],
        Effects
    ),
    Tokens = [Tokens || {frame, part, #{tokens := Tokens}} <- Effects],
    ?assertEqual([256, 43], [length(Some) || Some <- Tokens]),
    ?assertEqual(
        [<<Id:32>> || Id <- lists:seq(1, 299)], lists:sort(lists:append(Tokens))
    ),
    ?assertEqual({frame, register, Registration#{id => 0}}, lists:last(Effects)),
    %% They are told once.
    {_, DownAgain} = quic_dist_router:down("it died", Up),
    ?assertMatch({[{frame, register, _}], _}, quic_dist_router:up(DownAgain)).

%% The UDP port of a closed listener is withdrawn, also from what the next sidecar registers.
close_listener_test() ->
    Registration = #{node => <<"a">>, quic => 4433, tcp => 4370},
    Registering = requested(registered, Registration, listening()),
    {_, Router} = handle(registered, registered(#{id => 1}), Registering),
    {_, Up} = quic_dist_router:up(Router),
    Withdrawn = Registration#{quic := 0, id => 0},
    {Effects, Closed} = quic_dist_router:cast(close_listener, Up),
    ?assertEqual(
        [{frame, close_listener, #{id => 0}}, {frame, register, Withdrawn}], Effects
    ),
    ?assertEqual([], quic_dist_router:listen_again(Closed)),
    {[], Early} = quic_dist_router:cast(close_listener, Router),
    ?assertEqual([], quic_dist_router:listen_again(Early)),
    ?assertMatch({[{frame, register, Withdrawn}], _}, quic_dist_router:up(Early)).

%% A name that another node has is not kept for the next sidecar.
duplicate_test() ->
    Registration = #{node => <<"a">>, quic => 4433, tcp => 0},
    Registering = requested(registered, Registration, opened()),
    Answer = (registered(#{id => 1}))#{state := duplicate},
    {[{reply, _, {ok, Reply}}], Router} = handle(registered, Answer, Registering),
    ?assertEqual(maps:remove(id, Answer), Reply),
    ?assertMatch({[], _}, quic_dist_router:up(Router)),
    ?assertMatch({[{reply, from, #{quic := 0}}], _}, call(registration, Router)).

%% An acceptor that is older than the router brings its listener.
listener_of_the_acceptor_test() ->
    Listener = #{
        node => <<"a@h">>, address => <<>>, port_min => 4433, port_max => 4433,
        bound => {{0, 0, 0, 0}, 4433}
    },
    Listen = {frame, listen, (maps:remove(bound, Listener))#{id => 0}},
    {[], Before} = quic_dist_router:cast({accept, self(), Listener}, quic_dist_router:new()),
    ?assertEqual([Listen], quic_dist_router:listen_again(Before)),
    {_, Up} = quic_dist_router:up(opened()),
    {Effects, Router} = quic_dist_router:cast({accept, self(), Listener}, Up),
    ?assertEqual([Listen], Effects),
    ?assertMatch({[], _}, quic_dist_router:cast({accept, self(), Listener}, Router)).

%% Answers to the core's own requests are for nobody, unless they say that something is wrong.
own_requests_test_() ->
    [
        {lists:flatten(io_lib:format("~0tp", [Frame])),
            ?_assertEqual(Levels, [
                Level
             || {log, Level, _, _} <- effects({control, Tag, Fields}, opened())
            ])}
     || {Tag, Fields, Levels} = Frame <- [
            {ok, #{id => 0}, []},
            {listening, #{id => 0, address => <<"::">>, port => 1}, []},
            {registered, registered(#{id => 0}), []},
            {registered, (registered(#{id => 0}))#{state := waiting}, [warning]},
            {error, #{id => 0, code => address_in_use, text => <<"in use">>}, [error]},
            {registration, registered(#{}), [notice]},
            {registration, (registered(#{}))#{state := duplicate}, [warning]}
        ]
    ].

%% What answers nothing, has no address where one belongs, or is no frame breaks the protocol.
broken_test_() ->
    Asked = requested(resolved, #{host => <<"h">>}, opened()),
    Listening = requested(listening, #{node => <<"a@h">>}, opened()),
    Dialling = requested(dialled, #{node => <<"b@h">>}, opened()),
    [
        {lists:flatten(io_lib:format("~0tp", [Frame])),
            ?_assertEqual(broken, quic_dist_router:handle(Frame, Router))}
     || {Frame, Router} <- [
            {{error, truncated, "a frame"}, opened()},
            {{control, ok, #{id => 4711}}, opened()},
            {{control, dialled, (fields(7))#{id => 0}}, opened()},
            {{control, ok, #{id => 1}}, Asked},
            {{control, resolved, #{id => 1, addresses => [<<"::1">>, <<"h">>]}}, Asked},
            {{control, listening, #{id => 1, address => <<>>, port => 1}}, Listening},
            {{control, dialled, (fields(7))#{id => 1, address => <<"h">>}}, Dialling},
            {{control, accepted, (fields(7))#{node => <<"b@h">>, address => <<"h">>}}, opened()}
        ]
    ].

%% Answers that need nothing of the core reach who has asked as they are.
answers_test_() ->
    [
        {atom_to_list(Tag),
            ?_assertEqual(
                [{reply, {self(), tag}, Reply}],
                effects({control, Tag, Fields}, requested(Answer, #{}, opened()))
            )}
     || {Answer, Tag, Fields, Reply} <- [
            {ok, ok, #{id => 1}, ok},
            {found, found, #{id => 1, carrier => quic}, {ok, #{id => 1, carrier => quic}}},
            {resolved, resolved, #{id => 1, addresses => [<<"fe80::1%eth0">>]},
                {ok, #{id => 1, addresses => [{16#fe80, 0, 0, 0, 0, 0, 0, 1}]}}},
            {found, error, #{id => 1, code => timeout, text => <<"late">>},
                {error, {timeout, "late"}}}
        ]
    ].

%% A message that answers no request, and that the core does not know, is a feature's.
feature_test() ->
    ?assertEqual(
        {feature, look_up, #{question => 1}},
        quic_dist_router:handle({control, look_up, #{question => 1}}, opened())
    ).

%% Features get their topics in their order; a message that none wants breaks the protocol.
publish_test() ->
    Subscriptions = quic_dist_feature:subscriptions([quic_dist_links, webdist_server]),
    ?assertMatch(#{sidecar_up := [quic_dist_links, webdist_server]}, Subscriptions),
    ?assertEqual(ok, quic_dist_feature:publish(web_changed, #{}, #{}, Subscriptions)),
    ?assertEqual(broken, quic_dist_feature:publish(hello, #{}, #{}, Subscriptions)),
    Certificates = #{certificates => [{certfile, <<"CN=a">>, <<"tomorrow">>}]},
    Context = #{options => #{certfile => <<"cert.pem">>}},
    ?assertEqual(
        broken, quic_dist_feature:publish(certificates, Certificates, Context, Subscriptions)
    ).

%% Tokens, and what requests are made with, are not shown.
secrets_test() ->
    Secret = <<"a secret">>,
    Token = (fields(7))#{node => <<"b@h">>, token => Secret},
    {_, Waiting} = handle(accepted, Token, opened()),
    {_, Parting} = handle(parting, #{channel => 7, token => Secret}, Waiting),
    Asked = requested(dialled, #{node => Secret}, Parting),
    Shown = quic_dist_router:without_secrets(Asked),
    ?assertEqual(nomatch, binary:match(term_to_binary(Shown), Secret)),
    ?assertNotEqual(nomatch, binary:match(term_to_binary(Asked), Secret)).

%% Helpers

opened() ->
    quic_dist_router:opened(port(), quic_dist_router:new()).

port() ->
    hd(lists:sort(erlang:ports())).

fields(Id) ->
    #{channel => Id, address => <<"10.0.0.1">>, port => 4433, streams => single, credit => 1}.

registered(Fields) ->
    Fields#{state => holding, address => <<"127.0.0.1">>, port => 4369, text => <<>>}.

requested(Answer, Parameters, Router) ->
    quic_dist_router:requested(Answer, Parameters, {self(), tag}, Router).

dialled(Id, Router0) ->
    Asked = requested(dialled, #{node => <<"b@h">>}, Router0),
    Fields = (fields(Id))#{id => quic_dist_router:next_id(Router0)},
    {_, Router} = handle(dialled, Fields, Asked),
    Router.

listening() ->
    Listener = #{node => <<"a@h">>, address => <<>>, port_min => 1, port_max => 1},
    {_, Router} = quic_dist_router:cast({accept, self(), Listener}, opened()),
    Router.

accept(Pid, Router) ->
    quic_dist_router:cast({accept, Pid, #{node => <<"a@h">>}}, Router).

call(Call, Router) ->
    {Effects, Next} = quic_dist_router:call(Call, {self(), tag}, Router),
    {[{reply, from, Reply} || {reply, _, Reply} <- Effects], Next}.

handle(Tag, Fields, Router) ->
    case quic_dist_router:handle({control, Tag, Fields}, Router) of
        {ok, Effects, Next} -> {Effects, Next};
        Other -> Other
    end.

effects(Frame, Router) ->
    {ok, Effects, _} = quic_dist_router:handle(Frame, Router),
    Effects.

%% A process that ends with the test.
process() ->
    Test = self(),
    spawn(fun() ->
        Monitor = monitor(process, Test),
        receive
            {'DOWN', Monitor, process, _, _} -> ok
        end
    end).

%% What Fun makes of a process that has ended since, and the monitors of that which have fired.
ended(Fun) ->
    Pid = process(),
    Router = Fun(Pid),
    exit(Pid, kill),
    {Router, downs()}.

downs() ->
    receive
        {'DOWN', Monitor, process, _, _} -> [Monitor | downs()]
    after 1000 ->
        []
    end.

down_all(Router0, Monitors) ->
    lists:foldl(
        fun(Monitor, {Effects, Router}) ->
            {More, Next} = quic_dist_router:process_down(Monitor, Router),
            {Effects ++ More, Next}
        end,
        {[], Router0},
        Monitors
    ).
