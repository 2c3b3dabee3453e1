"""What is rendered once for all tests of the manifests."""

from __future__ import annotations

import pytest

from tests.support.rendering import Rendering, pairwise, render, render_all


@pytest.fixture(scope="session")
def renderings(tmp_path_factory: pytest.TempPathFactory) -> list[Rendering]:
    return render_all(tmp_path_factory.mktemp("combinations"), pairwise())


@pytest.fixture(scope="session")
def cpu(tmp_path_factory: pytest.TempPathFactory) -> Rendering:
    """The overlay `cpu` alone."""
    return render(tmp_path_factory.mktemp("cpu"), "cpu")
