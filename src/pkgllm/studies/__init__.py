"""Many runs side by side: sweeps, tables, tuning."""
