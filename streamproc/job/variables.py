"""`${VAR}` in a job file: replaced in values after the YAML is parsed, so that a value can never change the file's shape."""

from __future__ import annotations

import re
from collections.abc import Mapping

from streamproc.options import Substituted

_FORM = re.compile(r"\$\$\{|\$\{(?:([A-Za-z_][A-Za-z0-9_]*)(?:(:-|:\?)([^}]*))?\})?")


class Variables:
    """Replaces `${VAR}`, `${VAR:-default}`, `${VAR:?message}`; `$${` is a literal `${`."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    def replace(self, text: str) -> str:
        """The text with its variables replaced, as `Substituted` if there were any; ValueError if one is not set."""
        if "${" not in text:
            return text
        replaced = _FORM.sub(self._one, text)
        only_escapes = all(match[0] == "$${" for match in _FORM.finditer(text))
        return replaced if only_escapes else Substituted(replaced, text)

    def _one(self, match: re.Match[str]) -> str:
        name, operator, word = match[1], match[2], match[3]
        if match[0] == "$${":
            return "${"
        if name is None:
            raise ValueError("${ begins a variable: write ${VAR}, ${VAR:-default} or ${VAR:?message}, or $${ for the two characters")
        value = self._environment.get(name)
        if operator == ":-":
            return value or word
        if operator == ":?" and not value:
            raise ValueError(f"${{{name}}} is not set: {word}" if word else f"${{{name}}} is not set")
        if value is None:
            raise ValueError(f"${{{name}}} is not set; set the variable or write ${{{name}:-default}}")
        return value
