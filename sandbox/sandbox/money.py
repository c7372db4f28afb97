"""Money is an integer of the currency's smallest unit; text is made only at the border.

Formats (Shopify captures): MoneyV2.amount trims zeros but keeps one decimal ("31.9", "0.0"); the scalar
Money keeps two ("31.90"); webhooks print the currency's own decimals ("398.00", yen "1200", dinars "1.250").
"""

from functools import lru_cache

DECIMALS = {"JPY": 0, "KRW": 0, "VND": 0, "CLP": 0, "KWD": 3, "BHD": 3, "OMR": 3, "JOD": 3, "TND": 3}
_PRICES_REPEAT = 1 << 17  # a store has few distinct amounts: formatting each once is most of the speed


def decimals(currency: str) -> int:
    return DECIMALS.get(currency, 2)


@lru_cache(_PRICES_REPEAT)
def fixed(minor: int, places: int) -> str:
    """12345 with 2 places -> "123.45"."""
    if places == 0:
        return str(minor)
    sign, digits = ("-", -minor) if minor < 0 else ("", minor)
    whole, rest = divmod(digits, 10**places)
    return f"{sign}{whole}.{rest:0{places}d}"


@lru_cache(_PRICES_REPEAT)
def trimmed(minor: int, places: int) -> str:
    """As MoneyV2.amount prints it: "31.9", "10.0"."""
    text = fixed(minor, places)
    if places == 0:
        return text + ".0"
    text = text.rstrip("0")
    return text + "0" if text.endswith(".") else text


def scalar(minor: int, places: int) -> str:
    """As the scalar Money prints it: never fewer than two decimals."""
    return fixed(minor, places) if places >= 2 else fixed(minor * 10 ** (2 - places), 2)  # noqa: PLR2004


def convert(minor: int, rate: float, source: str, target: str) -> int:
    """Shop money in the buyer's currency."""
    return int(round(minor * rate * 10.0 ** (decimals(target) - decimals(source))))  # noqa: RUF046  mypy


def parse(text: str, places: int) -> int:
    from decimal import Decimal  # noqa: PLC0415  only the control API needs it

    return int(Decimal(text).scaleb(places))
