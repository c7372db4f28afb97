"""The Postgres role that a service works under: `backstock_ingress`, ... (0007_roles.sql says what each may).

A role that is not there, or that DATABASE_URL's user may not take, is no error: one line in the log, and the
service works as that user.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import asyncpg
import structlog

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

log = structlog.get_logger()

# In a database without our grants (roles belong to the whole server) the role would be of no use.
MAY_TAKE = (
    "select coalesce(bool_or(pg_has_role(r.oid, 'member') "
    "and has_schema_privilege(r.oid, n.oid, 'usage')), false) "
    "from pg_roles r, pg_namespace n where r.rolname = $1 and n.nspname = 'control'"
)


def role_of(service: str) -> str:
    """`bulk-runner` -> `backstock_bulk_runner`."""
    return f"backstock_{service.replace('-', '_')}"


def taking_role(service: str) -> Callable[[Connection], Coroutine[Any, Any, None]]:
    """What a pool does with a new connection. `set role` outlives the `reset all` of a release."""
    role, told = role_of(service), False

    async def take(connection: Connection) -> None:
        nonlocal told
        if not await _take(connection, role) and not told:
            told = True
            log.info("role.not_taken", role=role, remedy="see docs/operations.md, Roles")

    return take


async def _take(connection: Connection, role: str) -> bool:
    try:
        if not await connection.fetchval(MAY_TAKE, role):
            return False
        await connection.execute(f'set role "{role}"')
    except asyncpg.InsufficientPrivilegeError:  # a member who may not `set` it (Postgres 16)
        return False
    return True
