"""Reads the `Retry-After` header (RFC 9110, section 10.2.3)."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime


def seconds_until(value: str | None) -> float | None:
    """Seconds to wait, from a number of seconds or an HTTP date; None where there is neither."""
    if value is None:
        return None
    text = value.strip()
    # Some gateways send fractions, which the RFC does not know.
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", text):
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return max(0.0, (moment - datetime.now(timezone.utc)).total_seconds())
