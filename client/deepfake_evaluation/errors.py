"""Why an evaluation ends without a report.

EvaluationError
├── InputError         what was given cannot be evaluated; asking again cannot help
├── OutputError        the results cannot be written
├── NoReferenceError   the model to compare with cannot be had
├── ModelChangedError  the server began to serve something else in the middle
└── UnansweredError    the server left images without an answer; the same command goes on from there
"""

from __future__ import annotations


class EvaluationError(Exception):
    """Base of these errors; `str()` of each is one line."""


class InputError(EvaluationError):
    """A folder that was given cannot be used; running the command again would not help."""


class OutputError(EvaluationError):
    """The disk is full or failed, or another evaluation writes to the same folder."""


class NoReferenceError(EvaluationError):
    """The checkpoint for the comparison with transformers cannot be fetched, loaded, or is another kind of model."""


class ModelChangedError(EvaluationError):
    """Answers before and after are of different models, so that no figure could be made of them."""


class UnansweredError(EvaluationError):
    """The server was away, overloaded or failing; what it did answer is kept."""
