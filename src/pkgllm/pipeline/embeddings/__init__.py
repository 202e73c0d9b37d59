"""Runs that train a knowledge graph embedding."""
