"""Locust's side of the load test: options, arrivals, shapes of the load over time, and what makes a run fail."""
