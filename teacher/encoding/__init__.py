"""Shards to cached targets: the teacher pass."""
