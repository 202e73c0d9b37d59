"""Run folders, checkpoints and what is written while training."""
