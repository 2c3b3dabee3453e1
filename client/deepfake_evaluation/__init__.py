"""How far verdicts can be trusted: `deepfake evaluate` and `deepfake calibrate`.

`folder` says which image has which label, `run` classifies them through the server, `journal` keeps the answers.
`measures`, `robustness`, `decisions` and `reference` make figures of them, `report`, `plots` and `results` show and
write these, `calibration` fits a policy. All but the first three need the extra `evaluate`, `reference` also `export`.

EvaluationError
├── InputError         what was given cannot be evaluated; asking again cannot help
├── OutputError        the results cannot be written
├── NoReferenceError   the model to compare with cannot be had
├── ModelChangedError  the server began to serve something else in the middle
└── UnansweredError    the server left images without an answer; the same command goes on from there
"""


class EvaluationError(Exception):
    """Base of these errors; `str()` of each is one line."""


class InputError(EvaluationError):
    """A folder, a model or a rate that was given cannot be used."""


class OutputError(EvaluationError):
    """The disk is full or failed, or another evaluation writes to the same folder."""


class NoReferenceError(EvaluationError):
    """The checkpoint for the comparison cannot be fetched or loaded, or is another kind of model."""


class ModelChangedError(EvaluationError):
    """Answers before and after are of different models, so no figure can be made of them."""


class UnansweredError(EvaluationError):
    """The server was away, overloaded or failing; what it did answer is kept."""
