"""What one GraphQL request knows, and the errors its fields raise."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sandbox.store import View

if TYPE_CHECKING:
    from sandbox.site import Site

JSON = dict[str, Any]  # Any: a JSON document has no closer type
SIXTY_DAYS = 60 * 86_400


class FieldError(Exception):
    """This field fails; its neighbours may still answer."""

    def __init__(self, message: str, code: str, **extensions: object) -> None:
        super().__init__(message)
        self.extensions: JSON = {"code": code, **extensions}


class DocumentError(Exception):
    """The document is refused as a whole: no data, no cost."""

    def __init__(self, *errors: JSON) -> None:
        super().__init__(errors[0]["message"])
        self.errors = list(errors)


@dataclass
class Context:
    view: View
    scopes: tuple[str, ...]
    site: "Site | None" = None  # None inside a bulk operation: it reads its snapshot and nothing else
    oldest_order: int = 0  # without read_all_orders, older ones are left out in silence
    api_version: str = "2026-10"
    base_url: str = ""
    errors: list[JSON] = field(default_factory=list)
    search: list[JSON] = field(default_factory=list)

    @property
    def live(self) -> "Site":
        if self.site is None:
            raise FieldError("Internal error", "INTERNAL_SERVER_ERROR")
        return self.site
