"""Simple models that learn from likes alone, and controls."""
