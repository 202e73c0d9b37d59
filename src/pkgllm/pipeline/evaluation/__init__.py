"""Who is asked what, by which models, and what they answer."""
