from __future__ import annotations

import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def spark() -> Iterator[Any]:
    """A running SparkSession of tests/servers/spark; skips if it cannot be had."""
    module = runpy.run_path(str(Path(__file__).parent.parent / "servers" / "spark" / "session.py"))
    try:
        session = module["SparkSession"]().start()
    except module["Unobtainable"] as error:
        pytest.skip(str(error))
    yield session
    session.stop()
