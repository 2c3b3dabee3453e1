"""FastAPI: a plain function as the endpoint, which it runs in its pool of threads.

Files are decoded side by side; the model computes for one request at a time, on all cores, since products that run
beside each other would fight for them.
"""

from __future__ import annotations

import threading
from typing import Annotated

import uvicorn
from classifier import HOST, Classifier, port, read_image
from fastapi import FastAPI, File

app = FastAPI()
_classifier = Classifier()
_computing = threading.Lock()


@app.post("/classify")
def classify(image: Annotated[bytes, File()]) -> dict[str, float]:
    pixels = _classifier.pixels(read_image(image))
    with _computing:
        return _classifier.scores([pixels])[0]


if __name__ == "__main__":
    uvicorn.run(app, host=HOST, port=port(), log_level="warning", access_log=False)
