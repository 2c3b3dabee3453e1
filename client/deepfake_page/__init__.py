"""The web page in front of a running Triton: what `deepfake page` serves.

An image goes from the browser into `uploads` (memory, never a disk), is taken out once by `classification`, and what
remains of it is a verdict and a thumbnail in the answer. gradio draws the page and queues the work; `gate` decides
which of gradio's addresses exist at all, and `server` binds the port.
"""
