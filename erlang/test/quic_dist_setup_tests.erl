-module(quic_dist_setup_tests).

-include_lib("eunit/include/eunit.hrl").
-include_lib("kernel/include/net_address.hrl").

%% Offers a connection to a process that does as `Kernel' says, and gives the answer of offer/5, and
%% what has happened meanwhile, in order.
offer(Kernel, Timeout) ->
    Test = self(),
    Pid = spawn(fun() ->
        receive
            {accept, Acceptor, connection, inet, quic} -> Kernel(Acceptor)
        end
    end),
    HandOver = fun(Supervisor) -> Test ! {handed_over, Supervisor} end,
    Late = fun() -> Test ! late end,
    Answer = quic_dist_setup:offer(Pid, quic, {connection, HandOver}, Timeout, Late),
    {Answer, events()}.

events() ->
    receive
        Event -> [Event | events()]
    after 0 -> []
    end.

%% The supervisor gets the connection before the message for which it waits.
accepted_test() ->
    Supervisor = self(),
    Kernel = fun(Acceptor) -> Acceptor ! {self(), controller, Supervisor} end,
    ?assertEqual(
        {{ok, Supervisor}, [{handed_over, Supervisor}, {Supervisor, controller}]},
        offer(Kernel, infinity)
    ).

%% Nothing is handed over that net_kernel does not take.
not_accepted_test() ->
    Refuse = fun(Acceptor) -> Acceptor ! {self(), unsupported_protocol} end,
    ?assertEqual({{error, unsupported_protocol}, []}, offer(Refuse, infinity)),
    ?assertEqual({{error, over}, []}, offer(fun(_) -> exit(over) end, infinity)).

%% A supervisor that comes late is not left to wait: the caller has closed the connection by then.
late_test() ->
    Supervisor = self(),
    Late = fun(Acceptor) ->
        timer:sleep(20),
        Acceptor ! {self(), controller, Supervisor}
    end,
    ?assertEqual(
        {{ok, Supervisor}, [late, {handed_over, Supervisor}, {Supervisor, controller}]},
        offer(Late, 1)
    ).

names_test() ->
    [?assert(quic_dist_setup:is_node_name(Node)) || Node <- ['a@h', 'a@127.0.0.1']],
    [?assertNot(quic_dist_setup:is_node_name(Node)) || Node <- [a, "a@h", 'a@', 17]].

net_address_test() ->
    ?assertEqual(
        #net_address{address = undefined, host = "h", protocol = webdist, family = inet},
        quic_dist_setup:net_address(webdist, undefined, "h")
    ).
