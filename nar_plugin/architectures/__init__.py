"""Registered architectures: fairseq's view of the methods."""
