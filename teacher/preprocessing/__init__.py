"""Samples to the pixel values that a tower expects."""
