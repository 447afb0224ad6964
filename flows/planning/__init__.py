"""What is done and what a run would do: status, coverage, plan, time estimate."""
