"""The conductor: brings profilers, merging and delivery together, window by window."""
