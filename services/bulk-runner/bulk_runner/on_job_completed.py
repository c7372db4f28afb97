"""JobCompleted -> what comes after it.

recent_sync, bulk_*  --the whole history is in-->  catch_up
                     --scopes came meanwhile-->    bulk_orders, once more with what they open
catch_up             --of a sync-->                audit
                     --which owes changes-->       catch_up
audit                --all equal-->                live
                     --a difference-->             catch_up, which reads what differs by its ids (heal.py),
                                                   and audit again, ROUNDS times, then attention
"""

from __future__ import annotations

from bulk_runner.loads import queue_loads, to_load
from bulk_runner.planning import queue_job, set_status
from shared.db import Connection, load_queries
from shared.events import BULK_JOBS, JobCompleted, JobFailed, Problem, TableCheck
from shared.outbox import emit
from shared.scopes import readable
from shared.trouble import reconsider

queries = load_queries("bulk_runner")

ROUNDS = 3  # audits in a row; a difference is mostly a lost webhook, or a change that the index showed late
LOADING = ("recent", "backfilling")  # an audit that ends now was asked for too soon to say "live"


async def on_job_completed(event: JobCompleted, tx: Connection) -> None:
    """Queue the next stage of the sync, or call it done."""
    status = await tx.fetchval(queries["lock_connection"], event.connection_id)
    match event.kind:
        case "recent_sync" | "bulk_orders" | "bulk_customers" | "bulk_products":
            await _after_history(event, tx)
        case "catch_up":
            await _after_catch_up(event, tx, status)
        case "audit":
            await _after_audit(event, tx, status)


async def _after_catch_up(event: JobCompleted, tx: Connection, status: str) -> None:
    job = await tx.fetchrow(queries["catch_up_done"], event.job_id)
    # A letter that came meanwhile shows as attention, and is no reason to leave the proof undone.
    is_of_a_sync = status == "catching_up" or bool(job and (job["round"] > 1 or job["is_unproven"]))
    # Of a sync only what lies further back: newer changes keep coming, and the audit that follows sees them.
    if job and job["owes"] and (job["owes_older"] or not is_of_a_sync):
        await queue_job(
            tx, event.connection_id, event.brand_id, "catch_up", since=job["owes"], round_=job["round"]
        )
    elif job and is_of_a_sync:
        await queue_job(tx, event.connection_id, event.brand_id, "audit", round_=job["round"])
        await set_status(tx, event.connection_id, "auditing")


async def _after_history(event: JobCompleted, tx: Connection) -> None:
    under_way = {row["kind"] for row in await tx.fetch(queries["open_jobs"], event.connection_id)}
    connection = await tx.fetchrow(queries["connection"], event.connection_id)
    if connection is None:  # disconnected meanwhile
        return
    allowed = readable(connection["scopes"])
    loads = await tx.fetch(queries["loaded_history"], event.connection_id)
    loaded = {row["kind"] for row in loads}
    wanted = {kind for kind, resource in BULK_JOBS.items() if resource in allowed}
    if not wanted <= loaded or under_way & {"recent_sync", *BULK_JOBS}:
        return
    if again := [load for load in to_load(connection["scopes"], loads) if load.kind in loaded]:
        await queue_loads(tx, event.connection_id, event.brand_id, again, connection["scopes"])
    else:
        await _catch_up(event, tx, 1)


async def _catch_up(event: JobCompleted, tx: Connection, round_: int) -> None:
    # The first one covers the time of the load; later ones, and those of a live store, what came since.
    query = "history_began" if event.kind != "audit" else "caught_up_at"
    since = await tx.fetchval(queries[query], event.connection_id)
    await queue_job(tx, event.connection_id, event.brand_id, "catch_up", since=since, round_=round_)
    await set_status(tx, event.connection_id, "catching_up")


async def _after_audit(event: JobCompleted, tx: Connection, status: str) -> None:
    if status in LOADING:
        return
    differences = [table for table in event.audit or () if not table.equal]
    if not differences:
        await set_status(tx, event.connection_id, "live")
        return
    round_ = await tx.fetchval(queries["round_of_job"], event.job_id)
    if round_ < ROUNDS:
        await _catch_up(event, tx, round_ + 1)
        return
    problem = _problem(differences)
    await tx.execute(queries["set_sync_status"], event.connection_id, "attention", problem.model_dump())
    await emit(
        tx,
        JobFailed(
            connection_id=event.connection_id,
            brand_id=event.brand_id,
            job_id=event.job_id,
            kind="audit",
            problem=problem,
        ),
    )
    await reconsider(tx, event.connection_id)


def _problem(differences: list[TableCheck]) -> Problem:
    found = "; ".join(
        f"{t.table}: {t.missing} missing, {t.different} different, {t.extra} too many" for t in differences
    )
    return Problem(
        code="audit_differs",
        message=f"After {ROUNDS} audits our rows still differ from Shopify's ({found}).",
        action="Load the history again: backstock sync BRAND --job bulk_orders (or another bulk job).",
    )
