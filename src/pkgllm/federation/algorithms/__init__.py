"""Aggregators, one file each, on tensors."""
