"""Tables of published comparisons, row by row."""
