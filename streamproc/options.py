"""What a connector's keys may hold. A connector declares its keys once, as one frozen `Options` model; parsing,
`check`, the JSON Schema and the key tables in the docs all come from it.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pyarrow as pa
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetPydanticSchema,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic_core import core_schema

from streamproc.offset import Start
from streamproc.schema import parse_ddl


class Options(BaseModel):
    """Keys of one mapping in the job file. Unknown keys are faults; field descriptions are the documentation."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


_UNITS_US = {
    "microsecond": 1, "us": 1, "millisecond": 1000, "ms": 1000, "second": 10**6, "sec": 10**6, "s": 10**6,
    "minute": 60 * 10**6, "min": 60 * 10**6, "m": 60 * 10**6, "hour": 3600 * 10**6, "h": 3600 * 10**6,
    "day": 86400 * 10**6, "d": 86400 * 10**6, "week": 7 * 86400 * 10**6,
}  # fmt: skip
MAX_DURATION_US = 10_000 * 366 * 86400 * 10**6
MONTH_US = 31 * 86400 * 10**6
_PART = re.compile(r"\s*([+-]?\d+(?:\.\d+)?)\s*([a-z]+)\s*", re.IGNORECASE)


def duration_us(text: str, *, months: bool = False) -> int:
    """Microseconds of `10 seconds`, `1 hour 30 minutes`, `500 ms`, `interval 1 day`. ValueError otherwise.

    Months and years have no fixed length: refused unless `months` (then 31 days, as Spark counts a delay).
    """
    rest = re.sub(r"^\s*interval\s+", "", str(text).strip(), flags=re.IGNORECASE)
    total, at = 0.0, 0
    while at < len(rest):
        part = _PART.match(rest, at)
        if part is None:
            raise ValueError(f"{text!r} is not a duration; write for example 10 seconds or 1 hour 30 minutes")
        total += float(part[1]) * _unit_us(part[2].lower(), text, months)
        at = part.end()
    if abs(total) > MAX_DURATION_US:
        raise ValueError(f"{text[:40]!r} is longer than 10,000 years")
    if not rest:
        raise ValueError("a duration is empty; write for example 10 seconds")
    return round(total)


def _unit_us(unit: str, text: str, months: bool) -> int:
    for name in (unit, unit.removesuffix("s")):
        if name in _UNITS_US:
            return _UNITS_US[name]
        if name in ("month", "year"):
            if months:
                return MONTH_US * (12 if name == "year" else 1)
            raise ValueError(f"{text!r}: months and years have no fixed length; use days")
    raise ValueError(f"{text!r}: unit {unit!r} is unknown; use microseconds to weeks")


class Substituted(str):
    """A value that came from `${VAR}` in the job file: `template` is what stands there. Only such text may be a secret."""

    template: str

    def __new__(cls, value: str, template: str) -> Substituted:
        made = super().__new__(cls, value)
        made.template = template
        return made


def _duration(value: object, info: ValidationInfo) -> object:
    return duration_us(value) if isinstance(value, str) else _united(value, info)


def _united(value: object, info: ValidationInfo) -> object:
    """Code gives durations in microseconds; in a job file a bare number would be anybody's guess."""
    if info.context and isinstance(value, int):
        raise ValueError(f"a duration needs a unit; write for example {value} seconds")
    return value


Duration = Annotated[int, BeforeValidator(_duration), WithJsonSchema({"type": "string", "examples": ["10 seconds", "1 hour 30 minutes"]})]
"""A duration, held in microseconds."""


@dataclass(frozen=True, slots=True)
class Secret:
    """A reference to a secret, never its value: `secret://env/NAME`, `secret://file/PATH`, or a value that came
    from `${VAR}`. `reveal()` reads it at the moment of use; `repr` shows only the reference.
    """

    reference: str
    value: str | None = None

    def reveal(self) -> str:
        """The secret's value; ValueError if the variable or file is not there."""
        if self.value is not None:
            return self.value
        kind, _, name = self.reference.removeprefix("secret://").partition("/")
        if kind == "env" and name in os.environ:
            return os.environ[name]
        if kind == "file" and Path("/", name).is_file():
            return Path("/", name).read_text(encoding="utf-8").rstrip("\n")
        raise ValueError(f"{self.reference} is not set")

    def __repr__(self) -> str:
        return f"Secret({self.reference})"

    __str__ = __repr__

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> core_schema.CoreSchema:
        del source, handler
        return core_schema.no_info_plain_validator_function(cls.of)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> dict[str, Any]:
        del schema, handler
        return {"type": "string", "pattern": r"^(secret://(env|file)/.+|\$\{.+\})$"}

    @classmethod
    def of(cls, value: object) -> Secret:
        """The secret that a text refers to; ValueError, without the text, where it is a literal."""
        if isinstance(value, Secret):
            return value
        if isinstance(value, Substituted) and not value.startswith("secret://"):
            return cls(value.template, str(value))
        if isinstance(value, str) and re.fullmatch(r"secret://(env|file)/.+", value):
            return cls(value)
        raise ValueError("a secret is written as secret://env/NAME, secret://file/PATH or ${VAR}, never as a literal")


def _ddl(value: object) -> object:
    return parse_ddl(value) if isinstance(value, str) else value


DdlSchema = Annotated[
    pa.Schema,
    GetPydanticSchema(lambda _source, _handler: core_schema.is_instance_schema(pa.Schema)),
    BeforeValidator(_ddl),
    WithJsonSchema({"type": "string", "examples": ["user STRING, amount DECIMAL(10,2), ts TIMESTAMP"]}),
]
"""A Spark DDL column list, held as an Arrow schema."""


def instant_us(value: object) -> object:
    """Microseconds since 1970 of an ISO instant (no zone: UTC); also what YAML already read as a time."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise ValueError(f"{value!r} is no time; write for example 2026-01-01T00:00:00Z") from None
    if isinstance(value, datetime):
        aware = value if value.tzinfo else value.replace(tzinfo=UTC)
        return (aware - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    return value


def _start(value: object) -> object:
    if isinstance(value, Start):
        return value
    if value in ("earliest", "latest"):
        return Start(value)
    try:
        return Start("timestamp", instant_us(value))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise ValueError("start is earliest, latest or a time like 2026-01-01T00:00:00Z") from None


StartOption = Annotated[
    Start,
    GetPydanticSchema(lambda _source, _handler: core_schema.is_instance_schema(Start)),
    BeforeValidator(_start),
    WithJsonSchema({"type": "string", "examples": ["earliest", "latest", "2026-01-01T00:00:00Z"]}),
]


def _idle(value: object, info: ValidationInfo) -> object:
    return None if value == "never" else _duration(value, info)


def _delay(value: object, info: ValidationInfo) -> object:
    return duration_us(value, months=True) if isinstance(value, str) else _united(value, info)


class WatermarkOptions(Options):
    """Event time of a source."""

    column: str = Field(description="column that holds the event time (TIMESTAMP)")
    delay: Annotated[int, BeforeValidator(_delay), WithJsonSchema({"type": "string"})] = Field(
        0, ge=0, description="how much later than the newest event a row may come and still count"
    )
    idle: Annotated[int | None, BeforeValidator(_idle), WithJsonSchema({"type": "string"})] = Field(
        300_000_000, description="a shard at its end for so long leaves the minimum; `never` turns it off"
    )
    max_ahead: Duration = Field(86_400_000_000, description="event times further past the clock are refused")


class CsvOptions(Options):
    """How a CSV record is written; a record is a line."""

    header: bool = False
    delimiter: str = Field(default=",", min_length=1, max_length=1)
    quote: str = Field(default='"', min_length=1, max_length=1)
    null: str = ""


class AvroOptions(Options):
    """The schema of Avro payloads that carry no schema id."""

    schema_file: str = Field(description="Avro schema (JSON) that the records were written with")


class ProtobufOptions(Options):
    """Which message Protobuf payloads are."""

    descriptor_set: str | None = Field(None, description="file of `protoc --include_imports --descriptor_set_out`; or a schema_registry")
    message: str | None = Field(None, description="full name of the message; required with descriptor_set")
    emit_default_values: bool = Field(False, description="fields without presence that are absent are 0, '', false; else NULL as in Spark")

    @model_validator(mode="after")
    def _named(self) -> ProtobufOptions:
        if (self.descriptor_set is None) != (self.message is None):
            raise ValueError("descriptor_set and message belong together; a registry gives both")
        return self


class RegistryOptions(Options):
    """A schema registry with Confluent's interface; payloads carry the id of their schema."""

    url: str = Field(description="http:// or https://")
    username: str | None = None
    password: Secret | None = None
    timeout: Duration = Field(10_000_000, gt=0, description="of one request")

    @field_validator("url")
    @classmethod
    def _plain(cls, value: str) -> str:
        if not re.match(r"https?://[^/@]+(/|$)", value):
            raise ValueError("should be http://host:port or https://…, without a user: write {url: …, username: …, password: secret://…}")
        return value.rstrip("/")


def _registry(value: object) -> object:
    return {"url": value} if isinstance(value, str) else value


class SourceOptions(Options):
    """Keys of every source; a connector's `Options` subclass adds its own."""

    schema_from_code: ClassVar[bool] = False
    """`default_schema` comes from the author's code, which may change without the job file."""

    type: str
    start: StartOption = Field(Start(), description="where shards that exist when the checkpoint begins are read from")
    format: Literal["json", "csv", "avro", "protobuf", "raw", "parquet"] = "json"
    csv: CsvOptions = CsvOptions()
    avro: AvroOptions | None = None
    protobuf: ProtobufOptions | None = None
    schema_registry: Annotated[RegistryOptions | None, BeforeValidator(_registry, json_schema_input_type=str | RegistryOptions | None)] = (
        Field(None, description="URL, or {url, username, password}, of the registry that avro and protobuf payloads name their schema in")
    )
    compression: Literal["gzip", "zstd"] | None = Field(None, description="of each record's payload")
    schema_: DdlSchema | None = Field(None, alias="schema", description="Spark DDL column list")
    timestamps: dict[str, str] = Field({}, description="how odd times are written: epoch_s, epoch_ms, epoch_us or a Spark datetime pattern")
    watermark: WatermarkOptions | None = None
    bad_records: Literal["fail", "skip", "dead_letter"] = "fail"
    max_bad_ratio: float | None = Field(
        None, gt=0, lt=1, description="stops the job when more of an epoch's records are bad; judged from 100 records an epoch on"
    )
    max_rows_per_epoch: int | None = Field(None, gt=0)
    max_bytes_per_epoch: int | None = Field(None, gt=0)
    partitioned_by: str | None = Field(None, description="column that is the producer's partition key")

    def default_schema(self) -> pa.Schema | None:
        """Columns where the job declares none: a raw payload, or what a connector that knows its columns overrides this with.
        ValueError says why there are none.
        """
        return pa.schema([("value", pa.binary())]) if self.format == "raw" else None

    @model_validator(mode="after")
    def _format_has_its_keys(self) -> SourceOptions:
        """Every format is told what it needs, and nothing is said of a format that is not there."""
        schemaless = {"avro": self.avro is None, "protobuf": self.protobuf is None or self.protobuf.descriptor_set is None}
        if schemaless.get(self.format) and self.schema_registry is None:
            needed = "avro: {schema_file: …}" if self.format == "avro" else "protobuf: {descriptor_set: …, message: …}"
            raise ValueError(f"format: {self.format} needs {needed} or schema_registry: URL")
        for key in ("avro", "protobuf"):
            if getattr(self, key) is not None and self.format != key:
                raise ValueError(f"{key}: is there, but the format is {self.format}; write format: {key}")
        if self.schema_registry is not None and (self.format not in schemaless or not schemaless[self.format]):
            raise ValueError("schema_registry is for avro without schema_file and protobuf without descriptor_set")
        if self.compression is not None and self.format == "parquet":
            raise ValueError("compression is of payloads; parquet files say themselves how they are compressed")
        return self


class SinkOptions(Options):
    """Keys of every sink; a connector's `Options` subclass adds its own."""

    type: str
    mode: Literal["append", "update", "complete"] = "append"
    query: str | None = Field(None, description="Spark SQL; required but for late and dead_letter")
    late: Any = Field(None, description="a sink for rows that the watermark refused")
    changes: bool = Field(False, description="every change with its _op: insert, update_before, update_after, delete")
