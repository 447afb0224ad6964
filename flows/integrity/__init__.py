"""Verify, repair, garbage-collect and audit a workspace: above everything they check."""
