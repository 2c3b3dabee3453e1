"""A plain function in FastAPI's pool of threads; one forward pass at a time, since two would fight for the cores."""

from __future__ import annotations

import threading
from typing import Annotated

import uvicorn
from classifier import HOST, PORT, Classifier
from fastapi import FastAPI, File

app = FastAPI()
_classifier = Classifier()
_computing = threading.Lock()


@app.post("/classify")
def classify(image: Annotated[bytes, File()]) -> dict[str, float]:
    pixels = _classifier.pixels(image)
    with _computing:
        return _classifier.scores([pixels])[0]


if __name__ == "__main__":
    uvicorn.run(app, host=HOST, port=PORT, log_level="warning", access_log=False)
