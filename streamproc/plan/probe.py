"""A statement that tells which rows another one fails for: what would stop it becomes a mark on the row.

The SQL of a plan is a chain of `SELECT items FROM (…) [WHERE …]`. Every item and every condition is put into DuckDB's
TRY, which gives NULL instead of an error, and a column that may have failed gets a mark beside it. A row fails if a
condition did, or a column of the last SELECT or what that was made of. So a value that is never read fails nobody, as in
the statement itself, where DuckDB leaves it out. Texts of expressions are taken over as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from sqlglot import Token, TokenType, tokenize

from streamproc.plan.types import quote

_DEPTH = {
    TokenType.L_PAREN: 1, TokenType.L_BRACKET: 1, TokenType.L_BRACE: 1,
    TokenType.R_PAREN: -1, TokenType.R_BRACKET: -1, TokenType.R_BRACE: -1,
}  # fmt: skip
ROW, FAILED = "#row", "#failed"
_NAMES = (TokenType.VAR, TokenType.IDENTIFIER)


@lru_cache(maxsize=256)
def probe_sql(steps: tuple[str, ...], columns: tuple[str, ...], *, in_order: bool = False) -> str | None:
    """The probe of `steps`, each a `SELECT … FROM input` over the one before. It reads `input` with its `columns` and a
    BIGINT `#row`, and yields `#row` and `#failed` (several of an exploded row). None: the SQL is of another form.

    DuckDB asks the conditions of one WHERE in an order of its own, and those of an outer SELECT sometimes before what an
    inner one computes. So a row that any of them refuses does not count as failed; with `in_order` it does if it failed in
    an inner SELECT. What DuckDB does lies between the two.
    """
    rows = _Rows('(SELECT *, false AS "#failed" FROM input)', dict.fromkeys(columns), in_order)
    try:
        for step in steps:
            rows = _union(_Text.of(without_error(step)), rows)
    except _OtherForm:
        return None
    failed = _any(['"#failed"', *rows.marks(rows.columns)])
    return f'SELECT "#row", {failed} AS "#failed" FROM {rows.sql}'


class _OtherForm(Exception):  # stays in this module
    """The SQL is not of the form that the planner writes."""


@dataclass(frozen=True)
class _Text:
    """A stretch of SQL; `top` are indexes of the tokens outside all parentheses (opening ones are outside)."""

    sql: str
    tokens: Sequence[Token]
    top: Sequence[int]

    @classmethod
    def of(cls, sql: str, tokens: Sequence[Token] | None = None) -> _Text:
        tokens = tokenize(sql, read="duckdb") if tokens is None else tokens
        depth, top = 0, []
        for i, token in enumerate(tokens):
            step = _DEPTH.get(token.token_type, 0)
            depth += min(step, 0)
            if depth == 0 and step >= 0:
                top.append(i)
            depth += max(step, 0)
        if not tokens:
            raise _OtherForm
        return cls(sql, tokens, top)

    def __str__(self) -> str:
        return self.sql[self.tokens[0].start : self.tokens[-1].end + 1]

    def part(self, start: int, stop: int | None = None) -> _Text:
        return _Text.of(self.sql, self.tokens[start:stop])

    def find(self, kind: TokenType) -> list[int]:
        """Where a keyword stands at the top. The FROM of IS DISTINCT FROM is none."""
        hits = [i for i in self.top if self.tokens[i].token_type == kind]
        return [i for i in hits if kind != TokenType.FROM or self.tokens[i - 1].token_type != TokenType.DISTINCT]

    def split(self, kind: TokenType, width: int = 1) -> list[_Text]:
        hits = self.find(kind)
        return [self.part(a, b) for a, b in zip([0, *(i + width for i in hits)], [*hits, None], strict=True)]

    def inside(self, after: int = 0) -> _Text | None:
        """What stands between the parentheses that begin at token `after` and end the text."""
        whole = after in self.top and self.tokens[after].token_type == TokenType.L_PAREN and not any(i > after for i in self.top)
        return self.part(after + 1, -1) if whole else None


@dataclass(frozen=True)
class _Rows:
    """What stands after FROM in a probe: `#row`, `#failed`, and columns: name → the name of its mark if it may have failed."""

    sql: str
    columns: Mapping[str, str | None]
    in_order: bool

    def find(self, name: str) -> str | None:
        return next((column for column in self.columns if column.lower() == name.lower()), None)

    def marks(self, columns: Sequence[str] | Mapping[str, str | None]) -> list[str]:
        return [quote(mark) for column in columns if (mark := self.columns[column])]

    def marks_read(self, text: _Text) -> list[str]:
        """Marks of the columns that an expression names."""
        names = [self.find(token.text) for token in text.tokens if token.token_type in _NAMES]
        return self.marks({name: None for name in names if name})


@dataclass(frozen=True)
class _Item:
    """An output column: `tried` is its value in the inner SELECT, `value` and `mark` what the outer one makes of it."""

    name: str
    tried: tuple[str, ...]
    value: str
    mark: str | None

    @property
    def made(self) -> str:
        marked = f", {self.mark} AS {_mark(self.name)}" if self.mark else ""
        return f", {self.value} AS {quote(self.name)}{marked}"


def _union(text: _Text, inner: _Rows) -> _Rows:
    """UNION ALL of SELECTs: columns by position under the first names."""
    branches = [_select(part, inner) for part in text.split(TokenType.UNION, 2)]
    if len(branches) == 1:
        return branches[0]
    names = list(branches[0].columns)
    selects = []
    for branch in branches:
        pairs = zip(names, branch.columns.items(), strict=True)
        columns = [f"{quote(old)} AS {quote(n)}, {quote(mark) if mark else 'false'} AS {_mark(n)}" for n, (old, mark) in pairs]
        selects.append(f'SELECT "#row", "#failed", {", ".join(columns)} FROM {branch.sql}')
    return _Rows(f"({' UNION ALL '.join(selects)})", {name: f"!{name}" for name in names}, inner.in_order)


def _select(text: _Text, inner: _Rows) -> _Rows:
    start = text.find(TokenType.FROM)
    if text.tokens[0].token_type != TokenType.SELECT or len(start) != 1:
        raise _OtherForm
    source, *condition = text.part(start[0] + 1).split(TokenType.WHERE)
    rows = _source(source, inner)
    items = [item for part in text.part(1, start[0]).split(TokenType.COMMA) for item in _items(part, rows)]
    failed, passed, where = ['"#failed"'], rows.sql, ""
    if condition:
        parts = list(_conjuncts(condition[0]))
        tests = "".join(f', TRY(CASE WHEN {part} THEN 1 ELSE 0 END) AS "#pass{i}"' for i, part in enumerate(parts))
        passed = f"(SELECT *{tests} FROM {rows.sql})"
        doubts = [[f'"#pass{i}" IS NULL', *rows.marks_read(part)] for i, part in enumerate(parts)]
        before = [*failed, *rows.marks(rows.columns)] if rows.in_order else []
        where = " WHERE " + " AND ".join(_any([f'"#pass{i}" = 1', *some, *before]) for i, some in enumerate(doubts))
        failed = [*failed, *(doubt for some in doubts for doubt in some)]
    tried = "".join(f", {sql}" for item in items for sql in item.tried)
    kept = f'(SELECT "#row", {_any(failed)} AS "#failed"{tried} FROM {passed}{where})'
    made = "".join(item.made for item in items)
    columns = {item.name: f"!{item.name}" if item.mark else None for item in items}
    return _Rows(f'(SELECT "#row", "#failed"{made} FROM {kept})', columns, inner.in_order)


def _conjuncts(text: _Text) -> Iterator[_Text]:
    """What DuckDB may ask in another order."""
    inside = text.inside()
    kinds = {(inside or text).tokens[i].token_type for i in (inside or text).top}
    if kinds & {TokenType.OR, TokenType.CASE, TokenType.BETWEEN} or TokenType.AND not in kinds:
        yield text
        return
    for part in (inside or text).split(TokenType.AND):
        yield from _conjuncts(part)


def _source(text: _Text, inner: _Rows) -> _Rows:
    if str(text) == "input":
        return inner
    query = text.inside()
    if query is None:
        raise _OtherForm
    return _union(query, inner)


def _items(text: _Text, rows: _Rows) -> list[_Item]:
    if str(text) == "*":
        return [_column(name, name, rows) for name in rows.columns]
    last = text.tokens[-1]
    expression = text.part(0, -2) if len(text.tokens) > 2 and text.tokens[-2].token_type == TokenType.ALIAS else text
    only = rows.find(expression.tokens[0].text) if len(expression.tokens) == 1 and expression.tokens[0].token_type in _NAMES else None
    if only:
        return [_column(only, last.text, rows)]
    if expression is text:
        raise _OtherForm
    return [_made(expression, last.text, rows)]


def _column(old: str, name: str, rows: _Rows) -> _Item:
    mark = rows.columns[old]
    tried = (f"{quote(old)} AS {quote(name)}", *([f"{quote(mark)} AS {_mark(name)}"] if mark else []))
    return _Item(name, tried, quote(name), _mark(name) if mark else None)


def _made(expression: _Text, name: str, rows: _Rows) -> _Item:
    """TRY of a struct, since the value itself may be NULL. Where a list fails, its one row stays."""
    unnested = expression.inside(1) if expression.tokens[0].text.lower() == "unnest" and len(expression.tokens) > 1 else None
    column = quote(name)
    tried = (f"TRY({{'v': {unnested or expression}}}) AS {column}", f"{_any(rows.marks_read(expression))} AS {_mark(name)}")
    mark = f"({column} IS NULL OR {_mark(name)})"
    value = f'unnest(CASE WHEN "#failed" OR {mark} THEN [NULL] ELSE {column}.v END)' if unnested else f"{column}.v"
    return _Item(name, tried, value, mark)


def _mark(name: str) -> str:
    return quote(f"!{name}")


def _any(conditions: Sequence[str]) -> str:
    return f"({' OR '.join(conditions)})" if conditions else "false"


def without_error(sql: str) -> str:
    """TRY takes no `error(…)`: something else that fails, and is of the type NULL too, takes its place."""
    tokens, edits, closing, at = tokenize(sql, read="duckdb"), list[str](), list[bool](), 0
    for i, token in enumerate(tokens):
        step = _DEPTH.get(token.token_type, 0)
        if step > 0:
            raised = i > 0 and tokens[i - 1].token_type == TokenType.VAR and tokens[i - 1].text.lower() == "error"
            closing.append(raised)
            if raised:
                edits.append(sql[at : tokens[i - 1].start] + "[NULL][1 // (0 * length(")
                at = token.end + 1
        elif step < 0 and closing.pop():
            edits.append(sql[at : token.start] + "))]")
            at = token.end + 1
    return "".join(edits) + sql[at:]
