"""Which files a path on the command line stands for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def list_files(path: Path) -> Iterator[Path]:
    """The path itself, or every file below a folder, in the order of their names.

    All of them and not only those with an image's ending: what is not an image is reported, not passed over. Hidden
    files are left out (.DS_Store and its kin), as are links to folders, which may lead in a circle; `links_to_folders`
    names these.

    Raises:
        OSError: a folder cannot be read.
    """
    if not path.is_dir():
        yield path
        return
    for folder, folders, files in os.walk(path, onerror=_raise):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith("."):
                yield Path(folder) / name


def links_to_folders(path: Path) -> Iterator[Path]:
    """Links below a folder that `list_files` does not follow."""
    for folder, folders, _ in os.walk(path, onerror=_raise):
        yield from (link for name in sorted(folders) if (link := Path(folder) / name).is_symlink())


def _raise(error: OSError) -> None:
    raise error
