"""Differential privacy: what is released, what it costs, and what has been spent.

:mod:`~pkgllm.privacy.mechanisms` says what a private release is, :mod:`~pkgllm.privacy.accounting`
prices it, :mod:`~pkgllm.privacy.ledger` remembers it across rounds and restarts, and
:mod:`~pkgllm.privacy.statements` puts it into the words that stand under every table.
"""
