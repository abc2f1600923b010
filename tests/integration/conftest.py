"""What tests of whole jobs share: the modules of tests/soak, which do the same for hours, and one server of each kind a session."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamproc.testing.ministack import Ministack
from streamproc.testing.noida import NoidaBroker

sys.path.append(str(Path(__file__).resolve().parents[1] / "soak"))
sys.path.append(str(Path(__file__).parent))  # what tests of this folder share stands beside them


@pytest.fixture(scope="session")
def kinesis() -> Iterator[dict[str, str]]:
    """The environment of clients of a ministack."""
    with Ministack() as server:
        yield server.environment()


@pytest.fixture(scope="session")
def s3() -> Iterator[dict[str, str]]:
    """The same of another, with a bucket `lake`: one that is busy with a large page of records renews no lease in time."""
    from servers import make_bucket

    with Ministack() as server:
        make_bucket(server.environment())
        yield server.environment()


@pytest.fixture(scope="session")
def noida_broker() -> Iterator[NoidaBroker]:
    with NoidaBroker() as broker:
        yield broker


@pytest.fixture(scope="session")
def strict_s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of clients of a versitygw, with a bucket `lake`; skips if it cannot be had."""
    from servers import Versitygw, make_bucket

    try:
        server = Versitygw(tmp_path_factory.mktemp("versitygw"))
    except LookupError as error:
        pytest.skip(str(error))
    with server:
        make_bucket(server.environment())
        yield server.environment()
