"""What holds for every test: hypothesis profiles, and no silent skip where servers were promised."""

from __future__ import annotations

import os
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

settings.register_profile("quick", max_examples=30, deadline=None)
settings.register_profile("ci", max_examples=200, deadline=None, derandomize=True)  # the same examples each time; soak looks for new ones
settings.register_profile("soak", max_examples=5000, deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))

UNABLE = "Harness has no "
SERVERS_REQUIRED = os.environ.get("CI_REQUIRE_SERVERS") == "1"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """With CI_REQUIRE_SERVERS=1 a test of a real server that skips has failed: its server could not be had. What a server that is
    there cannot do (`optional` of a conformance suite) is another matter.
    """
    report = yield
    needs_server = any(map(item.get_closest_marker, ("kafka", "s3", "spark", "kcl", "prometheus", "linters", "npm")))
    unable = report.skipped and UNABLE in str(report.longrepr)
    if SERVERS_REQUIRED and needs_server and report.skipped and not unable and not hasattr(report, "wasxfail"):
        report.outcome, report.longrepr = "failed", f"CI_REQUIRE_SERVERS=1, but skipped: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Iterator[None]:
    """The same for a whole file that skips itself while it is collected."""
    report = yield
    if SERVERS_REQUIRED and report.outcome == "skipped":
        report.outcome, report.longrepr = "failed", f"CI_REQUIRE_SERVERS=1, but skipped: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def apache_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A running Apache Kafka (`ApacheKafka` of tests/servers/kafka/broker.py, all listeners); skips if it cannot be had."""
    module = runpy.run_path(str(Path(__file__).parent / "servers" / "kafka" / "broker.py"))
    try:
        broker = module["ApacheKafka"](tmp_path_factory.mktemp("kafka"), secure=True).start()
    except module["Unobtainable"] as error:
        pytest.skip(str(error))
    yield broker
    broker.stop()


@pytest.fixture(scope="module")
def dynamodb_local() -> Iterator[str]:
    """Endpoint of a DynamoDB Local (tests/servers/kcl); skips if it cannot be had."""
    module = runpy.run_path(str(Path(__file__).parent / "servers" / "kcl" / "kcl.py"))
    try:
        server = module["DynamoDBLocal"]().start()
    except module["Unobtainable"] as error:
        pytest.skip(str(error))
    try:
        yield server.url
    finally:
        server.stop()
