"""What each setting of the model and of its server is worth on this machine's CPU, measured one at a time.

    python -m loadtests.studies.tune [--rounds 3] [--complete] [--output loadtests/results/tuning.md]

The bare TorchScript model in one process: precision, batch size, threads, memory layout, attention, allocator and how
OpenMP's threads wait. Then the embedded Triton at saturation: batch size, queue delay, instances, threads; and with eight
callers who send image files: the decoder's queue delay, instances. All rows of a table run in turns. At the end the page
names each shipped number with the rows that it rests on. Ten minutes on two cores.
"""

from __future__ import annotations

from loadtests.studies.tune.command import main

if __name__ == "__main__":
    main(__doc__)
