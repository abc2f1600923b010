"""Our dialect: sqlglot's Spark, with `window(…)` fixed and functions left as they are written.

Functions stay `Anonymous` nodes under their Spark names: what they mean is said by one table of ours
(`functions/`), not by sqlglot's mapping, which is made for transpiling without types and without ANSI errors.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from typing import Any, ClassVar

from sqlglot import Token, exp
from sqlglot.dialects.spark import Spark
from sqlglot.errors import ParseError, TokenError
from sqlglot.parsers.spark import SparkParser
from sqlglot.tokenizer_core import TokenType

from streamproc.plan.faults import LocatedError


class StreamParser(SparkParser):
    FUNCTIONS: ClassVar[dict[str, Any]] = {}
    FUNCTION_PARSERS: ClassVar[dict[str, Any]] = {
        "CAST": lambda self: self._parse_cast(True),
        "TRY_CAST": lambda self: self._parse_cast(False, safe=True),
        "EXTRACT": SparkParser.FUNCTION_PARSERS["EXTRACT"],
        "TRIM": SparkParser.FUNCTION_PARSERS["TRIM"],
        "OVERLAY": lambda self: self._parse_worded("overlay", "PLACING", "FROM", "FOR"),
        "SUBSTRING": lambda self: self._parse_worded("substring", "FROM", "FOR"),
        "SUBSTR": lambda self: self._parse_worded("substr", "FROM", "FOR"),
        "POSITION": lambda self: self._parse_position_in(),
    }
    UNARY_PARSERS: ClassVar[dict[TokenType, Any]] = {**SparkParser.UNARY_PARSERS, TokenType.PLUS: lambda self: self._parse_plus()}
    NO_PAREN_FUNCTION_PARSERS: ClassVar[dict[str, Any]] = {
        k: v for k, v in SparkParser.NO_PAREN_FUNCTION_PARSERS.items() if k not in ("ANY", "TRANSFORM")
    }
    SUBQUERY_PREDICATES: ClassVar[dict[TokenType, Any]] = {
        k: v for k, v in SparkParser.SUBQUERY_PREDICATES.items() if k not in (TokenType.ANY, TokenType.SOME)
    }
    FUNC_TOKENS: ClassVar[set[TokenType]] = SparkParser.FUNC_TOKENS | {TokenType.WINDOW}

    def _parse_worded(self, name: str, *words: str) -> exp.Expr:
        """`f(a WORD b WORD c)`, as `f(a, b, c)`."""
        arguments = self._parse_csv(self._parse_assignment)
        for word in words:
            if self._match_text_seq(word):
                arguments += self._parse_csv(self._parse_assignment)
        return self.expression(exp.Anonymous(this=name, expressions=arguments))

    def _parse_position_in(self) -> exp.Expr:
        """`position(a IN b)`, as `position(a, b)`."""
        arguments = [self._parse_bitwise()]
        if self._match(TokenType.IN):
            arguments.append(self._parse_bitwise())
        elif self._match(TokenType.COMMA):
            arguments += self._parse_csv(self._parse_assignment)
        return self.expression(exp.Anonymous(this="position", expressions=arguments))

    def _parse_plus(self) -> exp.Expr | None:
        """`+x` is a number: sqlglot forgets the sign."""
        value = self._parse_unary()
        if value is None or (isinstance(value, exp.Literal) and not value.is_string):
            return value
        return self.expression(exp.Anonymous(this="positive", expressions=[value]))

    def _parse_group(self, skip_group_by_token: bool = False) -> exp.Group | None:
        """`window` right after GROUP BY is the column or the function: a WINDOW clause needs `name AS` and
        cannot stand there, so the token is an identifier.
        """
        token = self._next_after_group_by()
        if token is None:
            return super()._parse_group(skip_group_by_token)
        kind, token.token_type = token.token_type, TokenType.VAR
        try:
            return super()._parse_group(skip_group_by_token)
        finally:
            token.token_type = kind

    def _next_after_group_by(self) -> Any:
        at_group = self._curr and self._curr.token_type == TokenType.GROUP_BY
        return self._next if at_group and self._next and self._next.token_type == TokenType.WINDOW else None


class StreamTokenizer(Spark.Tokenizer):
    STRING_ESCAPES: ClassVar[list[str]] = ["\\", "'", '"']
    """Since Spark 4 a doubled quote is a quote: 'it''s'."""
    HEX_STRINGS: ClassVar[list[Any]] = [("X'", "'"), ("x'", "'")]


class StreamSpark(Spark):
    Tokenizer = StreamTokenizer
    Parser = StreamParser


_DIALECT = StreamSpark()
logging.getLogger("sqlglot").setLevel(logging.ERROR)  # what it warns of is a fault of ours, with a line


_ENDS = (TokenType.FROM, TokenType.WHERE, TokenType.R_PAREN, TokenType.GROUP_BY, TokenType.ORDER_BY, TokenType.HAVING, TokenType.LIMIT)
_OPENED = re.compile(r"Missing (.+) from (\d+):")


def _said(description: str) -> str:
    """The parser's words without the names of its classes."""
    if description.startswith("Required keyword"):
        return "an expression is missing"
    return description.partition(" but got <Token")[0]


def _check_tokens(tokens: Sequence[Token]) -> None:
    """What sqlglot takes and Spark does not: a comma at the end of a list, and a text for a name."""
    for token, after in zip(tokens, [*tokens[1:], None], strict=True):
        if token.token_type == TokenType.COMMA and (after is None or after.token_type in _ENDS):
            raise LocatedError("not Spark SQL: an expression is missing after ','", line=token.line - 1)
        if token.token_type == TokenType.ALIAS and after is not None and after.token_type == TokenType.STRING:
            raise LocatedError(f"not Spark SQL: a name stands after AS, not a text; write AS `{after.text}`", line=token.line - 1)


def parse_query(text: str) -> exp.Query:
    """The one query in `text`; LocatedError at the parser's position."""
    try:
        _check_tokens(_DIALECT.tokenize(text))
        statements = [s for s in _DIALECT.parse(text) if s is not None]
    except ParseError as error:
        first = error.errors[0] if error.errors else {}
        near = f" near {first['highlight']!r}" if first.get("highlight") else ""
        said = _said(str(first.get("description") or error))
        raise LocatedError(f"not Spark SQL: {said}{near}", line=int(first.get("line") or 1) - 1) from None
    except TokenError as error:
        opened = _OPENED.match(str(error.__cause__))
        line = int(opened[2]) - 1 if opened else text.count("\n", 0, len(text.rstrip()))
        what = f"the {opened[1]} that opens here" if opened else "a comment or text"
        raise LocatedError(f"not Spark SQL: {what} is not closed", line=line) from None
    if len(statements) != 1:
        raise LocatedError("write one query, without a second statement after ';'", line=0)
    if not isinstance(statements[0], exp.Query):
        raise LocatedError("only a query can stand here; write SELECT … FROM …", line=0)
    for limit in list(statements[0].find_all(exp.Limit)):
        if isinstance(limit.expression, exp.Var) and limit.expression.name.upper() == "ALL":
            limit.pop()
    for like in statements[0].find_all(exp.Like, exp.ILike):
        if isinstance(like.expression, exp.Anonymous) and like.expression.name.upper() in ("ANY", "SOME"):
            like.set("expression", exp.Tuple(expressions=like.expression.expressions))  # it is no aggregate
    return statements[0]
