"""Load, capacity, observability and the studies behind the figures of the documents."""
