"""The embedded Triton: a real `tritonserver` without Docker, for development, tests and machines without a GPU."""

from .command import TlsFiles
from .installation import EmbeddedTritonError
from .server import EmbeddedTriton

__all__ = ["EmbeddedTriton", "EmbeddedTritonError", "TlsFiles"]
