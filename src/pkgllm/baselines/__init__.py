"""Baselines. Importing any part of it first keeps PyKEEN's folders out of the home."""

from pkgllm.baselines import quiet as quiet
