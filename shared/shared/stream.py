"""How the services meet: typed events over Redis Streams consumer groups, delivered at least once.

Every handler has two subscriptions: one for new messages, one that claims what somebody left unacknowledged
for a lease. One middleware renews the lease while a handler runs and decides what a failure means:

    done                          -> acknowledged
    Postgres, Redis, Shopify away -> again after a backoff, for ever: an outage is not the message's fault
    PermanentError, unreadable    -> control.dead_letters, at once
    any other error               -> again after a backoff, MAX_DELIVERIES times, then control.dead_letters

Groups are made at 0 before anything is read, and made again when Redis has lost them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias, TypeVar, cast
from uuid import NAMESPACE_URL, uuid5

import asyncpg
import msgspec
import structlog
from faststream import AckPolicy, BaseMiddleware
from faststream.exceptions import AckMessage, HandlerException, NackMessage, StopConsume
from faststream.redis import RedisBroker, StreamSub
from faststream.redis.message import RedisStreamMessage
from pydantic import ValidationError
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import AuthenticationError, BusyLoadingError, ReadOnlyError, RedisError, ResponseError

from shared.db import Connection, Pool, load_queries, once, was_settled
from shared.dead_letters import bury
from shared.errors import LeaseLostError, NotThereError, PermanentError, SettingError
from shared.events import EVENTS, Event, Service
from shared.lanes import GivesWay, Lanes
from shared.outages import OUTAGES, OutageError, end_if_cancelled
from shared.outbox import STREAM_PREFIX, stream_name
from shared.shopify_errors import ShopifyUnavailableError

log = structlog.get_logger()
queries = load_queries("shared")

E = TypeVar("E", bound=Event)
Handler: TypeAlias = Callable[[E, Connection], Awaitable[None]]
LongHandler: TypeAlias = Callable[[E], Awaitable[None]]

LEASE_MS = (
    15_000  # an unacknowledged message is up for grabs after this; heartbeats come three times as often
)
MAX_DELIVERIES = 6  # with the backoff below: about 15 s of trying
BACKOFF_BASE_MS = 250  # doubles with each delivery, up to the lease (Redis cannot lease into the future)
READ_BLOCK_MS = 1_000  # must stay below redis-py's socket time-out of 5 s
CLAIM_EVERY_MS = 500
READ_AHEAD = 10  # messages a read; without a limit one read takes the whole backlog into memory
SHORT_AT_ONCE = 4  # transactions of one kind of event; the pool has ten connections
WAITING = 200  # messages of one kind that wait in a process for their store's turn: half a kilobyte each
WAITING_OF_A_STORE = 20  # of these; more are put back, so that other stores' messages are read at all
OLDEST_REDIS = (7, 0)  # before 7.0 XAUTOCLAIM trips over trimmed entries for ever
GRACE = 5.0  # seconds for running handlers at the end; a download goes on at its checkpoint elsewhere
STOP_WITHIN = 8.0  # seconds for all subscribers together
GUARD_EVERY = 1.0  # seconds between looks at the subscribers

CONSUMER = f"{socket.gethostname()}-{os.getpid()}"


def make_broker(redis_url: str, pool: Pool, service: Service) -> RedisBroker:
    """A broker whose subscribers redeliver, back off and bury as the module's table says."""
    return RedisBroker(
        redis_url,
        middlewares=[lambda msg, context: _Reliability(msg, context=context, pool=pool, service=service)],
        graceful_timeout=GRACE,
        logger=logging.getLogger("faststream"),
        log_level=logging.DEBUG,
        retry=Retry(ExponentialWithJitterBackoff(base=0.05, cap=2), 10),
        retry_on_error=[ReadOnlyError, BusyLoadingError],
    )


async def check_redis(redis: Redis) -> None:
    """SettingError if Redis is older than 7.0 or refuses us, NotThereError if it is away; with the remedy."""
    try:
        info = await redis.info("server")
    except AuthenticationError as error:
        raise SettingError(
            "REDIS_URL: Redis refuses this user or password: correct it (percent-encode special characters)"
        ) from error
    except ResponseError as error:
        raise SettingError(f"REDIS_URL: {error}: use Redis 7.0+ or Valkey 7.2+") from error
    except (RedisError, OSError) as error:
        raise NotThereError(
            f"REDIS_URL: Redis does not answer ({type(error).__name__}: {error}): "
            "check that the server runs and that host, port and password are right"
        ) from error
    version = tuple(int(part) for part in str(info["redis_version"]).split(".")[:2])
    if version < OLDEST_REDIS:
        raise SettingError(
            f"REDIS_URL: Redis {info['redis_version']} is too old: use Redis 7.0+ or Valkey 7.2+"
        )


class Route:
    """Which handler of this service takes which event."""

    def __init__(self, broker: RedisBroker, pool: Pool, service: Service) -> None:
        self.broker, self.pool, self.service = broker, pool, service
        self._lame: set[Any] = set()
        self._emptied: set[str] = set()  # event types whose stream was not there: Redis has lost them

    def on(self, event_type: type[E], handler: Handler[E], *, each: int = 2) -> None:
        """Short work: the handler gets the transaction that also marks the event as handled.

        At most `each` of one store together.
        """

        async def in_one_transaction(event: E) -> None:
            async with once(self.pool, event, self.service) as tx:
                if tx is not None:
                    await handler(event, tx)

        self._subscribe_by_turns(event_type, in_one_transaction, at_once=SHORT_AT_ONCE, each=each)

    def on_long(
        self,
        event_type: type[E],
        handler: LongHandler[E],
        *,
        workers: int,
        each: int | None = None,
        gives_way: GivesWay | None = None,
    ) -> None:
        """Long work: the handler commits batch by batch and settles the event with the last one.

        So many `workers` together, at most `each` of them for one store, which rests while it `gives_way`.
        """

        async def unless_done(event: E) -> None:
            if not await was_settled(self.pool, event, self.service):
                await handler(event)

        self._subscribe_by_turns(
            event_type, unless_done, at_once=workers, each=each or workers, gives_way=gives_way
        )

    def on_shared(self, event_type: type[E], handler: LongHandler[E], *, workers: int) -> None:
        """Short work that shares transactions: the handler settles the event with whatever came beside it."""
        self._subscribe(event_type, handler, workers=workers, read_ahead=workers)

    def _subscribe_by_turns(
        self,
        event_type: type[E],
        handle: LongHandler[E],
        *,
        at_once: int,
        each: int,
        gives_way: GivesWay | None = None,
    ) -> None:
        lanes = Lanes(at_once=at_once, each=each, waiting=WAITING_OF_A_STORE, gives_way=gives_way)

        async def in_turn(event: E) -> None:
            async with lanes.turn(event.connection_id):
                await handle(event)

        self._subscribe(event_type, in_turn, workers=WAITING)

    def _subscribe(
        self, event_type: type[E], handle: LongHandler[E], *, workers: int, read_ahead: int = READ_AHEAD
    ) -> None:
        if self.service not in event_type.consumed_by:
            raise TypeError(f"{event_type.__name__} does not name {self.service} among its consumers")

        async def consume(event: Event) -> None:
            with structlog.contextvars.bound_contextvars(
                event=event_type.__name__, event_id=str(event.event_id), brand=event.brand_id
            ):
                await handle(cast("E", event))

        consume.__annotations__["event"] = event_type
        name = stream_name(event_type)
        new = StreamSub(
            name,
            group=self.service,
            consumer=CONSUMER,
            max_records=read_ahead,
            polling_interval=READ_BLOCK_MS,
        )
        left = StreamSub(
            name,
            group=self.service,
            consumer=CONSUMER,
            min_idle_time=LEASE_MS,
            polling_interval=CLAIM_EVERY_MS,
        )
        for subscription in (new, left):
            consume = self.broker.subscriber(
                stream=subscription, ack_policy=AckPolicy.NACK_ON_ERROR, max_workers=workers
            )(consume)

    async def run(self) -> None:
        """Consume until cancelled; subscribers that Redis took down are raised again."""
        client = await self.broker.connect()
        await self._make_groups(client)
        with contextlib.suppress(*OUTAGES, asyncpg.PostgresError):
            await self._send_again()
        try:
            await self.broker.start()
            await self._guard(client)
        finally:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_WITHIN):
                    await self.broker.stop()

    def is_running(self) -> bool:
        """Whether every subscriber reads; readiness says no while one does not."""
        return all(_reads(subscriber) for subscriber in self.broker.subscribers)

    async def _guard(self, client: Redis) -> None:
        while True:
            end_if_cancelled()
            await asyncio.sleep(GUARD_EVERY)
            with contextlib.suppress(*OUTAGES, asyncpg.PostgresError):
                await self._end_the_lame()
                if dead := [s for s in self.broker.subscribers if _has_ended(s)]:
                    log.warning("stream.restart", subscribers=len(dead))
                    await self._make_groups(client)
                    for subscriber in dead:
                        await subscriber.start()
                await self._send_again()

    async def _end_the_lame(self) -> None:
        """A start that was broken off leaves a subscriber that runs and does not work: end it first."""
        lame = {s for s in self.broker.subscribers if s.running and not _reads(s)}
        for subscriber in lame & self._lame:  # twice in a row: it is not just being restarted
            await subscriber.stop()
        self._lame = lame

    def _streams(self) -> set[str]:
        return {cast("Any", s).stream_sub.name for s in self.broker.subscribers}

    async def _make_groups(self, client: Redis) -> None:
        for name in self._streams():
            try:
                await client.xgroup_create(name, self.service, id="0", mkstream=True)
                self._emptied.add(name.removeprefix(STREAM_PREFIX))
            except ResponseError as error:
                if "BUSYGROUP" not in str(error):
                    raise

    async def _send_again(self) -> None:
        """What was in lost streams is in the outbox: the relays need not wait until the sweeper misses it."""
        if not self._emptied:
            return
        sent = await self.pool.fetchval(queries["publish_again"], sorted(self._emptied), self.service)
        self._emptied.clear()
        if sent:
            log.warning("stream.emptied", events=sent)
            await self.pool.execute("notify backstock_outbox")


def _reads(subscriber: Any) -> bool:
    """Whether it runs, with both of its tasks: the one that reads and the one that hands over."""
    return subscriber.running and sum(not task.done() for task in subscriber.tasks) >= 2  # noqa: PLR2004 - both


def _has_ended(subscriber: Any) -> bool:
    """Whether it has stopped: one that still waits for its handlers would end what is started now."""
    return not subscriber.running and not subscriber.tasks


class _Reliability(BaseMiddleware):
    """Around every message: the heartbeat, and what a failure means."""

    def __init__(self, msg: Any, /, *, context: Any, pool: Pool, service: Service) -> None:
        super().__init__(msg, context=context)
        self.pool, self.service = pool, service

    async def consume_scope(self, call_next: Callable[[Any], Awaitable[Any]], msg: Any) -> Any:
        if not isinstance(msg, RedisStreamMessage) or not msg.group:
            return await call_next(msg)
        subscription: StreamSub = self.context.get("handler_").stream_sub
        delivery = _Delivery(msg, subscription)
        deliveries = await msg.get_delivery_count() if subscription.min_idle_time is not None else 1
        try:
            if deliveries > MAX_DELIVERIES:  # the process died on it again and again: not once more
                raise PermanentError(f"delivered {deliveries} times and never finished")
            async with delivery.heartbeat():
                return await call_next(msg)
        except (HandlerException, StopConsume):
            raise
        except (*OUTAGES, OutageError, ShopifyUnavailableError, LeaseLostError) as error:
            after = error.after if isinstance(error, OutageError) else None
            if after is None:  # else it is only not its turn
                log.info("event.waits", error=repr(error), deliveries=deliveries)
            await delivery.put_back(deliveries, counted=False, after=after)
        except Exception as error:
            hopeless = isinstance(error, PermanentError | ValidationError) or deliveries >= MAX_DELIVERIES
            log.warning("event.failed", error=repr(error), deliveries=deliveries, buried=hopeless)
            if hopeless:
                await self._bury(msg, error, deliveries)
                raise AckMessage from error
            await delivery.put_back(deliveries, counted=True)
        raise NackMessage

    async def _bury(self, msg: RedisStreamMessage, error: Exception, deliveries: int) -> None:
        payload = bytes(msg.body)
        stream = str(msg.raw_message["channel"]).removeprefix(STREAM_PREFIX)
        event = _read(stream, payload)
        event_id = (
            event.event_id if event else uuid5(NAMESPACE_URL, f"{stream}/{msg.raw_message['message_ids']}")
        )
        async with self.pool.acquire() as tx, tx.transaction():
            await bury(
                tx,
                event_id=event_id,
                event_type=stream,
                service=self.service,
                payload=payload.decode("utf-8", "replace"),
                error=error,
                deliveries=deliveries,
                event=event,
            )


def _read(event_type: str, payload: bytes) -> Event | None:
    """The event; of one that another version wrote at least what all events have; None if it is none."""
    try:
        raw = msgspec.json.decode(payload)
    except msgspec.DecodeError:
        return None
    for form in (EVENTS[event_type], Event):
        with contextlib.suppress(ValidationError):
            event = form.model_validate(raw)
            return event if "event_id" in event.model_fields_set else None
    return None


class _Delivery:
    """One pending entry: keep it ours, or leave it to be claimed later."""

    def __init__(self, msg: RedisStreamMessage, subscription: StreamSub) -> None:
        self.msg, self.subscription = msg, subscription
        self._is_handled = False

    @contextlib.asynccontextmanager
    async def heartbeat(self) -> AsyncIterator[None]:
        beating = asyncio.create_task(self._beat())
        try:
            yield
        finally:
            self._is_handled = True  # a cancellation may get lost in the client, which then raises a time-out
            beating.cancel()
            await asyncio.wait({beating})  # not `await beating`: our own cancellation must not get lost in it

    async def _beat(self) -> None:
        while not self._is_handled:
            await asyncio.sleep(LEASE_MS / 3000)
            with contextlib.suppress(RedisError, OSError):
                await self._claim(idle=0)

    async def put_back(self, deliveries: int, *, counted: bool, after: float | None = None) -> None:
        """Let it be claimed after so many seconds, or the backoff; an outage does not count as a delivery."""
        backoff = BACKOFF_BASE_MS * 2 ** min(deliveries, 10)
        longest = min(LEASE_MS, backoff if after is None else after * 1000)
        delay = int(longest * random.uniform(0.5, 1))  # noqa: S311 - jitter
        with contextlib.suppress(RedisError, OSError):  # then it waits for its whole lease
            await self._claim(idle=LEASE_MS - delay, deliveries=None if counted else max(deliveries - 1, 0))

    async def _claim(self, *, idle: int, deliveries: int | None = None) -> None:
        await cast("Any", self.msg).consumer.xclaim(
            name=self.msg.raw_message["channel"],
            groupname=self.msg.group,
            consumername=self.subscription.consumer,
            min_idle_time=0,
            message_ids=self.msg.raw_message["message_ids"],
            idle=idle,
            retrycount=deliveries,
            justid=True,
        )
