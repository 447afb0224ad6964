"""Commands of `any2seg` by topic; `flows.cli` registers them."""
