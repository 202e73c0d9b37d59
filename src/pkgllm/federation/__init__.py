"""Rounds over clients: algorithms know tensors; ``flower`` carries them."""
