"""What local training minimises."""
