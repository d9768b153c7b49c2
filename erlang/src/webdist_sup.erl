%% @doc The supervisor of distribution over HTTP. Its children are `webdist_server' and the
%% sidecar's own supervisor, unless that runs elsewhere (`-proto_dist quic').
%%
%% It runs where it is needed first: under net_sup, because of `-proto_dist webdist' or
%% `-epmd_module webdist_epmd'; under kernel_safe_sup, in a VM without distribution; or in an
%% application's tree ({@link webdist:child_spec/0}).
-module(webdist_sup).
-behaviour(supervisor).

-export([child_spec/0, start_link/0, start_link/1]).
-export([init/1]).

%% @doc The child specification of this supervisor.
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

%% @doc Starts it; with `serve' it takes part in holding the port at once. `ignore': one runs
%% already, and goes on as before.
-spec start_link(wait | serve) -> supervisor:startlink_ret().
start_link(Mode) ->
    case supervisor:start_link({local, ?MODULE}, ?MODULE, Mode) of
        {error, {already_started, _}} ->
            ignore;
        Result ->
            Result
    end.

%% @private
-spec init(wait | serve) -> {ok, {supervisor:sup_flags(), [supervisor:child_spec()]}}.
init(Mode) ->
    Server = #{id => webdist_server, start => {webdist_server, start_link, [Mode]}},
    Flags = #{strategy => one_for_one, intensity => 10, period => 60},
    {ok, {Flags, [quic_dist_sup:child_spec(), Server]}}.
