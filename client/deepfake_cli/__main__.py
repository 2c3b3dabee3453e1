"""`python -m deepfake_cli`: the `deepfake` command where its script is not on the PATH."""

from deepfake_cli import main

main()
