%% @doc The carrier's own supervisor, a child of net_sup.
%%
%% net_sup ends the node when a child of its own dies (DESIGN.md, section 3), so this supervisor
%% stands between. `quic_dist_port' restarts the sidecar by itself; what is restarted here is a bug.
-module(quic_dist_sup).
-behaviour(supervisor).

-export([child_spec/0, start_link/0]).
-export([init/1]).

%% @doc What `childspecs/0' of the carrier returns: constants only.
-spec child_spec() -> supervisor:child_spec().
child_spec() ->
    #{
        id => ?MODULE,
        start => {?MODULE, start_link, []},
        type => supervisor,
        shutdown => infinity,
        modules => [?MODULE]
    }.

%% @doc Called by net_sup each time distribution starts. One that runs already serves: a VM that has
%% {@link webdist_server:start/0} behind it may have had the sidecar before it had a name.
-spec start_link() -> supervisor:startlink_ret().
start_link() ->
    case supervisor:start_link({local, ?MODULE}, ?MODULE, []) of
        {error, {already_started, _}} -> ignore;
        Result -> Result
    end.

%% @private
-spec init([]) -> {ok, {supervisor:sup_flags(), [supervisor:child_spec()]}}.
init([]) ->
    Events = #{id => quic_dist_events, start => {quic_dist_events, start_link, []}},
    Port = #{
        id => quic_dist_port,
        start => {quic_dist_port, start_link, []},
        %% Longer than the sidecar may take to end (portproto/PROTOCOL.md, section 8).
        shutdown => 5000
    },
    {ok, {#{strategy => one_for_one, intensity => 10, period => 60}, [Events, Port]}}.
