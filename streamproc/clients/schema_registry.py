"""A schema registry with Confluent's HTTP interface: schemas by id.

Blocking, by urllib: a decoder runs in a thread and needs an answer once per schema id in its life, so neither an event loop
of its own nor a pool of connections would gain anything.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import Request, urlopen

from streamproc.errors import Unavailable
from streamproc.options import RegistryOptions

_SHOWN_CHARS = 200


class UnknownId(LookupError):
    """The registry answers, and has no schema of this id."""


@dataclass(frozen=True, slots=True)
class Registered:
    """A schema as the registry has it. `kind` is AVRO, PROTOBUF or JSON; `references` are the schemas that its text names,
    by the name it gives them, the ones that those name before them.
    """

    kind: str
    text: str
    references: Mapping[str, str] = field(default_factory=dict)


class SchemaRegistry:
    """Reads schemas; keeps nothing."""

    def __init__(self, options: RegistryOptions) -> None:
        self._options = options

    def schema(self, schema_id: int, *, serialized: bool = False) -> Registered:
        """The schema of an id; `serialized`: Protobuf as a FileDescriptorProto in base64 instead of its source.

        UnknownId if there is none, Unavailable if the registry does not answer, or not as one does.
        """
        query = "?format=serialized" if serialized else ""
        answer = self._get(f"/schemas/ids/{schema_id}{query}")
        return Registered(answer.get("schemaType", "AVRO"), str(answer.get("schema", "")), self._references(answer, query, {}))

    def _references(self, answer: Mapping[str, Any], query: str, known: dict[str, str]) -> dict[str, str]:
        for reference in answer.get("references") or ():
            if reference["name"] not in known:
                path = f"/subjects/{quote(reference['subject'], safe='')}/versions/{reference['version']}{query}"
                inner = self._get(path)
                self._references(inner, query, known)
                known[reference["name"]] = str(inner.get("schema", ""))
        return known

    def _get(self, path: str) -> Mapping[str, Any]:
        where = f"schema registry {self._options.url}{path}"
        request = Request(self._options.url + path, headers={"Accept": "application/vnd.schemaregistry.v1+json", **self._credentials()})
        try:
            with urlopen(request, timeout=self._options.timeout / 1e6) as response:
                answer = json.load(response)
        except HTTPError as error:
            raise self._refusal(error, where) from None
        except (OSError, HTTPException, ValueError) as error:
            raise Unavailable(f"{where} does not answer: {error}") from error
        if not isinstance(answer, dict):
            raise Unavailable(f"{where} answers something else than a schema; is it a schema registry?")
        return answer

    def _refusal(self, error: HTTPError, where: str) -> Exception:
        if error.code == 404:
            return UnknownId(f"{where}: there is no such schema")
        hint = "; write schema_registry: {url: …, username: …, password: secret://…}" if error.code in (401, 403) else ""
        return Unavailable(f"{where} answers {error.code} {str(error.reason)[:_SHOWN_CHARS]}{hint}")

    def _credentials(self) -> dict[str, str]:
        options = self._options
        if options.username is None and options.password is None:
            return {}
        password = options.password.reveal() if options.password else ""
        return {"Authorization": "Basic " + base64.b64encode(f"{options.username or ''}:{password}".encode()).decode()}

    def __repr__(self) -> str:
        return f"<SchemaRegistry {self._options.url}>"
