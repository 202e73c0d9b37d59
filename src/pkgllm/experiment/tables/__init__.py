"""Tables of results: run every row, tune it, and write down what came of it."""
