"""How many images per second a replica holds within a latency target, what limits it, and what follows from that."""
