"""Errors of the export, each one line: the thing, the reason and the way out."""


class ExportError(Exception):
    """The checkpoint was not exported; what was in the repository before is still there."""


class HubUnreachableError(ExportError):
    """The Hugging Face Hub did not answer. The one error that `make demo` goes on after."""
