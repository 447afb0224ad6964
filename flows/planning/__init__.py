"""What is there and what a run would do: status, coverage, plan, cost."""
