"""The file of a decision policy: a small JSON object, which may come from anywhere."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ._errors import ImageError, InvalidArgumentError
from ._images import read_encoded

FORMAT = "deepfake-decision-policy"
FORMAT_VERSION = 1
_MAX_BYTES = 64 * 1024  # a policy has about one thousand


def read_policy_file(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The fields in the file, with the format's own two left out.

    Raises:
        InvalidArgumentError: it cannot be read, or is not JSON of this format and version; without the file's name.
    """
    try:
        content = read_encoded(path, _MAX_BYTES)
    except ImageError as error:
        raise InvalidArgumentError(f"no policy can be read there: {error.reason.partition(', the limit')[0]}") from None
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        raise InvalidArgumentError("not JSON; a policy is written by `deepfake calibrate`") from None
    if not isinstance(document, dict) or document.pop("format", None) != FORMAT:
        raise InvalidArgumentError("not a policy of `deepfake calibrate`")
    version = document.pop("format_version", None)
    if version != FORMAT_VERSION or isinstance(version, bool):
        raise InvalidArgumentError(
            f"a policy of format version {version!r:.40}, and this program reads {FORMAT_VERSION}: update it, or "
            "calibrate again"
        )
    return document


def write_policy_file(path: str | os.PathLike[str], fields: Mapping[str, Any]) -> None:
    """Write the file beside an older one, make sure that it is on the disk, and rename.

    Raises:
        OSError: it cannot be written; an older one is unchanged.
    """
    target = Path(path)
    document = {"format": FORMAT, "format_version": FORMAT_VERSION, **fields}
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
