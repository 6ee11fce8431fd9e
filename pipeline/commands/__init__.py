"""The bodies of the commands; `pipeline.cli` puts them together."""
