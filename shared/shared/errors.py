"""What can go wrong, as types.

BackstockError
├── SettingError            a setting is missing or wrong: the process does not start
│   └── NotThereError       a server is away or not prepared: waiting may help
├── PermanentError          trying again cannot help: straight to the dead letters
│   └── BadPayloadError     what came in cannot be understood
├── LeaseLostError          somebody else works on this now: stop, write nothing
├── MigrationError          the database and this code do not fit
└── (shopify_errors.py) StoreError, ShopifyUnavailableError
"""

from __future__ import annotations


class BackstockError(Exception):
    """Something in Backstock went wrong."""


class SettingError(BackstockError):
    """A setting is missing or wrong."""


class NotThereError(SettingError):
    """What a setting names does not answer, or is not prepared."""


class PermanentError(BackstockError):
    """Trying again cannot help."""


class BadPayloadError(PermanentError):
    """What came in cannot be understood."""


class LeaseLostError(BackstockError):
    """Another worker holds the lease now."""


class MigrationError(BackstockError):
    """The database and this code do not fit together."""
