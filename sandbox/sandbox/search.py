"""Shopify's search syntax, and its habit of failing open.

    terms side by side (or AND) must all match, OR and parentheses group, NOT or a leading - negates
    field:value  field:>=value  field:'quoted value'  field:*  or words without a field

An unknown field is ignored, and only `extensions.search[].warnings` tells; an unknown enum value matches
nothing; a bad timestamp fails the field (all captured).
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from sandbox import clock
from sandbox.context import JSON, FieldError
from sandbox.filters import Filter

_TOKEN = re.compile(
    r"""\s*(?:(?P<open>\()|(?P<close>\))|(?P<minus>-)?(?:(?P<field>[A-Za-z_][\w.]*)\s*:\s*(?P<op>>=|<=|>|<)?\s*)?"""
    r"""(?P<value>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[^\s()]+))"""
)
Test = Callable[[Any], bool]  # Any: an object of whichever kind is searched


class Parsed(NamedTuple):
    test: Test
    warnings: list[JSON]
    described: JSON


def parse(text: str, filters: dict[str, Filter], zone: str) -> Parsed:
    reader = _Reader(text, filters, zone)
    test, described = reader.either()
    return Parsed(test, reader.warnings, described)


class _Reader:
    def __init__(self, text: str, filters: dict[str, Filter], zone: str) -> None:
        self.tokens = [match for match in _TOKEN.finditer(text) if match.group().strip()]
        self.filters, self.zone = filters, zone
        self.at = 0
        self.warnings: list[JSON] = []

    def word(self) -> str | None:
        if self.at >= len(self.tokens):
            return None
        token = self.tokens[self.at]
        return None if token["field"] else token["open"] or token["close"] or token["value"]

    def either(self) -> tuple[Test, JSON]:
        tests = [self.all()]
        while self.word() == "OR":
            self.at += 1
            tests.append(self.all())
        if len(tests) == 1:
            return tests[0]
        parts = [test for test, _ in tests]
        return lambda of: any(part(of) for part in parts), {"or": [shown for _, shown in tests]}

    def all(self) -> tuple[Test, JSON]:
        tests: list[tuple[Test, JSON]] = []
        while self.at < len(self.tokens) and self.word() not in {"OR", ")"}:
            if self.word() == "AND":
                self.at += 1
                continue
            tests.append(self.one())
        if len(tests) == 1:
            return tests[0]
        parts = [test for test, _ in tests]
        return lambda of: all(part(of) for part in parts), {"and": [shown for _, shown in tests]}

    def one(self) -> tuple[Test, JSON]:
        token = self.tokens[self.at]
        self.at += 1
        if token["open"]:
            found = self.either()
            self.at += 1
            return found
        if self.word_is_not(token) and self.at < len(self.tokens):
            return _negated(self.one())
        found = self.term(token)
        return _negated(found) if token["minus"] else found

    @staticmethod
    def word_is_not(token: re.Match[str]) -> bool:
        return token["value"] == "NOT" and not token["field"]

    def term(self, token: re.Match[str]) -> tuple[Test, JSON]:
        name, operator, value = token["field"], token["op"] or "", _unquote(token["value"])
        if name is None:
            return self.filters["default"].test("", value), {"field": "default", "match_all": value}
        shown = {"field": name, **_shown(operator, value)}
        chosen = self.filters.get(name)
        if chosen is None or name == "default":
            self.warn(name, "Invalid search field for this query.", "invalid_field")
            return lambda _: True, shown
        if chosen.values is not None and value.upper() not in chosen.values:
            self.warn(name, f"Input `{value}` is not an accepted value.", "invalid_value")
            return lambda _: False, shown
        return self.tested(chosen, name, operator, value), shown

    def tested(self, chosen: Filter, name: str, operator: str, value: str) -> Test:
        if not chosen.is_time or value == "*":
            return chosen.test(operator, value)
        try:
            return chosen.test(operator, str(clock.parse(value, self.zone)))
        except ValueError:
            raise FieldError(f"Invalid timestamp for query filter `{name}`.", "BAD_REQUEST") from None

    def warn(self, name: str, message: str, code: str) -> None:
        self.warnings.append({"field": name, "message": message, "code": code})


def _negated(found: tuple[Test, JSON]) -> tuple[Test, JSON]:
    test, shown = found
    return lambda of: not test(of), {"not": shown}


def _unquote(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1]) if text[:1] in {"'", '"'} and text[-1:] == text[:1] else text


def _shown(operator: str, value: str) -> JSON:
    names = {">": "gt", ">=": "gte", "<": "lt", "<=": "lte"}
    return {"range": {names[operator]: value}} if operator else {"match_all": value}
