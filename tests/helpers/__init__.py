"""What several test files share: tiny models, corpora, federations and runs."""
