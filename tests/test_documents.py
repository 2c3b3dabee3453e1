"""What is written for readers: short, with links that lead somewhere, and lines that fit a window."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.support.project import ROOT

_FOLDERS = ("client", "deploy", "loadtests", "model_repository", "tests")
DOCUMENTS = sorted(
    document
    for found in (ROOT.glob("*.md"), *(ROOT.joinpath(folder).rglob("*.md") for folder in _FOLDERS))
    for document in found
    if "results" not in document.parts
)
READMES = [document for document in DOCUMENTS if document.name == "README.md"]
_names = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: str(document.relative_to(ROOT)))


def prose(document: Path) -> str:
    """A document without code blocks, tables, comments and headings; each list item is a paragraph."""
    text = re.sub(r"```.*?```|<!--.*?-->", "\n", document.read_text(encoding="utf-8"), flags=re.DOTALL)
    lines = [line for line in text.split("\n") if not line.lstrip().startswith(("|", "#"))]
    return re.sub(r"^\s*(?:[-*]|\d+\.)\s+", "\n\n", "\n".join(lines), flags=re.MULTILINE)


def sentences(document: Path) -> list[list[str]]:
    """The words of each sentence."""
    found = []
    for paragraph in re.split(r"\n\s*\n", prose(document)):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", paragraph)
        for sentence in re.split(r"(?<=[.!?])[)»*]*\s+(?=\S)", plain):
            words = [word for word in sentence.split() if re.search(r"\w", word)]
            if words:
                found.append(words)
    return found


def mean_length(document: Path) -> float:
    counted = sentences(document)
    return sum(map(len, counted)) / len(counted)


def anchors(document: Path) -> set[str]:
    """The fragments of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_is_read_in_minutes() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 180
    assert mean_length(ROOT / "README.md") <= 14


@_names
def test_sentences_are_short(document: Path) -> None:
    assert mean_length(document) <= 14
    assert [" ".join(words) for words in sentences(document) if len(words) > 30] == []


@_names
def test_relative_links_lead_somewhere(document: Path) -> None:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, fragment = unquote(link).partition("#")
        target = (document.parent / path).resolve() if path else document
        if not target.exists() or (fragment and fragment not in anchors(target)):
            broken.append(link)
    assert broken == []


@_names
def test_lines_fit_a_window(document: Path) -> None:
    code = False
    long = []
    for number, line in enumerate(document.read_text(encoding="utf-8").split("\n"), 1):
        code ^= line.lstrip().startswith("```")
        if len(line) > 120 and not code and not line.startswith("|") and "https://" not in line:
            long.append(number)
    assert long == []


def test_each_row_of_the_security_page_names_a_test() -> None:
    closed = (ROOT / "SECURITY.md").read_text(encoding="utf-8").split("## Open")[0]
    rows = [row for row in closed.split("\n") if row.startswith("|")][2:]
    for row in rows:
        tests = re.findall(r"`(tests/[\w/]+\.py)`", row)
        assert tests, row
        assert all((ROOT / test).is_file() for test in tests), row


def test_every_folder_of_the_map_has_a_readme() -> None:
    assert {str(readme.parent.relative_to(ROOT)) for readme in READMES} >= {
        ".",
        "client",
        "client/deepfake_evaluation",
        "client/deepfake_page",
        "model_repository",
        "deploy",
        "deploy/kubernetes",
        "deploy/observability",
        "loadtests",
    }
