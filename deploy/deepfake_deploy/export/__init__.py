"""Export of a checkpoint to TorchScript, checked against transformers."""

from .checkpoint import DEFAULT_MODEL
from .contract import MODEL_NAME
from .errors import ExportError, HubUnreachableError
from .parity import BATCH_SIZES
from .pipeline import Export, export_model
from .precision import Precision
from .progress import Progress
from .stand_in import STAND_IN
from .target import FIRST_VERSION, MODEL_FILE, PROVENANCE_FILE

__all__ = [
    "BATCH_SIZES",
    "DEFAULT_MODEL",
    "FIRST_VERSION",
    "MODEL_FILE",
    "MODEL_NAME",
    "PROVENANCE_FILE",
    "STAND_IN",
    "Export",
    "ExportError",
    "HubUnreachableError",
    "Precision",
    "Progress",
    "export_model",
]
