"""Commands of `any2seg` by topic; `flows.cli.main` registers them."""
