"""Config, modalities, dataset adapters, shards, manifest, target stores, errors."""

from __future__ import annotations

VERSION = "0.1.0"
"""Code version, written into every commit record and run."""
