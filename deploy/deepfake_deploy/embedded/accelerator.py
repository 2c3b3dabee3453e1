"""Is there a CUDA device? Asked of the driver itself: importing torch to ask it takes seconds."""

from __future__ import annotations

import ctypes


def cuda_device_count() -> int:
    """CUDA devices that the driver shows this process (`CUDA_VISIBLE_DEVICES` counts); 0 without a driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value
