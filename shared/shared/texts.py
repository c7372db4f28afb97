"""Texts that Postgres will read as a time or an amount, as types for msgspec: refused where they come in.

Postgres understands more than Shopify writes: `yesterday`, `infinity`, `NaN`, years beyond what Python holds.
Such a value would be stored, and block or break what is read later. Pure.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

# ISO 8601 as in `2021-12-31T19:00:00.000-05:00`; four digits of a year that stay four in every time zone.
Time = Annotated[
    str,
    msgspec.Meta(
        pattern=r"(?a:\A[12]\d{3}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:?\d\d)\Z)", max_length=40
    ),
]

# Shop money: eighteen digits hold any currency's total, twenty decimals also a price that was divided.
Amount = Annotated[str, msgspec.Meta(pattern=r"(?a:\A-?\d{1,18}(\.\d{1,20})?\Z)", max_length=40)]

# A count that Shopify writes as a text (UnsignedInt64).
Count = Annotated[str, msgspec.Meta(pattern=r"(?a:\A\d{1,19}\Z)", max_length=19)]
