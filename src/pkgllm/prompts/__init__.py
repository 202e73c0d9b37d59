"""Prompts, groups of completions, their audit and their store."""
