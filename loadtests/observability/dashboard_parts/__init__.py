"""The panels of deploy/observability/dashboard.json and what a Prometheus has to say for them, without Grafana."""
