"""One JSON line a record: an event name and fields, the same keys everywhere, never a secret."""

from __future__ import annotations

import logging
import sys

import structlog

from shared.masking import mask_record


def configure_logs(service: str, level: str = "INFO") -> None:
    """Send structlog and the standard library's records to stderr as JSON lines that carry `service`."""
    shared_steps: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared_steps, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level)),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared_steps,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                mask_record,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # httpx logs one line a request with its whole URL, and a bulk file's URL is a secret.
    for chatty in ("httpx", "httpcore", "uvicorn", "asyncio", "faststream", "faststream.access.redis"):
        logger = logging.getLogger(chatty)
        logger.setLevel(logging.WARNING)
        logger.handlers.clear()  # FastStream brings its own, in colours
        logger.propagate = True
    structlog.contextvars.bind_contextvars(service=service)
