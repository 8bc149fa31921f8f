"""Decoding: one refinement loop, candidates, and the table that maps a model's family to its generator."""
