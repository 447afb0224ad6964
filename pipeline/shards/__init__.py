"""Samples to shards and a manifest, and back."""
