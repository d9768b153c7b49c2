%% @doc The supervisor of distribution over HTTP: the process that knows what is served, and the
%% sidecar's own supervisor, unless that runs elsewhere (`-proto_dist quic').
%%
%% It stands where it is needed first: under net_sup, as a child of `-proto_dist webdist' or as what
%% `-epmd_module webdist_epmd' starts; under kernel_safe_sup, in a VM without distribution; or in an
%% application's tree ({@link webdist:child_spec/0}).
-module(webdist_sup).
-behaviour(supervisor).

-export([child_spec/0, start_link/0, start_link/1]).
-export([init/1]).

%% @doc The child that stands for all of it.
-spec child_spec() -> supervisor:child_spec().
child_spec() ->
    #{
        id => ?MODULE,
        start => {?MODULE, start_link, []},
        type => supervisor,
        shutdown => infinity,
        modules => [?MODULE]
    }.

%% @doc Starts it. One that runs already serves.
-spec start_link() -> supervisor:startlink_ret().
start_link() ->
    start_link(wait).

%% @doc The same; `serve': takes part in holding the port at once.
-spec start_link(wait | serve) -> supervisor:startlink_ret().
start_link(What) ->
    case supervisor:start_link({local, ?MODULE}, ?MODULE, What) of
        {error, {already_started, _}} when What =:= serve ->
            _ = webdist_server:start(),
            ignore;
        {error, {already_started, _}} ->
            ignore;
        Result ->
            Result
    end.

%% @private
-spec init(wait | serve) -> {ok, {supervisor:sup_flags(), [supervisor:child_spec()]}}.
init(What) ->
    Server = #{id => webdist_server, start => {webdist_server, start_link, [What]}},
    Flags = #{strategy => one_for_one, intensity => 10, period => 60},
    {ok, {Flags, [quic_dist_sup:child_spec(), Server]}}.
