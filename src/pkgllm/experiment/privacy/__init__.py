"""What a run promises of privacy, plans, keeps, says and audits."""
