"""All runs of a study, and what they found."""
