"""A folder of labelled images: one folder for each label of the model, and the images anywhere below it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from deepfake_client._images import links_to_folders, list_files

from . import InputError


class LabelledFolder:
    """Files with their labels.

    Attributes:
        files: paths below the folder, with slashes, label by label and then by name; each begins with its label.
        left_out: files beside the label folders, which have no label, and links to folders, which are not followed.
    """

    def __init__(self, path: Path, labels: Sequence[str]) -> None:
        """List the files."""
        self.path, self.labels = path, tuple(labels)
        try:
            entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
            self.left_out = [entry.name for entry in entries if not entry.is_dir()]
            self._require_labels([entry.name for entry in entries if entry.is_dir()])
            self.files = [self._below(file) for label in labels for file in list_files(path / label)]
            self.left_out += [self._below(link) for label in labels for link in links_to_folders(path / label)]
        except OSError as error:
            raise InputError(f"{error.filename}: cannot be read ({error.strerror})") from None
        for label in labels:
            if not self.count(label):
                raise InputError(f"{path / label}: no files in it; one class alone cannot be measured")

    @property
    def left_out_note(self) -> str | None:
        if not self.left_out:
            return None
        names = ", ".join(self.left_out[:3]) + (", …" if len(self.left_out) > 3 else "")
        return f"{self.path}: left out, for they lie in no label's folder or are links to folders: {names}"

    def count(self, label: str) -> int:
        return sum(file.startswith(f"{label}/") for file in self.files)

    def _below(self, file: Path) -> str:
        return file.relative_to(self.path).as_posix()

    def _require_labels(self, folders: Sequence[str]) -> None:
        expected = " and ".join(f"`{label}`" for label in self.labels)
        if not folders:
            reason = f"has no folders; the images belong into {expected}, as the model names its classes"
        elif unknown := set(folders).difference(self.labels):
            reason = f"no label of the model is called `{min(unknown)}`; name the folders exactly {expected}"
        elif missing := set(self.labels).difference(folders):
            reason = f"has no folder `{min(missing)}`; one class alone cannot be measured, add {expected}"
        else:
            return
        raise InputError(f"{self.path}: {reason}")


def require_folders(images: Path, output: Path) -> None:
    """Raise `InputError`, before a server is asked, for images in no folder or results in the folder of images."""
    if not images.is_dir():
        reason = "is a file, not a folder" if images.exists() else "no such folder"
        raise InputError(f"{images}: {reason}; give a folder with one folder of images for each label")
    if output.resolve().is_relative_to(images.resolve()):  # they would be taken for images the next time
        raise InputError(f"{output}: lies in the folder of images; choose another --output")
