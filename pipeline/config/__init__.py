"""One TOML file to one frozen tree; presets and comparison rows. Loads no torch."""
