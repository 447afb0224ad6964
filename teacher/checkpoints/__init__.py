"""Find and read LanguageBind checkpoints."""
