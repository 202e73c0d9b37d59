"""Lists of titles that a model writes."""
