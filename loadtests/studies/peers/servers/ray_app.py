"""`@serve.batch(max_batch_size=8, batch_wait_timeout_s=0.01)`, one replica with all cores."""

from __future__ import annotations

import asyncio
import signal
import threading

import ray
from classifier import BATCH_WAIT_SECONDS, HOST, MAX_BATCH_SIZE, PORT, THREADS, Classifier
from ray import serve
from starlette.requests import Request


# A replica takes five requests at a time unless told otherwise, fewer than fill a batch.
@serve.deployment(max_ongoing_requests=128, ray_actor_options={"num_cpus": THREADS})
class Service:
    """One image in each request's body."""

    def __init__(self) -> None:
        self._classifier = Classifier()

    @serve.batch(max_batch_size=MAX_BATCH_SIZE, batch_wait_timeout_s=BATCH_WAIT_SECONDS)
    async def classify(self, files: list[bytes]) -> list[dict[str, float]]:
        # In a thread, so that the replica reads further requests meanwhile.
        return await asyncio.to_thread(self._compute, files)

    def _compute(self, files: list[bytes]) -> list[dict[str, float]]:
        return self._classifier.scores([self._classifier.pixels(file) for file in files])

    async def __call__(self, request: Request) -> dict[str, float]:
        return await self.classify(await request.body())


if __name__ == "__main__":
    # The proxy and the controller hold parts of a core; to Ray these are only numbers.
    ray.init(num_cpus=THREADS + 1, include_dashboard=False, log_to_driver=False, _node_ip_address=HOST)
    serve.start(http_options={"host": HOST, "port": PORT})
    serve.run(Service.bind(), route_prefix="/classify")
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    stopped.wait()
    serve.shutdown()
    ray.shutdown()
