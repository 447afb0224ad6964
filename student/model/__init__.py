"""Backbone, fusion, head: the student network."""
