"""Finished bulk files and the signed links to them: no token is needed, the signature and `Expires` are
all there is.
"""

import hashlib
import hmac
import secrets
import tempfile
import time
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

LIFETIME = 604_800  # a link works for exactly seven days (captured)
ACCESS_ID = "assets-us-prod@sandbox.example.iam.gserviceaccount.com"


class Result(NamedTuple):
    path: Path
    size: int
    shop: str


class Results:
    def __init__(self) -> None:
        self.directory = tempfile.TemporaryDirectory(prefix="sandbox-bulk-", ignore_cleanup_errors=True)
        self.secret = secrets.token_bytes(32)
        self.files: dict[str, Result] = {}

    def new_path(self) -> Path:
        return Path(self.directory.name) / secrets.token_hex(20)

    def publish(self, path: Path, shop: str) -> str:
        name = path.name
        self.files[name] = Result(path, path.stat().st_size, shop)
        return name

    def link(self, base: str, name: str, operation_id: int, *, expired: bool = False) -> str:
        expires = int(time.time()) + (-1 if expired else LIFETIME)
        disposition = quote(
            f"attachment; filename=\"bulk-{operation_id}.jsonl\"; filename*=UTF-8''bulk-{operation_id}.jsonl",
            safe="",
        )
        return (
            f"{base}/bulk-results/{name}"
            f"?GoogleAccessId={quote(ACCESS_ID, safe='')}&Expires={expires}"
            f"&Signature={quote(self.sign(name, expires), safe='')}&response-content-disposition={disposition}"  # noqa: E501
            "&response-content-type=application%2Fjsonl"
        )

    def sign(self, name: str, expires: int) -> str:
        return hmac.new(self.secret, f"{name}\n{expires}".encode(), hashlib.sha256).hexdigest()

    def open(self, name: str, expires: str, signature: str) -> Result | None:
        """The file, or None for a link that is wrong or too old."""
        found = self.files.get(name)
        if found is None or not expires.isdecimal() or int(expires) < time.time():
            return None
        return (
            found if hmac.compare_digest(self.sign(name, int(expires)).encode(), signature.encode()) else None
        )

    def forget(self, shop: str) -> None:
        for name in [name for name, result in self.files.items() if result.shop == shop]:
            self.files.pop(name).path.unlink(missing_ok=True)

    def close(self) -> None:
        self.directory.cleanup()
