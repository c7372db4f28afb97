"""What the commands say when something is wrong: one line, with the remedy."""

from __future__ import annotations

from shared.errors import BackstockError


class CommandError(BackstockError):
    """A command cannot do its work; the message says what to do about it."""
