"""Load, capacity, observability and the studies behind the figures of the documents."""

from deepfake_cli.console import write_in_any_encoding

write_in_any_encoding()  # here, so that no command of this folder can forget it
