"""Registered criterions: one file an objective."""
