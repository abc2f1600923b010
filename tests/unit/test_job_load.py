"""Loading a job: every default, every fault with its line, secrets never shown."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pyarrow as pa
import pytest

from streamproc.errors import InvalidJob
from streamproc.job import Asap, AvailableNow, Interval, Job, load_job
from streamproc.offset import Start
from streamproc.options import Secret

HEAD = """\
name: page-views
sources:
  clicks:
    type: kafka
    topic: clicks
    bootstrap_servers: ${BROKERS:-localhost:9092}
    schema: user STRING, page STRING, amount DECIMAL(10,2), ts TIMESTAMP
    watermark: {column: ts, delay: 30 seconds}
views:
  real: SELECT * FROM clicks WHERE page <> '/health'
sinks:
  views_per_minute:
    type: files
    path: lake/views/
    query: |
      SELECT window.start AS minute, page, count(*) AS views
      FROM real GROUP BY window(ts, '1 minute'), page
"""


def load(text: str = HEAD, *overrides: str, **environment: str) -> Job:
    return load_job("jobs/my-job.yaml", text=text, overrides=overrides, environment=environment)


def faults(text: str = HEAD, *overrides: str, **environment: str) -> list[tuple[int, str]]:
    with pytest.raises(InvalidJob) as caught:
        load(text, *overrides, **environment)
    assert all(fault.file == "jobs/my-job.yaml" for fault in caught.value.faults)
    return [(fault.line, fault.message) for fault in caught.value.faults]


def source(keys: str) -> str:
    """The job with another source; it stands in lines 2 and 3, its keys from line 4 on."""
    return f"sources:\n  clicks:\n    {keys}\nsinks: {{out: {{type: console, query: SELECT * FROM clicks}}}}\n"


def test_a_job_with_every_default() -> None:
    job = load(HEAD.replace("name: page-views\n", ""))
    clicks, out = job.sources["clicks"], job.sinks["views_per_minute"]
    assert (job.name, job.file, job.folder) == ("my-job", "jobs/my-job.yaml", Path("jobs"))
    assert (job.checkpoint, job.trigger, job.time_zone) == ("./checkpoints/my-job", Asap(), "UTC")
    assert (job.leases, job.dead_letter, job.metrics, job.tests, job.tables) == (None, None, None, (), {})
    assert (clicks.type, clicks.line, clicks.options.start, clicks.options.format) == ("kafka", 2, Start(), "json")
    assert clicks.options.bad_records == "fail"
    assert clicks.schema.names == ["user", "page", "amount", "ts"]
    watermark = clicks.options.watermark
    assert watermark is not None
    assert (watermark.delay, watermark.idle, watermark.max_ahead) == (30_000_000, 300_000_000, 86_400_000_000)
    assert (out.type, out.mode, out.late, out.line, out.query_line) == ("files", "append", None, 11, 15)
    assert out.options.format == "parquet"  # type: ignore[attr-defined]
    assert job.views == {"real": "SELECT * FROM clicks WHERE page <> '/health'"}


def test_bounded_tables_and_functions() -> None:
    keys = "type: files, path: 's3://lake/users/', format: parquet, refresh: 10 minutes, versioned: {key: user, time: since}"
    text = f"tables:\n  users: {{{keys}, schema: 'user STRING, since TIMESTAMP'}}\n"
    job = load(f"{HEAD}{text}functions:\n  dumps: {{function: 'json:dumps', returns: 'MAP<STRING, INT>'}}\n")
    users, dumps = job.tables["users"], job.functions["dumps"]
    assert (users.type, users.line, users.schema.names) == ("files", 19, ["user", "since"])
    assert users.options.refresh == 600_000_000
    assert users.options.versioned is not None
    assert (users.options.versioned.key, users.options.versioned.time) == ("user", "since")
    assert (dumps.function, dumps.returns, dumps.deterministic, dumps.line) == ("json:dumps", pa.map_(pa.string(), pa.int32()), False, 21)


def test_late_rows_and_dead_letters_are_json_unless_said() -> None:
    late = HEAD.replace("    query: |", "    late: {type: files, path: lake/late/}\n    query: |")
    job = load(late + "dead_letter: {type: files, path: lake/dead/, format: parquet}\n")
    spec = job.sinks["views_per_minute"].late
    assert spec is not None
    assert spec.options.format == "json"  # type: ignore[attr-defined]
    assert (spec.query, spec.mode, spec.line) == ("", "append", 15)
    assert job.dead_letter is not None
    assert job.dead_letter.options.format == "parquet"  # type: ignore[attr-defined]


def test_raw_without_a_schema_is_one_binary_column() -> None:
    job = load(source("{type: kafka, topic: t, bootstrap_servers: b, format: raw}"))
    assert job.sources["clicks"].schema == pa.schema([("value", pa.binary())])


@pytest.mark.parametrize(
    ("override", "trigger"),
    [
        ("trigger=10 seconds", Interval(10_000_000)),
        ("trigger=asap", Asap()),
        ("trigger=available_now", AvailableNow()),
        ("checkpoint=s3://lake/checkpoints/x", Interval(1_000_000)),
        ("sinks.views_per_minute.path=s3://lake/views/", Interval(1_000_000)),
        ("checkpoint=/var/x", Asap()),
    ],
)
def test_triggers(override: str, trigger: object) -> None:
    assert load(HEAD, override).trigger == trigger


def test_the_hash_follows_text_and_overrides_only() -> None:
    one = load(HEAD, BROKERS="a:1")
    assert one.hash == load(HEAD, BROKERS="b:1").hash
    assert len({one.hash, load(HEAD + "\n").hash, load(HEAD, "trigger=asap").hash}) == 3
    assert load(HEAD, "trigger=asap").overrides == ("trigger=asap",)


def test_values_from_variables_are_typed_by_their_key() -> None:
    text = HEAD.replace("    topic: clicks\n", "    topic: clicks\n    max_rows_per_epoch: ${ROWS}\n    start: ${START}\n")
    options = load(text, ROWS="500", START="2026-01-01T00:00:00Z").sources["clicks"].options
    assert options.max_rows_per_epoch == 500
    assert options.start == Start("timestamp", 1_767_225_600_000_000)
    assert load(text, ROWS="", START="latest").sources["clicks"].options.max_rows_per_epoch is None


def test_repr_is_short() -> None:
    assert len(repr(load())) < 400


# -- secrets

SECURED = HEAD.replace(
    "    topic: clicks\n", "    topic: clicks\n    security: {protocol: SASL_SSL, mechanism: PLAIN, username: u, password: WORD}\n"
)


@pytest.mark.parametrize("reference", ["secret://env/KAFKA_PASSWORD", "secret://file/run/secrets/kafka"])
def test_secrets_are_references(reference: str) -> None:
    job = load(SECURED.replace("WORD", reference))
    assert job.sources["clicks"].options.security.password == Secret(reference)  # type: ignore[attr-defined]


def test_a_variable_may_be_a_secret_and_shows_only_its_template() -> None:
    job = load(SECURED.replace("WORD", "'${PASSWORD}'"), PASSWORD="hunter2")
    password = job.sources["clicks"].options.security.password  # type: ignore[attr-defined]
    assert password.reveal() == "hunter2"
    assert "hunter2" not in repr(job.sources) + repr(dataclasses.asdict(job.sources["clicks"])) + str(password)


def test_a_literal_secret_is_refused_and_not_repeated() -> None:
    for text, overrides in ((SECURED.replace("WORD", "hunter2"), ()), (SECURED, ("sources.clicks.security.password=hunter2",))):
        [(line, message)] = faults(text, *overrides)
        assert line == 6
        assert "never as a literal" in message
        assert "hunter2" not in message.removeprefix("--set sources.clicks.security.password=hunter2")


# -- faults


@pytest.mark.parametrize(
    ("keys", "line", "part"),
    [
        ("{type: kafk, topic: t}", 3, "unknown source type 'kafk'; did you mean 'kafka'?"),
        ("{type: redshift}", 3, "unknown source type 'redshift'; known are faust, files, generator, kafka, kinesis"),
        ("{topic: t}", 2, "source 'clicks': missing key 'type'; write one of faust, files, generator, kafka, kinesis"),
        ("[kafka]", 2, "source 'clicks' should be a mapping with a type"),
        ("type: kafka\n    topic: t\n    schema: a INT", 2, "missing key 'bootstrap_servers' (host:port"),
        ("type: kafka\n    topic: t\n    bootstrap_servers: b", 2, "missing key 'schema'"),
        (
            "type: kafka\n    topik: t\n    topic: t\n    bootstrap_servers: b\n    schema: a INT",
            4,
            "unknown key 'topik'; did you mean 'topic'?",
        ),
        ("type: kafka\n    topic: t\n    bootstrap_servers: b\n    schema: a INTT", 6, "not a Spark DDL column list"),
        ("{KAFKA, schema: a INT, start: soon}", 3, "start is earliest, latest or a time"),
        ("{KAFKA, schema: a INT, format: jsn}", 3, "did you mean 'json'?"),
        ("{KAFKA, schema: a INT, format: avro}", 2, "format: avro needs avro: {schema_file: …} or schema_registry: URL"),
        ("{KAFKA, schema: a INT, format: avro, schema_registry: x}", 3, "should be http://host:port or https://"),
        ("{KAFKA, schema: a INT, max_rows_per_epoch: 0}", 3, "should be greater than 0"),
        ("{KAFKA, schema: a INT, bad_records: dead_letter}", 3, "needs a dead_letter: sink"),
        ("{KAFKA, schema: user INT, partitioned_by: usr}", 3, "column 'usr' is not in the schema; did you mean 'user'?"),
        ("{KAFKA, schema: ts INT, watermark: {column: tss}}", 3, "column 'tss' is not in the schema; did you"),
        ("{KAFKA, schema: ts BIGINT, watermark: {column: ts}}", 3, "column 'ts' must be declared TIMESTAMP"),
        ("{KAFKA, schema: ts TIMESTAMP, watermark: {column: ts, delay: 30}}", 3, "a duration needs a unit"),
        ("{KAFKA, schema: ts TIMESTAMP, watermark: {column: ts, delay: 5 parsecs}}", 3, "unit 'parsecs' is unknown"),
        ("{KAFKA, schema: ts TIMESTAMP, watermark: {column: ts, delay: -1 s}}", 3, "greater than or equal to 0"),
        ("{KAFKA, schema: ts TIMESTAMP, watermark: ts}", 3, "should be"),
        ("{KAFKA, schema: ts TIMESTAMP, timestamps: {ts: epoch_m}}", 3, "did you mean 'epoch_ms'?"),
        ("{KAFKA, schema: ts TIMESTAMP, timestamps: {t: epoch_ms}}", 3, "column 't' is not in the schema"),
        ("{KAFKA, schema: 'a INT, b INT', format: raw}", 3, "format raw has one column"),
        ("{KAFKA, schema: ts TIMESTAMP, timestamps: {ts: 'QQQ'}}", 3, "datetime pattern 'QQQ'"),
        ("{KAFKA, schema: 'a INT, A STRING'}", 3, "two columns are called 'A'"),
        ("{KAFKA, schema: 'a INT, _key STRING'}", 3, "column '_key' is there without a declaration"),
        ("{KAFKA, schema: 'a INT, _rescued INT'}", 3, "declare it STRING"),
        ("{type: kinesis, schema: a INT}", 2, "needs stream or stream_arn"),
    ],
)
def test_faults_of_a_source(keys: str, line: int, part: str) -> None:
    found = faults(source(keys.replace("KAFKA", "type: kafka, topic: t, bootstrap_servers: b")))
    assert [at for at, _ in found] == [line]
    assert part in found[0][1]


@pytest.mark.parametrize(
    ("change", "line", "part"),
    [
        (("    query: |", "    register: {type: glue}\n    query: |"), 15, "'register' is not supported yet by this version"),
        (("    query: |", "    mode: upsert\n    query: |"), 15, "should be 'append', 'update' or 'complete', not 'upsert'"),
        (("    query: |", "    late: s3://x/\n    query: |"), 15, "late is a sink, such as {type: files, path: ./late/}"),
        (("    query: |", "    late: {type: files, path: x, query: SELECT}\n    query: |"), 15, "takes no 'query': remove it"),
        (("    query: |", "    late: {type: files, path: x, late: {type: console}}\n    query: |"), 15, "takes no 'late': remove it"),
        (("    query: |", "    late: {type: fils}\n    query: |"), 15, "unknown sink type 'fils'; did you mean 'files'?"),
        (("    query: |", "    text: |"), 12, "missing key 'query'"),
        (("lake/views/", "http://lake/"), 14, "a path is a local folder, s3://…, gs://… or az://…"),
        (("type: files", "type: iceberg"), 13, "unknown sink type 'iceberg'"),
        (("real: SELECT", "1real: SELECT"), 10, "'1real' is no name"),
        (("real: SELECT", "Clicks: SELECT"), 10, "the name 'Clicks' is taken by sources.clicks"),
        (("real: SELECT * FROM clicks WHERE page <> '/health'", "real: {lambda: 'a:b'}"), 10, "'lambda' is not supported yet"),
        (("real: SELECT * FROM clicks WHERE page <> '/health'", "real: {apply: {}}"), 10, "missing key 'function'"),
        (("real: SELECT * FROM clicks WHERE page <> '/health'", "real: 5"), 10, "view 'real' should be SQL"),
        (("name: page-views", "name: page views"), 1, "should match pattern"),
        (("name: page-views", "trigger: 5"), 1, "should be a valid string"),
        (("name: page-views", "trigger: 5 parsecs"), 1, "trigger should be asap, available_now or an interval"),
        (("name: page-views", "trigger: 0 s"), 1, "must be longer than nothing"),
        (("name: page-views", "timezone: Europe/Berln"), 1, "timezone 'Europe/Berln' is unknown; write for example UTC or Europe/Berlin"),
        (("name: page-views", "leases: {type: redis}"), 1, "should be 'sqlite', 'object' or 'dynamodb', not 'redis'"),
        (("name: page-views", "leases: {type: sqlite, table: t12}"), 1, "table is of leases of type dynamodb, not sqlite: remove it"),
        (("name: page-views", "leases: {type: dynamodb, path: x}"), 1, "path is of leases of type sqlite, not dynamodb: remove it"),
        (("name: page-views", "leases: {type: dynamodb, table: 'a b'}"), 1, "should match pattern"),
        (("name: page-views", "leases: {type: sqlite}\ncheckpoint: s3://x/"), 1, "need a path where the checkpoint is remote"),
        (("name: page-views", "functions: {f: {function: 'a:b'}}"), 1, "missing key 'returns' (Spark type of what it returns)"),
        (("name: page-views", "functions: {f: {function: 'json:dumps', returns: TEXTT}}"), 1, "functions.f.returns: "),
        (("name: page-views", "functions: {f: {function: 'json:dumps', returns: 'INT, b INT'}}"), 1, "a type is Spark's, such as STRING"),
        (("name: page-views", "functions: {f: {function: json.dumps, returns: INT}}"), 1, "functions.f.function: "),
        (("name: page-views", "functions: {f: {function: 'json:dump_it', returns: INT}}"), 1, "there is no 'dump_it' in "),
        (("name: page-views", "functions: {f: {function: 'jsonn.x:f', returns: INT}}"), 1, "there is no module 'jsonn' in "),
        (("name: page-views", "functions: {f: {function: 'sys:path', returns: INT}}"), 1, "sys:path is list, not a function"),
        (("name: page-views", "functions: {f: upper}"), 1, "function 'f' should be a mapping"),
        (("name: page-views", "functions: {1f: {function: 'json:dumps', returns: INT}}"), 1, "'1f' is no name"),
        (("name: page-views", "functions: {upper: {function: 'json:dumps', returns: INT}}"), 1, "Spark has a function of that name"),
        (("name: page-views", "functions: {Sum: {function: 'json:dumps', returns: INT}}"), 1, "Spark has a function of that name"),
        (("name: page-views", "tables: {users: {type: files}}"), 1, "missing key 'path'"),
        (("name: page-views", "tables: {users: {type: files, path: x}}"), 1, "missing key 'schema' (Spark DDL column list"),
        (("name: page-views", "tables: {users: {type: postgres}}"), 1, "unknown table type 'postgres'; known are files"),
        (("name: page-views", "tables: {users: {path: x}}"), 1, "table 'users': missing key 'type'; write one of files"),
        (("name: page-views", "tables: {users: users.csv}"), 1, "table 'users' should be a mapping with a type: files"),
        (("name: page-views", "tables: {users: {type: files, path: 'http://x', schema: a INT}}"), 1, "a path is a local folder"),
        (("name: page-views", "tables: {users: {type: files, path: x, schema: a INT, refresh: 5}}"), 1, "a duration needs a unit"),
        (("name: page-views", "tables: {users: {type: files, path: x, schema: a INT, refresh: 0 s}}"), 1, "greater than 0"),
        (("name: page-views", "tables: {users: {type: files, path: x, schema: a INT, format: raw}}"), 1, "should be 'parquet', 'csv' or"),
        (("name: page-views", "tables: {users: {type: files, path: x, schema: 'a INT, A INT'}}"), 1, "two columns are called 'A'"),
        (("name: page-views", "tables: {users: {type: files, path: x, schema: a INT, query: SELECT}}"), 1, "'query' is not supported yet"),
        (("name: page-views", "tables: {users: {type: files, path: x, schema: a INT, versioned: {key: b, time: a}}}"), 1,
         "column 'b' is not in the schema; known are a"),
        (("name: page-views", "tables: {users: {type: files, path: x, schema: a INT, versioned: {key: a, time: a}}}"), 1,
         "column 'a' must be declared TIMESTAMP"),
        (("name: page-views", "tables: {users: {type: files, path: x, schema: a INT, versioned: {key: a}}}"), 1, "missing key 'time'"),
        (("name: page-views", "tables: {Clicks: {type: files, path: x, schema: a INT}}"), 1, "'Clicks' is taken by sources.clicks"),
        (("name: page-views", "metrics: {prt: 1}"), 1, "unknown key 'prt'; did you mean 'port'?"),
        (("name: page-views", "sources: {}"), 2, "key 'sources' stands twice"),
        (("name: page-views", "source: {}"), 1, "unknown key 'source'; did you mean 'sources'?"),
        (("name: page-views", "dead_letter: files"), 1, "should be a valid mapping"),
        (("name: page-views", "dead_letter: {type: files, path: x, partition_by: [reasn]}"), 1, "no column 'reasn' in the rows"),
    ],
)  # fmt: skip
def test_faults_of_the_rest(change: tuple[str, str], line: int, part: str) -> None:
    text = HEAD.replace(*change)
    assert text != HEAD
    found = faults(text)
    assert line in [at for at, message in found if part in message], found


def test_a_job_without_sources_and_sinks() -> None:
    assert faults("name: x\n") == [(1, "missing key 'sinks' (where the rows of a query go; all of one read of the sources)"),
                                   (1, "missing key 'sources' (unbounded tables)")]  # fmt: skip
    assert faults("- a\n") == [(1, "a job file is a mapping: name, sources, sinks, …")]
    assert faults("~\n") == [(1, "the file is empty; write at least sources and sinks")]


def test_a_comma_in_braces_is_explained() -> None:
    text = HEAD + "  out: {type: console, query: SELECT user, page FROM clicks}\n"
    assert (18, "unknown key 'page FROM clicks'; quote the value before it: in {…} a comma ends a value") in faults(text)


def test_every_fault_is_told_at_once() -> None:
    text = HEAD.replace("type: files", "type: fils").replace("topic: clicks", "topik: clicks").replace("delay: 30 seconds", "delay: soon")
    text = text.replace("name: page-views", "nam: x") + "trigger: never\n"
    assert [line for line, _ in faults(text)] == [1, 5, 8, 13, 18]


def test_a_key_whose_value_has_a_fault_is_not_also_missing() -> None:
    [(line, message)] = faults(HEAD.replace("${BROKERS:-localhost:9092}", "${BROKERS}"))
    assert (line, message) == (6, "sources.clicks.bootstrap_servers: ${BROKERS} is not set; set the variable or write ${BROKERS:-default}")


def test_faults_of_overrides_name_the_option() -> None:
    assert faults(HEAD, "sources.clicks.start=soon")[0][1].startswith("--set sources.clicks.start=soon: ")
    assert faults(HEAD, "trigger=soon") == [
        (1, "--set trigger=soon: trigger should be asap, available_now or an interval such as 10 seconds, not 'soon'")
    ]
    [(_, message)] = faults(HEAD, "sinks.views_per_minute.typ=files")
    assert message == "--set sinks.views_per_minute.typ=files: unknown key 'typ'; did you mean 'type'?"


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"name: x\nviews: \xff\n")
    for name, line, part in (
        ("none.yaml", 1, "cannot be read: No such file"),
        ("latin.yaml", 2, "is not UTF-8"),
        ("", 1, "cannot be read"),
    ):
        with pytest.raises(InvalidJob) as caught:
            load_job(tmp_path / name)
        [fault] = caught.value.faults
        assert (fault.file, fault.line) == (str(tmp_path / name), line)
        assert part in fault.message


def test_a_file_whose_name_cannot_be_the_jobs() -> None:
    with pytest.raises(InvalidJob, match="cannot be the job's; write name"):
        load_job("my job.yaml", text=HEAD.replace("name: page-views\n", ""), environment={})
