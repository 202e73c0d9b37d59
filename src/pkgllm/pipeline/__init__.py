"""From a configuration to a run: builds objects out of choices and composes them."""
