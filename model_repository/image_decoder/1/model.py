"""Triton's `image_decoder`: encoded images to pixels, with the preprocessing of the client package."""

from __future__ import annotations

import json
import math
import os
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from deepfake_client import DeepfakeError, ImageTooLargeError
from deepfake_client.preprocessing import ImageLimits, Pixels, checked_decoding, load_image, to_pixels


class TritonPythonModel:
    """One instance: a process with a thread for each CPU that is its share."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the configuration's parameters `max_bytes`, `max_pixels` and `decoding`."""
        config = json.loads(args["model_config"])
        parameters = config["parameters"]
        self._limits = ImageLimits(
            max_bytes=int(parameters["max_bytes"]["string_value"]),
            max_pixels=int(parameters["max_pixels"]["string_value"]),
        )
        self._decoding = checked_decoding(parameters.get("decoding", {}).get("string_value", "exact"))
        threads = threads_of_each(config["instance_group"], _usable_cpus())
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        # Should this process die, Triton would stay alive, 2.51 even «ready», and fail its requests (server #7230, #8604).
        # The watcher waits for the end of its input and then tells the server to drain and end, so that it is replaced.
        watch = 'read -r farewell || kill -TERM "$0"'
        self._watcher = subprocess.Popen(["/bin/sh", "-c", watch, str(os.getppid())], stdin=subprocess.PIPE)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Decode the images of all requests side by side; a broken one fails its own request and no other."""
        encoded = [pb_utils.get_input_tensor_by_name(request, "image").as_numpy().reshape(-1) for request in requests]
        decoded = [[self._threads.submit(self._decode, image) for image in images] for images in encoded]
        return [_response([future.result() for future in images]) for images in decoded]

    def finalize(self) -> None:
        """End the threads, and the watcher without its alarm."""
        self._threads.shutdown()
        self._watcher.communicate(b"farewell\n")

    def _decode(self, image: bytes) -> Pixels | DeepfakeError:
        """The pixels of one image, or what is wrong with it."""
        try:
            return to_pixels(load_image(image, limits=self._limits, decoding=self._decoding))
        except DeepfakeError as error:
            return error
        except MemoryError:
            return ImageTooLargeError("the server has not enough memory for an image of this size")


def threads_of_each(instance_group: Sequence[dict[str, Any]], cpus: int) -> int:
    """Decoding threads of one instance, so that all together have as many as there are CPUs."""
    return max(1, cpus // sum(group["count"] for group in instance_group))


def _usable_cpus() -> int:
    """CPUs that this process may use: of those it may run on, as many as the container's limit is worth."""
    affinity = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return max(1, min(affinity, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):
        return affinity  # "max" for no limit, or a kernel without cgroups of version 2


def _response(images: list[Pixels | DeepfakeError]) -> Any:
    for number, image in enumerate(images, 1):
        if isinstance(image, DeepfakeError):
            which = f"image {number} of {len(images)}: " if len(images) > 1 else ""
            # The name tells callers what kind of fault it is, and the client makes the same error of it again.
            text = f"[{type(image).__name__}] {which}{image.reason}"
            # INVALID_ARGUMENT and HTTP 400: the caller's image is at fault, not the server.
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(text, pb_utils.TritonError.INVALID_ARG))
    return pb_utils.InferenceResponse(output_tensors=[pb_utils.Tensor("pixels", np.stack(images))])
