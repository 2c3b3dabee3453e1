"""The one error of the embedded server."""


class EmbeddedTritonError(Exception):
    """The embedded Triton cannot run: one sentence that names the thing, the reason and the way out."""
