"""Faults that are injected into a real server, for faults.py."""
