"""`max_batch_size=8`, `batch_timeout=0.01`, one worker; a pool of threads decodes."""

from __future__ import annotations

from typing import Any

import litserve as ls
from classifier import BATCH_WAIT_SECONDS, HOST, MAX_BATCH_SIZE, PORT, Classifier


class ClassifierApi(ls.LitAPI):
    """One worker; `decode_request` runs once for each image, `predict` once for each batch."""

    def setup(self, device: str) -> None:  # noqa: ARG002 - LitServe's signature
        self._classifier = Classifier()

    def decode_request(self, request):  # type: ignore[no-untyped-def] # it would be the body's schema
        return self._classifier.pixels(request["image"].file.read())

    def batch(self, inputs: list[Any]) -> list[Any]:
        return list(inputs)

    def predict(self, batch: list[Any]) -> list[dict[str, float]]:
        return self._classifier.scores(batch)


if __name__ == "__main__":
    api = ClassifierApi(max_batch_size=MAX_BATCH_SIZE, batch_timeout=BATCH_WAIT_SECONDS, api_path="/classify")
    server = ls.LitServer(api, accelerator="cpu", workers_per_device=1, timeout=300)
    server.run(host=HOST, port=PORT, generate_client_file=False, log_level="warning")
