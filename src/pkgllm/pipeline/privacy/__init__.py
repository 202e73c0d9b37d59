"""What a run promises, planned, counted and audited."""
