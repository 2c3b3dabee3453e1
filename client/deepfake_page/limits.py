"""How much the page takes at a time."""

from __future__ import annotations

from dataclasses import dataclass, field

from deepfake_client import ImageLimits

#: Images in one go. At three a second, which two cores of a CPU do, 50 are a quarter of a minute.
MAX_IMAGES = 50
#: Of all images that are waiting, 512 MiB: a batch of 50 photos from a camera, twice.
MAX_WAITING_BYTES = 512 << 20
#: An upload that nobody asked a verdict for is forgotten after this time; longer than any wait in the queue.
KEEP_SECONDS = 600
#: Events that wait for their turn; one over it is told to come back later.
MAX_QUEUE = 64
#: Images that are decoded and asked for at a time: single ones, and batches with `BATCH_WORKERS` of their own each.
SINGLE_WORKERS = 4
BATCHES = 2
BATCH_WORKERS = 2


@dataclass(frozen=True, slots=True)
class PageLimits:
    """Limits of one image; those of the client by default."""

    image: ImageLimits = field(default_factory=ImageLimits)

    @property
    def max_megabytes(self) -> int:
        """`max_bytes` as people say it, rounded down."""
        return self.image.max_bytes // 1_000_000
