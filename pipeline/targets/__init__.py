"""The cache of teacher targets: store, ledger, provenance, prompts, descriptions, reader."""
