"""Runnable examples beside the pipeline: LanguageBind modalities that shards do not hold."""
