%% @doc The carrier's own supervisor, a child of net_sup.
%%
%% net_sup ends the node when one of its children dies (DESIGN.md, section 5), so this supervisor
%% stands between. `quic_dist_sidecar' restarts the sidecar by itself; a restart by this supervisor
%% shows a bug.
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

%% @doc Called by net_sup each time distribution starts. `ignore': one runs already, and serves; a
%% VM that has called {@link webdist_server:start/0} may have a sidecar before it has a name.
-spec start_link() -> supervisor:startlink_ret().
start_link() ->
    case supervisor:start_link({local, ?MODULE}, ?MODULE, []) of
        {error, {already_started, _}} -> ignore;
        Result -> Result
    end.

%% @private
-spec init([]) -> {ok, {supervisor:sup_flags(), [supervisor:child_spec()]}}.
init([]) ->
    %% An event goes to the features in this order.
    Features = [
        quic_dist_links, quic_dist_meeting, quic_dist_admit, quic_dist_hosts, webdist_server
    ],
    Events = #{id => quic_dist_events, start => {quic_dist_events, start_link, []}},
    Links = #{id => quic_dist_links, start => {quic_dist_links, start_link, []}},
    Meeting = #{id => quic_dist_meeting, start => {quic_dist_meeting, start_link, []}},
    Sidecar = #{
        id => quic_dist_sidecar,
        start => {quic_dist_sidecar, start_link, [Features]},
        %% Longer than the sidecar may take to end (portproto/PROTOCOL.md, section 8).
        shutdown => 5000
    },
    Children = [Events, Links, Meeting, Sidecar],
    {ok, {#{strategy => one_for_one, intensity => 10, period => 60}, Children}}.
