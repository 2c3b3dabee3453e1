"""Export of a checkpoint to TorchScript, checked against transformers."""

from .checkpoint import STAND_IN
from .contract import MODEL_NAME
from .parity import BATCH_SIZES
from .pipeline import Export, export_model
from .reporting import ExportError, HubUnreachableError, Progress
from .target import FIRST_VERSION, MODEL_FILE, PROVENANCE_FILE
from .torchscript import Precision, int8_refusal

__all__ = [
    "BATCH_SIZES",
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
    "int8_refusal",
]
