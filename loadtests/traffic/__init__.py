"""What a load sends and how its answers are judged: the same for Locust and for the capacity search."""
