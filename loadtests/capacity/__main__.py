"""How many images per second one replica holds within a latency target, what limits it, and how to scale it.

    python -m loadtests.capacity --slo-p95-ms 1000 [--repository model_repository] [--traffic 200]
    python -m loadtests.capacity --slo-p95-ms 50 --url grpc://triton:8001 --metrics-url http://triton:8002/metrics

Without `--url` it starts an embedded Triton of its own. It raises the offered load in steps until fewer than 95 % of all
requests are answered, and rightly, within the target, looks closer at where that happens, repeats the load that holds,
and writes report.html, report.json and the plots to `--output`. Exit code 0 when a load was found that holds, 1 when not
or when an answer was wrong, 2 for wrong usage. README.md beside this file tells how it measures.
"""

from __future__ import annotations

from loadtests.capacity.command import main

if __name__ == "__main__":
    main()
