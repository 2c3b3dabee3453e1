"""The model card's own code, for a comparison with what is served."""

from .card import Reference, open_reference

__all__ = ["Reference", "open_reference"]
