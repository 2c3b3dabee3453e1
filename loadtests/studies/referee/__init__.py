"""Locust against NVIDIA's perf_analyzer: runs of both, what they count, and whether they agree."""
