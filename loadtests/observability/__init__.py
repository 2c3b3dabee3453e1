"""A real Prometheus with the rules of deploy/observability, beside an embedded Triton."""
