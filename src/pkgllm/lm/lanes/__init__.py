"""Many adapters in one pass over a frozen decoder."""
