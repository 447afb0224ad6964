"""Families of teachers, each an implementation of `teacher.contract`."""
