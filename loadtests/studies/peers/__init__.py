"""This server beside others that serve the same checkpoint: each started, called, measured and judged alike."""
