"""`make observe`: a real Prometheus beside the embedded Triton, with the rules of deploy/observability."""

from .api import Alert, PrometheusError
from .configuration import Target
from .prometheus import LocalPrometheus, require_prometheus
from .rules import CPU_OBJECTIVES

__all__ = ["CPU_OBJECTIVES", "Alert", "LocalPrometheus", "PrometheusError", "Target", "require_prometheus"]
