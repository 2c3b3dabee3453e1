"""Ways to a Triton server: gRPC, HTTP, or none at all (`fake`), each for threads and for asyncio."""
