"""Who is measured: how each is set up, what it has to be installed, and how it is called."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Call = Literal["gradio", "file", "files", "body", "triton-image", "triton-pixels"]


@dataclass(frozen=True, slots=True)
class Contestant:
    """One way to have an image classified; several ways of one server are measured on the same process."""

    key: str
    """For `--only`, and in peers.json."""
    name: str
    call: Call
    """What a request is: a file uploaded for Gradio's queue; a form with `image` or, as a list, `images`; the plain
    file as the body; or through this project's client, the file or its pixels."""
    setup: str
    """One line for the table."""
    packages: tuple[str, ...] = ()
    """What the peers' environment must have; the first gives the version that is shown."""
    program: str = ""
    """Of servers/; empty for the embedded Triton."""
    fp32_only: bool = False
    warm_up_requests: int = 2
    """One after the other, before it is measured."""

    @property
    def is_triton(self) -> bool:
        return not self.program


OURS = "triton-image"
"""What is judged against the peers: it takes what all of them take."""

_ALL = ("torch", "transformers", "pillow")

CONTESTANTS = (
    Contestant(
        OURS,
        "embedded Triton, image bytes",
        "triton-image",
        "decoder and TorchScript model as an ensemble, dynamic batches of up to 8, over HTTP",
    ),
    Contestant(
        "triton-pixels",
        "embedded Triton, pixels",
        "triton-pixels",
        "the same server over gRPC; the caller's process decodes and resizes, and that is in its time",
    ),
    Contestant(
        "card",
        "the card's Gradio app",
        "gradio",
        "`gr.Interface` and its queue, one image at a time, called with `gradio_client`",
        ("gradio", *_ALL),
        "card_app.py",
        fp32_only=True,
    ),
    Contestant(
        "fastapi",
        "FastAPI + transformers",
        "file",
        "a plain function in its pool of threads; one forward pass at a time",
        ("fastapi", "uvicorn", "python-multipart", *_ALL),
        "fastapi_app.py",
    ),
    Contestant(
        "litserve",
        "LitServe",
        "file",
        "`max_batch_size=8`, `batch_timeout=0.01`, one worker",
        ("litserve", "python-multipart", *_ALL),
        "litserve_app.py",
    ),
    Contestant(
        "bentoml",
        "BentoML",
        "files",
        "adaptive batching, `max_batch_size=8`, one worker",
        ("bentoml", *_ALL),
        "bentoml_app.py",
        warm_up_requests=12,  # its dispatcher learns from the first eleven batches, and waits for more meanwhile
    ),
    Contestant(
        "ray",
        "Ray Serve",
        "body",
        "`@serve.batch(max_batch_size=8, batch_wait_timeout_s=0.01)`, one replica",
        ("ray", *_ALL),
        "ray_app.py",
    ),
)


def missing_package(contestant: Contestant, versions: dict[str, str]) -> str | None:
    """The first package that is not among the installed ones."""
    return next((name for name in contestant.packages if name not in versions), None)
