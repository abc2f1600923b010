"""The JSON Schema of a job file (draft 2020-12), for editors: made of the same models that check the file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic import BaseModel

from streamproc import registry
from streamproc.job.keys import ApplyView, FunctionKeys, JobKeys, StepKeys, TestKeys

VARIABLE = {"type": "string", "pattern": r"\$\{"}
"""Any value but SQL may also be a `${VAR}`."""
_DEFS = "#/$defs/"


def json_schema() -> dict[str, Any]:
    """The schema of a whole job file, with every connector that is installed."""
    definitions: dict[str, Any] = {}
    root = _own(JobKeys, "JobKeys", definitions)
    definitions.pop("JobKeys")
    _own(TestKeys, "TestKeys", definitions)
    _own(StepKeys, "StepKeys", definitions)
    sources = _connectors("source", registry.SOURCES, registry.source_options, definitions)
    sinks = _connectors("sink", registry.SINKS, registry.sink_options, definitions)
    tables = _connectors("table", registry.TABLES, registry.table_options, definitions)
    _own(FunctionKeys, "FunctionKeys", definitions)
    _own(ApplyView, "ApplyView", definitions)
    root["properties"] |= {
        "sources": _named(root, "sources", sources),
        "tables": _named(root, "tables", _requiring(tables, "schema")),
        "functions": _named(root, "functions", {"$ref": f"{_DEFS}FunctionKeys"}),
        "views": _named(root, "views", {"anyOf": [{"type": "string", "description": "Spark SQL"}, {"$ref": f"{_DEFS}ApplyView"}]}),
        "sinks": _named(root, "sinks", _requiring(sinks, "query")),
        "dead_letter": root["properties"]["dead_letter"] | {"anyOf": [sinks]},
        "tests": root["properties"]["tests"] | {"items": {"$ref": f"{_DEFS}TestKeys"}},
    }
    definitions["TestKeys"]["properties"]["steps"]["items"] = {"$ref": f"{_DEFS}StepKeys"}
    definitions["StepKeys"] |= {"minProperties": 1, "maxProperties": 1}
    rows = definitions["AddKeys"]["properties"]["rows"]
    definitions["StepKeys"]["properties"]["add"]["additionalProperties"] = {"anyOf": [{"$ref": f"{_DEFS}AddKeys"}, rows]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "streamproc job",
        **root,
        "$defs": dict(sorted(definitions.items())),
    }


def _own(model: type[BaseModel], name: str, definitions: dict[str, Any]) -> dict[str, Any]:
    """The schema of a model, as an editor wants it, its parts moved to `definitions`."""
    schema = model.model_json_schema(ref_template=f"{_DEFS}{{model}}")
    definitions |= {part: _edited(inner) for part, inner in schema.pop("$defs", {}).items()}
    definitions[name] = _edited(schema)
    return definitions[name]  # type: ignore[no-any-return]  # JSON


def _edited(schema: dict[str, Any]) -> dict[str, Any]:
    """Without titles and inner defaults, and with `${VAR}` wherever something else than text is asked for."""
    shown = {key: value for key, value in schema.items() if key != "title" and not (key == "default" and not _writable(schema, value))}
    for key in ("items", "additionalProperties"):
        if isinstance(shown.get(key), dict):
            shown[key] = _edited(shown[key])
    if "anyOf" in shown:
        members = [_edited(member) for member in shown.pop("anyOf") if member != {"type": "null"}]
        shown = {**shown, "anyOf": members} if len(members) > 1 else {**members[0], **shown}
    if "properties" in shown:
        shown["properties"] = {key: _edited(value) for key, value in shown["properties"].items()}
    return _variable(shown) if "enum" in shown or shown.get("type") in ("integer", "number", "boolean") else shown


def _writable(schema: Mapping[str, Any], default: object) -> bool:
    """Whether a default can be shown as it would be written: durations are held in microseconds, nothing is not written."""
    return default is not None and (isinstance(default, str) or schema.get("type") != "string")


def _variable(schema: dict[str, Any]) -> dict[str, Any]:
    said: dict[str, Any] = {key: schema.pop(key) for key in ("description", "default") if key in schema}
    return {**said, "anyOf": [schema, VARIABLE]}


def _connectors(
    place: str, known: Iterable[str], options_of: Callable[[str], type[BaseModel]], definitions: dict[str, Any]
) -> dict[str, Any]:
    """One of the connectors of a place, told apart by `type`; those whose package is missing are left out."""
    names = {}
    for kind in known:
        try:
            model = options_of(kind)
        except ImportError:
            continue
        names[kind] = f"{kind}_{place}"
        schema = _own(model, names[kind], definitions)
        schema["properties"] |= {"type": {"const": kind, "description": f"a {kind} {place}"}}
        schema["required"] = sorted({*schema.get("required", ()), "type"})
        if place == "sink":
            schema["properties"] |= {"late": {"$ref": f"{_DEFS}sink", "description": "a sink for rows that the watermark refused"}}
    definitions[place] = _told_apart(names)
    return {"$ref": f"{_DEFS}{place}"}


def _told_apart(names: Mapping[str, str]) -> dict[str, Any]:
    """By if/then and not by oneOf: an editor then complains about the one connector that is meant, not about all."""
    return {
        "type": "object",
        "required": ["type"],
        "properties": {"type": {"enum": list(names)}},
        "allOf": [{"if": _typed(kind), "then": {"$ref": f"{_DEFS}{name}"}} for kind, name in names.items()],
    }


def _typed(kind: str) -> dict[str, Any]:
    return {"required": ["type"], "properties": {"type": {"const": kind}}}


def _named(root: Mapping[str, Any], key: str, item: dict[str, Any]) -> dict[str, Any]:
    return {**root["properties"][key], "additionalProperties": item}


def _requiring(schema: dict[str, Any], key: str) -> dict[str, Any]:
    return {"allOf": [schema, {"required": [key]}]}
