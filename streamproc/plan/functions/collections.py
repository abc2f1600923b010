from __future__ import annotations

from collections.abc import Mapping

from streamproc.plan.functions.call import Builder

FUNCTIONS: Mapping[str, Builder] = {}
