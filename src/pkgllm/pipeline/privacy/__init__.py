"""From a configuration to the privacy of its run."""
