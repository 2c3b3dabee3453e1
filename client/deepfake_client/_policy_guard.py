"""Keeps a policy away from weights that it was not fitted for."""

from __future__ import annotations

from collections.abc import Callable

from ._errors import PolicyMismatchError
from ._model_info import Provenance
from ._policy import DecisionPolicy

# A version keeps its weights for as long as a server runs, but servers are replaced under the same address.
_TRUSTED_SECONDS = 30.0


class PolicyGuard:
    """Remembers for each version of the model whether its weights are those of the policy."""

    def __init__(self, policy: DecisionPolicy, clock: Callable[[], float]) -> None:
        self.policy = policy
        self._clock = clock
        #: by version, when it was compared and what was wrong with it, "" for nothing
        self._compared: dict[str, tuple[float, str]] = {}

    @property
    def asks_for_weights(self) -> bool:
        """Whether the weights' digest is compared, and not only their version."""
        return self.policy.model_pt_sha256 is not None

    @property
    def asks_nothing(self) -> bool:
        """Whether the policy is for any weights."""
        return self.policy.model_pt_sha256 is None and self.policy.model_version is None

    def settled(self, version: str) -> bool:
        """Whether the weights of `version` were compared a moment ago, and found right.

        Raises:
            PolicyMismatchError: they were found wrong.
        """
        compared_at, reason = self._compared.get(version, (None, ""))
        if compared_at is None or self._clock() - compared_at > _TRUSTED_SECONDS:
            return False
        if reason:
            raise PolicyMismatchError(reason)
        return True

    def compare(self, version: str, served_version: str, provenance: Provenance | None) -> None:
        """Takes note of what the server told.

        Args:
            version: as it is asked for in `settled`.
            served_version: of the classifier.
            provenance: of that; not looked at where the policy names no digest.

        Raises:
            PolicyMismatchError: the weights are not those of the policy, or the server does not say.
        """
        reason = self._difference(served_version, provenance)
        self._compared[version] = (self._clock(), reason)
        if reason:
            raise PolicyMismatchError(reason)

    def _difference(self, served_version: str, provenance: Provenance | None) -> str:
        policy = self.policy
        wanted = f"the policy was fitted for {policy.model or 'the model'}"
        way_out = "calibrate again for these weights, or leave the policy out"
        if policy.model_pt_sha256 is None:
            if served_version == policy.model_version:
                return ""
            return f"{wanted} version {policy.model_version}, and version {served_version} answers: {way_out}"
        wanted = f"{wanted} with weights {policy.model_pt_sha256[:12]}…"
        if provenance is None:
            return f"{wanted}, and the server does not say which it has: serve weights that `deepfake export` wrote, or leave the policy out"
        if provenance.model_pt_sha256 == policy.model_pt_sha256:
            return ""
        return f"{wanted}, and version {served_version} has {provenance.model_pt_sha256[:12]}…: {way_out}"
