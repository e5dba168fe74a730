"""Logs: sentences with fields, written to standard error as text for people or as JSON lines for collectors.

Records of libraries (aiohttp, aio-pika, …) go through the same formatter.
"""

import logging
import sys
from typing import Literal, TextIO

import structlog
from structlog.stdlib import BoundLogger
from structlog.typing import Processor

# Libraries that log at info or warning what the services themselves log, once, as a sentence.
_NOISY_LIBRARIES = ("aio_pika", "aiormq", "aiohttp.access", "engineio", "socketio", "pymongo", "aiosqlite", "alembic")


def logger(name: str) -> BoundLogger:
    """Return the logger of one part of a process, such as `gateway.to_broker`."""
    named: BoundLogger = structlog.stdlib.get_logger(name)
    return named


def configure_logs(level: str, style: Literal["console", "json"], stream: TextIO | None = None) -> None:
    """Send every record of the process to `stream` (default: standard error) in one format. Call once, at the start."""
    stream = stream or sys.stderr
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        structlog.processors.StackInfoRenderer(),
    ]
    last: list[Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if style == "json":
        last += [
            # Without local variables, which may hold tokens and passwords.
            structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False)),
            structlog.processors.EventRenamer("message"),
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ]
    else:
        last += [
            structlog.dev.ConsoleRenderer(
                colors=stream.isatty(),
                timestamp_key="time",
                pad_event_to=0,
                exception_formatter=structlog.dev.plain_traceback,
            )
        ]
    handler = logging.StreamHandler(stream)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=last))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for name in _NOISY_LIBRARIES:
        logging.getLogger(name).setLevel(logging.ERROR)
    # It logs an error for each attempt to reach a broker that is away; `broker` logs an outage once.
    logging.getLogger("aiormq.connection").setLevel(logging.CRITICAL)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
