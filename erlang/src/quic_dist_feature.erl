%% @doc What a feature is to the core: a module that takes part in the life of the sidecar, and that
%% the core does not name.
%%
%% A feature lists its topics, and is called for each message and each event of these. A topic is
%% the tag of a message from the sidecar that answers no request (portproto/PROTOCOL.md, section 4),
%% or an event of the core:
%% <dl>
%% <dt>`sidecar_up'</dt><dd>a sidecar serves: `os_pid', `executable'</dd>
%% <dt>`sidecar_down'</dt><dd>it does not serve any more, or none could be started: `text'</dd>
%% <dt>`listening'</dt><dd>the sidecar listens for this node: `address', an IP address and a UDP
%%     port</dd>
%% <dt>`channel_up'</dt><dd>a channel was opened: `channel', `node', `direction' (`dialled' or
%%     `accepted'), `address', and `identity' where the peer's certificate names one</dd>
%% <dt>`channel_down'</dt><dd>a channel has ended: `channel', `reason', `text'</dd>
%% </dl>
%% {@link quic_dist_sup} lists the features. What a feature wants of the sidecar it asks for by
%% {@link quic_dist_sidecar:request/4} and {@link quic_dist_sidecar:send/2}; so a new feature
%% changes the codec's table of messages and that list, and nothing else of the core.
-module(quic_dist_feature).

-export([subscriptions/1, publish/4]).
-export_type([topic/0, context/0, subscriptions/0]).

-type topic() :: atom().

-type context() :: #{port => port(), options => quic_dist_config:options()}.
%% The Erlang port of the sidecar, if there is one; and the options, if they could be read.

-type subscriptions() :: #{topic() => [module(), ...]}.

%% Called once, when distribution starts.
-callback topics() -> [topic(), ...].

%% Called in the process of the sidecar's owner, which waits: it must not block, and must call
%% neither that process nor net_kernel. `broken': the message breaks the control protocol, and the
%% sidecar is replaced. The result of an event is not looked at.
-callback handle(topic(), Fields :: map(), context()) -> ok | broken.

%% @doc Which features want which topic.
-spec subscriptions([module()]) -> subscriptions().
subscriptions(Features) ->
    Pairs = [{Topic, Feature} || Feature <- Features, Topic <- Feature:topics()],
    lists:foldr(
        fun({Topic, Feature}, Subscriptions) ->
            maps:update_with(Topic, fun(Others) -> [Feature | Others] end, [Feature], Subscriptions)
        end,
        #{},
        Pairs
    ).

%% @doc Calls each feature that wants this topic, in the order of the list. `broken' if one of them
%% says so, or if there is none.
-spec publish(topic(), Fields :: map(), context(), subscriptions()) -> ok | broken.
publish(Topic, Fields, Context, Subscriptions) ->
    Features = maps:get(Topic, Subscriptions, []),
    case lists:usort([Feature:handle(Topic, Fields, Context) || Feature <- Features]) of
        [ok] -> ok;
        _ -> broken
    end.
