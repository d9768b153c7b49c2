%% @doc Parameters of the application `kernel' and boot flags that OTP's own carriers read, read as
%% OTP reads them: what OTP accepts is accepted here. A value that no carrier can use is an error of
%% quic_dist_config, which names the parameter, its value and what is accepted.
-module(quic_dist_kernel).

-export([interface/0, listen_range/0, common_port/0, tick_time/0, setup_time/0]).
-export([protocols/0, epmd_port/0, no_epmd/0]).

-define(SOURCE, "the parameters of application kernel").

%% @doc The IP address to listen at; `undefined' if the parameter is not set.
-spec interface() -> {ok, any | inet:ip_address() | undefined} | {error, quic_dist_config:error()}.
interface() ->
    case application:get_env(kernel, inet_dist_use_interface) of
        undefined ->
            {ok, undefined};
        {ok, any} ->
            {ok, any};
        {ok, loopback} ->
            {ok, {127, 0, 0, 1}};
        {ok, Address} ->
            case inet:is_ip_address(Address) of
                true -> {ok, Address};
                false -> bad(inet_dist_use_interface, Address, "any, loopback or an address as a "
                    "tuple: {10,0,0,1}")
            end
    end.

%% @doc The ports to listen at, first to last; `{0, 0}' for any. `inet_dist_listen_max' alone is
%% ignored, as OTP ignores it.
-spec listen_range() ->
    {ok, {inet:port_number(), inet:port_number()}} | {error, quic_dist_config:error()}.
listen_range() ->
    GivenMin = application:get_env(kernel, inet_dist_listen_min),
    GivenMax = application:get_env(kernel, inet_dist_listen_max),
    case {port(inet_dist_listen_min, GivenMin), port(inet_dist_listen_max, GivenMax)} of
        {undefined, _} -> {ok, {0, 0}};
        {{error, _} = Error, _} -> Error;
        {{ok, Min}, undefined} -> {ok, {Min, Min}};
        {_, {error, _} = Error} -> Error;
        {{ok, Min}, {ok, Max}} when Min =< Max -> {ok, {Min, Max}};
        {{ok, Min}, {ok, Max}} ->
            Accepted = "at least inet_dist_listen_min, " ++ integer_to_list(Min),
            bad(inet_dist_listen_max, Max, Accepted)
    end.

port(_, undefined) ->
    undefined;
port(_, {ok, Port}) when is_integer(Port), Port >= 0, Port =< 65535 ->
    {ok, Port};
port(Parameter, {ok, Value}) ->
    bad(Parameter, Value, "a port number, 0 to 65535 (0: any)").

%% @doc Do all nodes listen at one port? Stock `erl_epmd' reads the flag `-erl_epmd_port', and since
%% OTP 28 a parameter.
-spec common_port() -> boolean().
common_port() ->
    init:get_argument(erl_epmd_port) =/= error orelse
        (list_to_integer(erlang:system_info(otp_release)) >= 28 andalso
            application:get_env(kernel, erl_epmd_node_listen_port) =/= undefined).

%% @doc Is this VM started without epmd (`-no_epmd')?
-spec no_epmd() -> boolean().
no_epmd() ->
    init:get_argument(no_epmd) =/= error.

%% @doc The TCP port of epmd, as erl_epmd finds it. `erl' makes this flag of the environment
%% variable ERL_EPMD_PORT.
-spec epmd_port() -> inet:port_number().
epmd_port() ->
    case init:get_argument(epmd_port) of
        {ok, [[Text | _] | _]} -> list_to_integer(Text);
        _ -> 4369
    end.

%% @doc The carriers that this VM is started with, as `-proto_dist' names them. OTP 25 and 26 ignore
%% the flag if it is given twice.
-spec protocols() -> [string()].
protocols() ->
    case init:get_argument(proto_dist) of
        {ok, [Words]} -> Words;
        {ok, [Words | _]} -> first_words(Words, erlang:system_info(otp_release));
        error -> ["inet_tcp"]
    end.

first_words(_, Release) when Release =:= "25"; Release =:= "26" -> ["inet_tcp"];
first_words(Words, _) -> Words.

%% @doc Milliseconds of silence after which Erlang takes a peer for dead.
-spec tick_time() -> pos_integer().
tick_time() ->
    case application:get_env(kernel, net_ticktime) of
        {ok, Seconds} when is_integer(Seconds) -> 1000 * max(1, Seconds);
        _ -> 60000
    end.

%% @doc Milliseconds in which a connection must be set up.
-spec setup_time() -> pos_integer().
setup_time() ->
    case application:get_env(kernel, net_setuptime) of
        {ok, Seconds} when is_number(Seconds), Seconds > 0 ->
            max(1, round(1000 * min(120, Seconds)));
        _ ->
            7000
    end.

bad(Parameter, Value, Accepted) ->
    {error, {bad_option, Parameter, Value, ?SOURCE, Accepted}}.
