"""Prefect flows over the stages, the `any2seg` command and the report. Imports everything below."""
