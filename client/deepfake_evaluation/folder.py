"""A folder of labelled images: one folder for each label of the model, and the images anywhere below it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from deepfake_cli.files import links_to_folders, list_files

from .errors import InputError


class LabelledFolder:
    """Files with their labels, in an order that is the same each time: label by label, then by name.

    The names are listed one folder at a time and never all together.

    Attributes:
        path: the folder.
        labels: of the model, in the order of its classes.
        left_out: names of files that lie beside the label folders, and so have no label, and of links to folders
            below these, which are not followed.
    """

    def __init__(self, path: Path, labels: Sequence[str]) -> None:
        """Look at the folder, not yet into each of its files.

        Raises:
            InputError: it is not there, its folders are not named like the labels, or one of them is empty.
        """
        self.path = path
        self.labels = tuple(labels)
        entries = _entries(path)
        folders = [entry.name for entry in entries if entry.is_dir()]
        self.left_out = [entry.name for entry in entries if not entry.is_dir()]
        expected = " and ".join(f"`{label}`" for label in labels)
        if not folders:
            raise InputError(
                f"{path}: has no folders; the images belong into {expected}, as the model names its classes"
            )
        if unknown := [name for name in folders if name not in labels]:
            raise InputError(
                f"{path}: no label of the model is called `{unknown[0]}`; name the folders exactly {expected}, "
                "and keep others elsewhere"
            )
        if missing := [label for label in labels if label not in folders]:
            raise InputError(
                f"{path}: has no folder `{missing[0]}`; one class alone cannot be measured, add {expected}"
            )
        try:
            for label in labels:
                if next(list_files(path / label), None) is None:
                    raise InputError(f"{path / label}: no files in it; one class alone cannot be measured")
                self.left_out += [link.relative_to(path).as_posix() for link in links_to_folders(path / label)]
        except OSError as error:
            raise InputError(f"{error.filename}: cannot be read ({error.strerror})") from None

    @property
    def left_out_note(self) -> str | None:
        """What to say of the files that are left out, where there are any."""
        if not self.left_out:
            return None
        names = ", ".join(self.left_out[:3]) + (", …" if len(self.left_out) > 3 else "")
        return f"{self.path}: left out, for they lie in no label's folder or are links to folders: {names}"

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """(label, path below the folder with slashes) of each file."""
        for label in self.labels:
            for file in list_files(self.path / label):
                yield label, file.relative_to(self.path).as_posix()

    def count(self) -> int:
        """How many files there are now."""
        return sum(1 for _ in self)


def require_folder(path: Path) -> None:
    """Refuse what is no folder, before a server is asked.

    Raises:
        InputError: naming it.
    """
    if not path.is_dir():
        reason = "is a file, not a folder" if path.exists() else "no such folder"
        raise InputError(f"{path}: {reason}; give a folder with one folder of images for each label")


def _entries(path: Path) -> list[Path]:
    require_folder(path)
    try:
        return sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
