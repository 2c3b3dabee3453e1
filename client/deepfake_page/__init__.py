"""The web page in front of a running Triton: what `deepfake page` serves.

A photo goes from the browser through `guard` and gradio's own upload into a folder in memory (`uploads`), is asked
about once (`classification`), and leaves a verdict and a thumbnail in the answer (`markup`).
"""
