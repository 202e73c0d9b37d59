"""Many runs from one file: studies over a grid, tables of models, tuning, and leaving a bubble."""
