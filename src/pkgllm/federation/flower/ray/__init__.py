"""Clients in Ray's actors."""
