"""A trained run as one person's assistant."""
