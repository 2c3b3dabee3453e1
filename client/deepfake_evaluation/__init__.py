"""How far verdicts can be trusted: `deepfake evaluate` and `deepfake calibrate`.

`folder` says which image has which label, `run` classifies them through the server, `journal` keeps the answers.
`measures`, `robustness`, `policy` and `reference` make figures of them, `report` and `plots` write these. All but the
first three need the extra `evaluate`, `reference` also `export`.
"""


class EvaluationError(Exception):
    """Why there is no report, in one line."""


class InputError(EvaluationError):
    """What was given cannot be evaluated; asking again cannot help."""


class OutputError(EvaluationError):
    """The disk is full or failed, or another evaluation writes to the same folder."""


class ModelChangedError(EvaluationError):
    """The server began to serve something else in the middle."""


class UnansweredError(EvaluationError):
    """The server left images without an answer; the same command goes on from there."""
