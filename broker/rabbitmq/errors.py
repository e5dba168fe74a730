"""The driver's failures as ours, and which of them mean that the broker refuses: a right, a password, arguments.

RabbitMQ's own sentence is kept, and what it names is taken out of it for the log's fields.
"""

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager

from aiormq.exceptions import (
    AuthenticationError,
    ChannelAccessRefused,
    ChannelPreconditionFailed,
    ConnectionNotAllowed,
    InvalidFrameError,
    ProbableAuthenticationError,
)

from broker.interface import BrokerError, BrokerRefused, BrokerUnavailable

# Before 4.0 the sentence does not say which right it is.
_ACCESS = re.compile(
    r"(?:(?P<right>configure|write|read) )?access to (?P<resource>[a-z]+ '[^']*')"
    r" in vhost '(?P<vhost>[^']*)' refused for user '(?P<user>[^']*)'"
)
_REFUSALS = (ChannelAccessRefused, ProbableAuthenticationError, AuthenticationError, ConnectionNotAllowed)


def translated(error: BaseException) -> BrokerError:
    """Return a failure of the driver as one of ours, with the reason that the broker has given."""
    if isinstance(error, BrokerError):
        return error
    if _is_closed_vhost(error):
        return BrokerRefused("no way into the vhost: it does not exist, or this user has no rights in it")
    kind = BrokerRefused if _is_refusal(error) else BrokerUnavailable
    return kind(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)


def _is_refusal(error: BaseException) -> bool:
    if isinstance(error, ChannelPreconditionFailed):  # it is also what becomes of a consumer that is too slow
        return "inequivalent arg" in str(error)
    return isinstance(error, _REFUSALS)


def _is_closed_vhost(error: BaseException) -> bool:
    """Recognize the broker's refusal to open the vhost, whose sentence the driver drops."""
    return isinstance(error, InvalidFrameError) and "Connection.OpenOk" in str(error) and "Close" in str(error)


def missing_right(error: BrokerError) -> dict[str, str]:
    """Return what RabbitMQ's sentence names of `right`, `resource`, `vhost` and `user`, for a log's fields."""
    found = _ACCESS.search(str(error))
    return {} if found is None else {name: text for name, text in found.groupdict().items() if text}


@contextmanager
def translating_errors() -> Iterator[None]:
    """Turn whatever the driver raises when a connection is away, or dies under a call, into BrokerUnavailable.

    That is more than its own exceptions: in the middle of a handshake it raises a bare `Exception`, StopAsyncIteration,
    and a CancelledError that nobody has asked this task for. And where a call fails as it is cancelled, Python 3.11's
    `wait_for` raises the failure: the cancellation stands all the same.
    """
    try:
        yield
    except BrokerError:
        raise
    except asyncio.CancelledError as error:
        if is_cancelled():
            raise
        raise BrokerUnavailable("the connection died under a call") from error
    except Exception as error:
        if is_cancelled():
            raise asyncio.CancelledError from error
        raise translated(error) from error


def is_cancelled() -> bool:
    """Return whether somebody has asked the present task to end."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
