"""Which object names are safe on every store."""

from __future__ import annotations

import re

_BAD = re.compile(r"(^|/)(\.{0,2}|\.tmp-[^/]*)(/|$)|[\x00-\x1f\x7f\\]")


def check_name(name: str) -> None:
    """ValueError unless `name` is relative, without empty, `.`, `..` or `.tmp-…` parts and control characters."""
    if _BAD.search(name):
        raise ValueError(f"{name!r} is not an object name: write relative/parts without '..'")
