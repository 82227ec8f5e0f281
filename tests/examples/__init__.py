"""Each example runs as its own text says."""
