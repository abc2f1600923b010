"""Columns from a `faust.Record`, and values for one: what a job file's `type: faust` says of an app."""

import enum
import sys
import textwrap
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Optional

import faust
import pyarrow as pa
import pytest
from faust.models.fields import DecimalField, StringField

from streamproc.batch import TIMESTAMP
from streamproc.check import check
from streamproc.clients.faust import apps, records
from streamproc.job import load_job
from streamproc.job.changes import changes
from streamproc.testing import run_job_tests

app = faust.App("records", web_enabled=False)


class Place(faust.Record):
    lat: float
    lon: float


class Everything(faust.Record):
    name: str
    count: int
    share: float
    fine: bool
    at: datetime
    price: Decimal
    blob: bytes
    place: Place
    tags: list[str]
    places: list[Place]
    scores: dict[str, float]
    fixed: tuple[int, ...]
    few: set[str]
    perhaps: Optional[int] = None  # noqa: UP045
    perhaps_place: Place | None = None
    page: str = StringField(input_name="p")
    amount: Decimal = DecimalField(max_digits=10, max_decimal_places=2)


def test_every_field_has_a_column() -> None:
    place = pa.struct([("lat", pa.float64()), ("lon", pa.float64())])
    assert records.columns_of(app.topic("t", value_type=Everything)) == pa.schema(
        [
            ("name", pa.string()), ("count", pa.int64()), ("share", pa.float64()), ("fine", pa.bool_()), ("at", TIMESTAMP),
            ("price", pa.decimal128(38, 18)), ("blob", pa.string()), ("place", place), ("tags", pa.list_(pa.string())),
            ("places", pa.list_(place)), ("scores", pa.map_(pa.string(), pa.float64())), ("fixed", pa.list_(pa.int64())),
            ("few", pa.list_(pa.string())), ("perhaps", pa.int64()), ("perhaps_place", place), ("p", pa.string()),
            ("amount", pa.decimal128(10, 2)),
        ]
    )  # fmt: skip


class Colour(enum.Enum):
    RED = "red"


@pytest.mark.parametrize("hint", [Any, Colour, int | str, dict[int, str], tuple[int, str], list])
def test_a_field_without_a_column_type_is_named(hint: Any) -> None:
    record = type("Odd", (faust.Record,), {"__annotations__": {"odd": hint}, "__module__": __name__})
    with pytest.raises(ValueError, match=r"Odd\.odd is .* write schema: in the job"):
        records.columns_of(app.topic("t", value_type=record))


class Tree(faust.Record):
    name: str
    children: list["Tree"]


def test_a_record_within_itself_has_no_columns() -> None:
    with pytest.raises(ValueError, match="contains itself"):
        records.columns_of(app.topic("t", value_type=Tree))


@pytest.mark.parametrize(
    ("serializer", "kind", "form"),
    [(None, None, "json"), ("json", None, "json"), ("raw", bytes, "raw"), ("raw|json", None, "json"), ("json|raw", None, "json")],
)
def test_codecs_that_are_read(serializer: str | None, kind: Any, form: str) -> None:
    assert records.format_of(app.topic("t", value_serializer=serializer, value_type=kind)) == form


@pytest.mark.parametrize("serializer", ["json|binary", "yaml", "binary"])
def test_other_codecs_are_refused(serializer: str) -> None:
    with pytest.raises(ValueError, match="only json and raw are read"):
        records.format_of(app.topic("t", value_serializer=serializer))


def test_raw_values_are_one_column() -> None:
    assert records.columns_of(app.topic("t", value_serializer="raw", value_type=str)) == pa.schema([("value", pa.string())])
    assert records.columns_of(app.topic("t", value_serializer="raw", value_type=bytes)) == pa.schema([("value", pa.binary())])


class Result(faust.Record):
    page: str
    views: int
    place: Place | None = None
    at: datetime | None = None


ROWS = pa.RecordBatch.from_pylist(
    [{"page": "/", "views": 3, "place": {"lat": 1.0, "lon": 2.0}, "at": datetime(2026, 1, 1, tzinfo=UTC), "_epoch": 7}]
)


def test_rows_become_records() -> None:
    (value,) = records.values_of(ROWS, Result)
    assert value == Result(page="/", views=3, place=Place(lat=1.0, lon=2.0), at=datetime(2026, 1, 1, tzinfo=UTC))
    assert isinstance(value.place, Place)


def test_rows_become_mappings_where_the_topic_has_no_type() -> None:
    rows = pa.RecordBatch.from_arrays([pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64()))], ["m"])
    assert list(records.values_of(rows, None)) == [{"m": {"a": 1}}]
    (row,) = records.values_of(ROWS, None)
    assert row["_epoch"] == 7


def test_rows_become_plain_values() -> None:
    rows = pa.RecordBatch.from_arrays([pa.array(["a", None]), pa.array([1, 1])], ["text", "_epoch"])
    assert list(records.values_of(rows, str)) == ["a", None]


@pytest.mark.parametrize(
    ("kind", "columns", "reason"),
    [
        (Result, ["page", "views"], None),
        (Result, ["page", "views", "_epoch", "_op"], None),
        (Result, ["page"], "Result needs views"),
        (Result, ["page", "views", "more"], "Result has no field more"),
        (str, ["page", "views"], "should yield one column, not page, views"),
        (None, ["anything"], None),
    ],
)
def test_columns_must_fit_the_type(kind: Any, columns: list[str], reason: str | None) -> None:
    refused = records.refused(kind, pa.schema([(name, pa.string()) for name in columns]))
    assert refused is None if reason is None else reason in str(refused)


# -- job files

SHOP = """
from datetime import datetime
from decimal import Decimal
import faust

app = faust.App("shop", web_enabled=False, broker="kafka://one:1111;two:2222")

class Click(faust.Record):
    user: str
    page: str
    ts: datetime
    price: Decimal = Decimal(0)

class Views(faust.Record):
    page: str
    views: int

clicks = app.topic("clicks", value_type=Click)
loose = app.topic("loose")
views = app.topic("views", value_type=Views)
several = app.topic("a", "b", value_type=Click)
packed = app.topic("packed", value_type=Click, value_serializer="json|binary")
inside = app.channel(value_type=Views)

@app.agent(app.topic("enriched", value_type=Views))
async def enrich(stream):
    async for _ in stream:
        pass
"""
JOB = """
sources:
  clicks: {{type: faust, app: 'shop:app', {source}, watermark: {{column: ts}}}}
sinks:
  views: {{type: faust, app: 'shop:app', {sink}, query: 'SELECT page, count(*) AS views FROM clicks GROUP BY window(ts, "1 minute"), page'}}
tests:
  - name: a minute
    steps:
      - add: {{clicks: [{{user: a, page: /, ts: 2026-01-01T00:00:05Z, price: '1.50'}}]}}
      - add: {{clicks: [{{user: a, page: /, ts: 2026-01-01T00:01:05Z}}]}}
      - expect: {{views: [{{page: /, views: 1}}]}}
"""


@pytest.fixture
def shop(tmp_path: Path) -> Any:
    """A folder with an app; makes job files beside it."""
    (tmp_path / "shop.py").write_text(SHOP)
    sys.modules.pop("shop", None)

    def job(source: str = "topic: clicks", sink: str = "topic: views") -> Path:
        path = tmp_path / "job.yaml"
        path.write_text(JOB.format(source=source, sink=sink))
        return path

    yield job
    sys.modules.pop("shop", None)


def test_a_job_takes_its_columns_from_the_app(shop: Any) -> None:
    job = load_job(shop())
    assert job.sources["clicks"].schema.names == ["user", "page", "ts", "price"]
    assert job.sources["clicks"].options.format == "json"
    assert [result.failure for result in run_job_tests(shop())] == [None]


def test_the_apps_brokers_are_read(shop: Any) -> None:
    options = load_job(shop()).sources["clicks"].options
    assert apps.servers(options.app.found) == "one:1111,two:2222"
    assert apps.security_settings(options.app.found) == {"security_protocol": "PLAINTEXT"}
    assert "one:1111" not in repr(options)


def test_columns_of_the_job_win(shop: Any) -> None:
    path = shop(source="topic: loose, schema: 'page STRING, ts TIMESTAMP'")
    path.write_text(path.read_text().partition("tests:")[0])
    assert load_job(path).sources["clicks"].schema.names == ["page", "ts"]


def test_topics_are_found_by_agents_and_by_variables(shop: Any) -> None:
    assert load_job(shop(source="topic: 'shop:several'")).sources["clicks"].options.topic.found.topics == ("a", "b")
    assert load_job(shop(sink="topic: enriched")).sinks["views"].options.topic.name == "enriched"
    assert load_job(shop(sink="channel: inside")).sinks["views"].options.channel.name == "inside"


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"source": "topic: click"}, "shop:app has no topic 'click'; known are clicks, enriched, loose, packed, views"),
        ({"source": "topic: loose"}, "missing key 'schema'"),
        ({"source": "topic: packed"}, "only json and raw are read"),
        ({"source": "topic: clicks, format: csv"}, "the app writes the topic's values as json: remove the key"),
        ({"sink": "channel: views"}, "shop:app has no channel 'views'; known are inside"),
        ({"sink": "channel: inside, topic: views"}, "write either topic or channel"),
        ({"sink": "key: page"}, "write either topic or channel"),
        ({"sink": "topic: views, key: user"}, "key 'user' is no column of the rows"),
        ({"sink": "topic: clicks"}, "Click has no field views"),
        ({"sink": "topic: views, mode: complete"}, "mode complete replaces the whole result"),
        ({"sink": "topic: 'shop:several'"}, "one topic with one name"),
        ({"sink": "topic: 'shop:app'"}, "shop:app is App, not a topic of an app"),
    ],
)
def test_faults(shop: Any, changed: dict[str, str], fault: str) -> None:
    found = [f"{each.line}: {each.message}" for each in check([shop(**changed)])]
    assert len(found) == 1
    assert fault in found[0]
    assert found[0].startswith("3:" if "source" in changed else "5:")


def test_an_app_that_is_not_there_is_one_fault_a_place(shop: Any) -> None:
    path = shop()
    path.write_text(path.read_text().replace("shop:app", "shop:nothing"))
    assert [each.message for each in check([path])] == [
        f"{place}.app: there is no 'nothing' in {path.parent / 'shop.py'}" for place in ("sources.clicks", "sinks.views")
    ]


def test_a_changed_record_is_a_changed_job(shop: Any, tmp_path: Path) -> None:
    """What was begun with the old columns is finished with them: they are kept with the job's text."""
    before = load_job(shop())
    (tmp_path / "shop.py").write_text(SHOP.replace("    user: str\n", "    user: str\n    shoe: str\n"))
    sys.modules.pop("shop")
    after = load_job(shop())
    assert before.hash != after.hash
    kept = load_job(before.file, text=before.text, overrides=before.overrides)
    assert (kept.hash, kept.sources["clicks"].schema) == (before.hash, before.sources["clicks"].schema)
    assert [(change.path, change.compatible) for change in changes(kept, after, kept.planned, after.planned)] == [
        ("sources.clicks.schema", True)
    ]
    assert changes(kept, before, kept.planned, before.planned) == []


def test_nothing_of_faust_is_imported_by_a_job_without_it() -> None:
    import subprocess

    program = "import sys, streamproc.job, sources.faust, sinks.faust; sys.exit(any(m in sys.modules for m in ('faust', 'mode')))"
    assert subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=False).returncode == 0
