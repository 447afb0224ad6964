"""Versions of everything that is written, each in one place; the table in storage_layout.md says the same.

A number is raised when a reader of the older form would misread the newer one; a reader for the form
before it stays (`READABLE_*`). Some numbers are part of a fingerprint, so raising them makes every
artefact anew: those are marked.
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
"""The same where there is `patch`: in 2 each (P, D) grid is an inner chunk."""
LEDGER_SCHEMA = 1
"""Commit record of a shard's targets."""
PROMPTS_SCHEMA = 1
"""`provenance.json` of a prompt store; in requests for it."""
AUDIT_SCHEMA = 1
"""Report of `any2seg audit`."""
RUN_SCHEMA = 1
"""`identity` in `run.json`; in the run's fingerprint."""
CHECKPOINT_SCHEMA = 2
"""JSON state of a checkpoint. 1 had a random state, which nothing reads any more."""
READABLE_CHECKPOINTS = (1, CHECKPOINT_SCHEMA)
EVALUATION_SCHEMA = 2
"""`evaluation.json`. 1 (no corner cases, no robustness) is not read: the run is scored anew."""
REPORT_SCHEMA = 1
"""`report.json`."""
SEGMENTER_SCHEMA = 1
"""`config.json` of an exported student."""
