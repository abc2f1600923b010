"""Types guessed from samples: what a column must be so that every sampled value fits, as a Spark type.

Careful where a guess could lose something: numbers with a fraction are DOUBLE unless the name speaks of money, numbers in
quotes stay STRING in JSON (only DECIMAL would read them), integers are BIGINT. Meant for some thousand records.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from streamproc.formats.moment import MomentFormat, iso_moment

PATTERNS = (
    "yyyy/MM/dd HH:mm:ss", "dd/MM/yyyy HH:mm:ss", "MM/dd/yyyy HH:mm:ss", "dd.MM.yyyy HH:mm:ss", "yyyyMMddHHmmss", "yyyyMMdd'T'HHmmss",
    "yyyy/MM/dd", "dd/MM/yyyy", "MM/dd/yyyy", "dd.MM.yyyy", "dd/MM/yyyy HH:mm", "dd.MM.yyyy HH:mm",
)  # fmt: skip
"""Of times that are not ISO 8601; the first that fits every sample."""
_EPOCHS = {"epoch_s": 1, "epoch_ms": 1000, "epoch_us": 1_000_000}
_SINCE_S, _UNTIL_S = 946_684_800, 4_102_444_800  # the years 2000 to 2099
_TIME_NAME = re.compile(r"(^|_)(ts|at|date|when|epoch|created|updated)(_|$)|(Date|At|Ts|Ms|Millis)$|[Tt]ime|stamp")
_MONEY_NAME = re.compile(r"price|amount|cost|total|fee|tax|paid|balance|revenue|discount|money|sum", re.IGNORECASE)
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]*)")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.([0-9]+))?(?:[eE][+-]?[0-9]+)?")
_MAP_KEYS = 40
_TEXTS = 2000


class Number(str):
    """A JSON number as it was written."""

    __slots__ = ()


@dataclass(slots=True)
class Seen:
    """What was seen of one column, field or item."""

    kinds: set[str] = field(default_factory=set)
    count: int = 0
    texts: list[str] = field(default_factory=list)
    """Of numbers and strings."""
    fields: dict[str, Seen] = field(default_factory=dict)
    item: Seen | None = None

    def add(self, value: Any) -> None:
        """One value, as JSON has it (numbers as Number); None is NULL."""
        if value is None:
            return
        self.count += 1
        if isinstance(value, Mapping):
            self.kinds.add("object")
            for name, inner in value.items():
                self.fields.setdefault(name, Seen()).add(inner)
        elif isinstance(value, list):
            self.kinds.add("array")
            self.item = self.item or Seen()
            for inner in value:
                self.item.add(inner)
        elif isinstance(value, bool):
            self.kinds.add("boolean")
        else:
            self.kinds.add("number" if isinstance(value, Number) else "string")
            if len(self.texts) < _TEXTS:
                self.texts.append(str(value))


@dataclass(frozen=True, slots=True)
class Guess:
    """A Spark type, how the column writes times if not by ISO 8601, and a remark for the reader."""

    kind: str
    timestamps: str | None = None
    remark: str | None = None


def guess(name: str, seen: Seen, *, plain: bool = False, top: bool = True) -> Guess:
    """The type of a column. `plain`: all values are text without types (CSV); `top`: `timestamps:` may name it."""
    if not seen.kinds:
        return Guess("STRING", remark="only NULL in the samples")
    if len(seen.kinds) > 1:
        return Guess("STRING", remark=f"a mixture of {', '.join(sorted(seen.kinds))}: its JSON text")
    (kind,) = seen.kinds
    if kind == "object":
        return Guess(_object(seen))
    if kind == "array":
        return Guess(f"ARRAY<{guess(name, seen.item or Seen(), top=False).kind}>")
    if kind == "boolean":
        return Guess("BOOLEAN")
    return _numbers(name, seen.texts, top) if kind == "number" else _strings(name, seen.texts, plain, top)


def _object(seen: Seen) -> str:
    if len(seen.fields) > _MAP_KEYS:
        values = Seen()
        for inner in seen.fields.values():
            _merge(values, inner)
        return f"MAP<STRING, {guess('', values, top=False).kind}>"
    parts = [f"{quoted_name(name)}: {guess(name, inner, top=False).kind}" for name, inner in seen.fields.items()]
    return f"STRUCT<{', '.join(parts)}>" if parts else "MAP<STRING, STRING>"


def _merge(into: Seen, other: Seen) -> None:
    into.kinds |= other.kinds
    into.count += other.count
    into.texts += other.texts[: _TEXTS - len(into.texts)]
    for name, inner in other.fields.items():
        _merge(into.fields.setdefault(name, Seen()), inner)
    if other.item is not None:
        into.item = into.item or Seen()
        _merge(into.item, other.item)


def _numbers(name: str, texts: list[str], top: bool) -> Guess:
    if all(map(_INTEGER.fullmatch, texts)):
        values = [int(text) for text in texts]
        unit = next((unit for unit, per in _EPOCHS.items() if all(_SINCE_S * per <= v < _UNTIL_S * per for v in values)), None)
        if unit and top and _TIME_NAME.search(name):
            return Guess("TIMESTAMP", timestamps=unit)
        return Guess("BIGINT" if all(-(2**63) <= v < 2**63 for v in values) else "DECIMAL(38,0)")
    fractions = [_fraction(text) for text in texts]
    digits = max(fractions)
    if digits <= 4 and _MONEY_NAME.search(name) and not any("e" in text.lower() for text in texts):
        return Guess(f"DECIMAL(18,{max(2, digits)})")
    return Guess("DOUBLE")


def _fraction(text: str) -> int:
    found = _NUMBER.fullmatch(text)
    return len(found[1] or "") if found else 0


def _strings(name: str, texts: list[str], plain: bool, top: bool) -> Guess:
    if all(iso_moment(text, None) is not None for text in texts):
        return Guess("DATE" if all(len(text) == 10 for text in texts) else "TIMESTAMP")
    if plain and set(texts) <= {"true", "false"}:
        return Guess("BOOLEAN")
    if all(map(_NUMBER.fullmatch, texts)):
        return _numbers(name, texts, top) if plain else _quoted_numbers(texts)
    pattern = next((p for p in PATTERNS if all(_fits(p, text) for text in texts)), None) if top and len(texts) >= 3 else None
    return Guess("TIMESTAMP", timestamps=pattern, remark="day and month as they are read here?") if pattern else Guess("STRING")


def _quoted_numbers(texts: list[str]) -> Guess:
    digits = max(map(_fraction, texts))
    if digits:
        return Guess(f"DECIMAL(18,{digits})" if digits <= 9 else "DECIMAL(38,18)", remark="numbers in quotes")
    return Guess("STRING", remark="whole numbers in quotes: DECIMAL(18,0) would read them")


_FORMATS = {pattern: MomentFormat(pattern) for pattern in PATTERNS}


def _fits(pattern: str, text: str) -> bool:
    return _FORMATS[pattern].judge(text, zoned=True) is not None


def quoted_name(name: str) -> str:
    """As DDL takes it."""
    return name if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) else f"`{name.replace('`', '``')}`"


def guesses(seen: Mapping[str, Seen], taken: Iterable[str], *, plain: bool = False) -> dict[str, Guess]:
    """A guess for each column that can be declared: names that are `taken` or differ in case alone are left out."""
    found: dict[str, Guess] = {}
    known = {name.lower() for name in taken}
    for name, column in seen.items():
        if name and name.lower() not in known:
            known.add(name.lower())
            found[name] = guess(name, column, plain=plain)
    return found
