"""A run on disk, its checkpoints, and the processes that share it."""
