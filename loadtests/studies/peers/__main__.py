"""The embedded Triton beside other servers of the same checkpoint: the card's own app, FastAPI, LitServe, BentoML, Ray Serve.

    python -m loadtests.studies.peers [--rounds 3] [--seconds 5] [--only triton-image,fastapi] [--model FOLDER]

`make peers` installs the peers into an environment of their own first. Each round visits every server in turn, starts
it, checks its answers against transformers, measures it with 1, 8 and 32 callers, and stops it; in fp32, and in the
precision that is fastest here. After each round peers.md, peers.png and peers.json in `--output` are written anew. Exit
code 0 when the embedded Triton is ahead of every peer, 1 when not, 2 for wrong usage. README.md beside this file tells
how each is set up.
"""

from __future__ import annotations

from loadtests.studies.peers.command import main

if __name__ == "__main__":
    main()
