"""Schema versions of everything that is written; storage_layout.md has the same table.

A version is raised when a reader of the older form would misread the newer one; a reader for the
previous form is kept (`READABLE_*`). Some versions are part of a fingerprint, so raising them rebuilds
every artefact: those are marked.
"""

from __future__ import annotations

DATASET_IDENTITY_SCHEMA = 1
"""`identity` in `dataset.json`; in the dataset's fingerprint."""
DATASET_SCHEMA = 2
"""`dataset.json`, manifest, shard records. 1 had no `source_sha256`."""
READABLE_DATASETS = (1, DATASET_SCHEMA)
STORE_SCHEMA = 1
"""`provenance.json` of a target store; in the store's fingerprint and in requests for it."""
STORE_WITH_PATCH_SCHEMA = 2
"""The same for a store with `patch`: in 2 each (P, D) grid is an inner chunk."""
LEDGER_SCHEMA = 1
"""Commit record of a shard's targets."""
PROMPTS_SCHEMA = 1
"""`provenance.json` of a prompt store; in requests for it."""
AUDIT_SCHEMA = 1
"""Report of `any2seg audit`."""
RUN_SCHEMA = 1
"""`identity` in `run.json`; in the run's fingerprint."""
CHECKPOINT_SCHEMA = 2
"""JSON state of a checkpoint. 1 had a random state, which is no longer read."""
READABLE_CHECKPOINTS = (1, CHECKPOINT_SCHEMA)
EVALUATION_SCHEMA = 2
"""`evaluation.json`. 1 (no corner cases, no robustness) is not read: the run is scored again."""
REPORT_SCHEMA = 1
"""`report.json`."""
SEGMENTER_SCHEMA = 1
"""`config.json` of an exported student."""
