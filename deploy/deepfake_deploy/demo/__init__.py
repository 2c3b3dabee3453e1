"""`make demo`: from nothing to verdicts over gRPC and HTTP, in one command."""
