"""The JSON Schema of a job file: of the same models, closed, and open to `${VAR}`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from streamproc import registry
from streamproc.job import json_schema
from streamproc.job.keys import StepKeys


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return json_schema()


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    for child in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from nodes(child)


def test_it_is_json_of_draft_2020_12(schema: dict[str, Any]) -> None:
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert json.loads(json.dumps(schema)) == schema


def test_every_reference_leads_somewhere(schema: dict[str, Any]) -> None:
    references = {node["$ref"] for node in nodes(schema) if isinstance(node.get("$ref"), str)}
    assert {reference.removeprefix("#/$defs/") for reference in references} <= schema["$defs"].keys()
    assert len(references) > 5


def test_every_connector_is_told_apart_by_its_type(schema: dict[str, Any]) -> None:
    for place, known in (("source", registry.SOURCES), ("sink", registry.SINKS)):
        assert schema["$defs"][place]["properties"]["type"]["enum"] == list(known)
        for kind in known:
            keys = schema["$defs"][f"{kind}_{place}"]
            assert keys["additionalProperties"] is False
            assert keys["properties"]["type"]["const"] == kind
            assert "type" in keys["required"]


def test_sinks_need_a_query_but_late_and_dead_letter_do_not(schema: dict[str, Any]) -> None:
    assert {"required": ["query"]} in schema["properties"]["sinks"]["additionalProperties"]["allOf"]
    assert schema["properties"]["dead_letter"]["anyOf"] == [{"$ref": "#/$defs/sink"}]
    assert schema["$defs"]["files_sink"]["properties"]["late"]["$ref"] == "#/$defs/sink"


def test_numbers_choices_and_switches_take_variables(schema: dict[str, Any]) -> None:
    keys = schema["$defs"]["kafka_source"]["properties"]
    for key in ("max_rows_per_epoch", "format", "bad_records"):
        members = keys[key]["anyOf"]
        assert {"type": "string", "pattern": r"\$\{"} in members, key


def test_secrets_are_references_only(schema: dict[str, Any]) -> None:
    assert schema["$defs"]["KafkaSecurity"]["properties"]["password"]["pattern"].startswith("^(secret://")


def test_a_step_is_one_key(schema: dict[str, Any]) -> None:
    step = schema["$defs"]["StepKeys"]
    assert (step["minProperties"], step["maxProperties"]) == (1, 1)
    assert step["properties"].keys() == StepKeys.model_fields.keys()
    assert all("description" in described for described in step["properties"].values())
