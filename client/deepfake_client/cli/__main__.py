"""`python -m deepfake_client.cli`: the `deepfake` command where its script is not on the PATH."""

from deepfake_client.cli import main

main()
