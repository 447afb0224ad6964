"""Shards and cached targets to training batches."""
