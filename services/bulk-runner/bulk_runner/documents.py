"""GraphQL documents out of `.graphql` files, and the form that bulk operations want them in. Pure.

Shopify runs a bulk query without variables and stores its text, comments included: so a bulk document has
its search and its fragments put in as text, and begins with the marker by which we know our own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from functools import cache
from importlib.resources import files

_DEFINITION = re.compile(r"^(?:query|mutation|fragment) (?P<name>\w+)", re.MULTILINE)
_INCLUDE = re.compile(r"^ *(?P<field>\w+) @include\(if: \$(?P<flag>\w+)\)(?P<rest>.*\n)", re.MULTILINE)
_SPREAD = re.compile(r"\.\.\.(\w+)")


@cache
def definitions(path: str) -> dict[str, str]:
    """A file's operations and fragments by name."""
    text = files("bulk_runner").joinpath(path).read_text("utf-8")
    starts = list(_DEFINITION.finditer(text))
    ends = [start.start() for start in starts[1:]] + [len(text)]
    return {s["name"]: text[s.start() : end].strip() for s, end in zip(starts, ends, strict=True)}


@cache
def document(path: str, name: str) -> str:
    """An operation, with the fragments that it spreads."""
    known = definitions(path)
    spread = dict.fromkeys(_SPREAD.findall(known[name]))
    return "\n\n".join([known[name], *(known[fragment] for fragment in spread)])


def bulk_document(
    path: str, name: str, search: str, marker: str, asked: Collection[str] = ("customers", "products")
) -> str:
    """An operation as text for `bulkOperationRunQuery`: no variables, no fragments, the marker first.

    Of the fields with `@include(if: $flag)` those stay whose flag is in `asked`.
    """
    known = definitions(path)
    body = _SPREAD.sub(lambda spread: _body(known[spread[1]]), _body(known[name]))
    body = _INCLUDE.sub(lambda line: f"{line['field']}{line['rest']}" if line["flag"] in asked else "", body)
    return f"{marker}\n{{{body.replace('$search', json.dumps(search))}}}"


def _body(definition: str) -> str:
    """What stands between a definition's outermost braces."""
    return definition[definition.index("{") + 1 : definition.rindex("}")]
