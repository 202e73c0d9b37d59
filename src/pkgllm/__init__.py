"""Federated preference tuning of small language models on personal knowledge graphs."""

__version__ = "0.1.0"

__all__ = ["__version__"]
