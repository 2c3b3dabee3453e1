"""Tests that hold for every combination of an overlay with components."""

from __future__ import annotations

from collections.abc import Callable

from tests.support.rendering import Rendering


def each(check: Callable[[Rendering], None]) -> Callable[[list[Rendering]], None]:
    """A test of every combination that names the one it failed for."""

    def test(renderings: list[Rendering]) -> None:
        for rendering in renderings:
            try:
                check(rendering)
            except AssertionError as error:
                raise AssertionError(f"{rendering}: {error}") from error

    test.__name__, test.__doc__ = check.__name__, check.__doc__
    return test
