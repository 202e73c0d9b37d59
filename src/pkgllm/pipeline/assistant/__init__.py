"""What a person asks of a trained adapter."""
