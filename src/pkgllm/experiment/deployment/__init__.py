"""A federation of processes on machines of their own."""
