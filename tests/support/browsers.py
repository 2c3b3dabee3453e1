"""A real browser, and a visitor's page in it that keeps an eye on what it loads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from playwright.sync_api import Page, expect, sync_playwright

from tests.support.programs import require_program

_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",  # a camera
    "--use-fake-ui-for-media-stream",
]
TIMEOUT_MILLISECONDS = 60_000


class Browsers:
    """One browser; each visitor has a context of its own."""

    def __enter__(self) -> Browsers:
        chromium = require_program("chromium", "chromium")
        self._playwright = sync_playwright().start()
        self._browser = self._playwright.chromium.launch(executable_path=chromium, args=_ARGUMENTS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._browser.close()
        self._playwright.stop()

    @contextmanager
    def visit(self, url: str, *, width: int = 1440, **options: Any) -> Iterator[Page]:
        """The page at `url`; nothing of another host may have been asked for, and no script have failed, at the end."""
        phone = width < 500
        context = self._browser.new_context(
            viewport={"width": width, "height": 844}, is_mobile=phone, has_touch=phone, **options
        )
        visited = context.new_page()
        visited.set_default_timeout(TIMEOUT_MILLISECONDS)
        expect.set_options(timeout=TIMEOUT_MILLISECONDS)
        foreign: list[str] = []
        failures: list[str] = []
        # A context's events cover what its frames and workers load as well.
        context.on(
            "request",
            lambda request: request.url.startswith((f"{url}/", "data:", "blob:")) or foreign.append(request.url),
        )
        visited.on("pageerror", lambda error: failures.append(str(error)))
        try:
            visited.goto(url)
            expect(visited.locator("#df-status")).not_to_be_empty()
            yield visited
            assert foreign == []
            assert failures == []
        finally:
            context.close()


def upload_one(visited: Page, *files: Any) -> None:
    visited.set_input_files("#df-image input[type=file]", files)


def upload_several(visited: Page, *files: Any) -> None:
    visited.get_by_role("tab", name="Several images").click()
    visited.set_input_files("#df-images input[type=file]", files)
