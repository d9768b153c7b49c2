# A release by mix whose nodes find each other and talk over QUIC.
defmodule Consumer.MixProject do
  use Mix.Project

  def project do
    [
      app: :consumer,
      version: "VERSION",
      elixir: "~> 1.14",
      deps: [{:quic_dist, git: "URL", tag: "TAG"}],
      releases: [consumer: [include_executables_for: [:unix], steps: [:assemble, :tar]]]
    ]
  end

  def application do
    [extra_applications: [:logger], mod: {Consumer.Application, []}]
  end
end
