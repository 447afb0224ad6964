"""Segmentation and distillation losses."""
