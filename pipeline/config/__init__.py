"""The configuration: one TOML file, one frozen tree; presets and comparison rows. Imports no torch."""
