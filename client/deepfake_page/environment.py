"""What gradio and the libraries below it read from the environment when they are imported."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

_SETTINGS = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    "OTEL_SDK_DISABLED": "true",
}


@contextmanager
def closed_gradio() -> Iterator[None]:
    """Turn off telemetry and calls to other hosts, and drop what was meant for another gradio app. Before the import.

    Variables of the environment can else open a page again that the code closed: a history of runs, server-side
    rendering by Node, an MCP server, profiling. gradio's folder for temporary files, /tmp/gradio for all users of the
    machine, is one of our own; the page writes nothing into it.
    """
    for name in [name for name in os.environ if name.startswith("GRADIO_")]:
        del os.environ[name]
    os.environ.update(_SETTINGS)
    with tempfile.TemporaryDirectory(prefix="deepfake-page-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        yield
