"""Time passes for a runner that was killed or stopped: its leases run out, its messages are up for grabs.

Both would take some 15 s; what happens then is tested here, not the waiting for it.
"""

from __future__ import annotations

import redis

EXPIRE = (
    "with held as (select key from control.leases where expires_at > now() "
    "and owner like '%:' || $1 for update skip locked) "
    "update control.leases set expires_at = now() - interval '1 second' where key in (select key from held)"
)
LONG_AGO_MS = 16_000  # longer than a message's lease


async def leases_run_out(db, process):
    """How many leases of the process have run out now; those that it has locked are spared."""
    return int((await db.execute(EXPIRE, str(process.pid))).split()[-1])


def messages_are_claimable(redis_url):
    """As if whoever has messages of runners had been silent for a whole lease."""
    with redis.Redis.from_url(redis_url) as client:
        for stream in client.scan_iter("backstock:*", _type="stream"):
            if not any(group["name"] == b"bulk-runner" for group in client.xinfo_groups(stream)):
                continue
            for entry in client.xpending_range(stream, "bulk-runner", "-", "+", 1000):
                client.xclaim(
                    stream,
                    "bulk-runner",
                    entry["consumer"],
                    0,
                    [entry["message_id"]],
                    idle=LONG_AGO_MS,
                    justid=True,
                )
