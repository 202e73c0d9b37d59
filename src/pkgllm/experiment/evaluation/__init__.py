"""Rank what a run trained, again if asked, and compare runs."""
