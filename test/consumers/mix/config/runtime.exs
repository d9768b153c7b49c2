import Config

# With a file like this one distribution starts only when the configuration has been read, in a VM that has restarted itself.
config :consumer, peers: String.split(System.get_env("PEERS", ""))
