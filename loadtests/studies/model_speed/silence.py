"""Steps of an export that nobody watches."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext


class Silent:
    """`deepfake_deploy.export.Progress`, told and silent."""

    def step(self, description: str) -> None: ...

    def advance(self) -> None: ...

    def aside(self) -> AbstractContextManager[None]:
        return nullcontext()
