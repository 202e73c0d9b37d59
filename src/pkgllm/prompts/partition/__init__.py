"""Which client holds which examples."""
