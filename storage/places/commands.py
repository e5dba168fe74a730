"""Read commands sent without the driver's cursors, which take half as long again for one reply."""

from typing import Any

from pymongo.errors import AutoReconnect, ServerSelectionTimeoutError


def find_command(collection: Any, query: dict[str, Any], limit: int, *, descending: bool = False) -> dict[str, Any]:
    """Return a command for the first documents in the order of `_id`."""
    return {
        "find": collection.name,
        "filter": query,
        "sort": {"_id": -1 if descending else 1},
        "limit": limit,
        "batchSize": limit,
    }


def find_document(
    collection: Any, query: dict[str, Any], projection: dict[str, Any], *, last: bool = False, session: Any = None
) -> dict[str, Any] | None:
    """Return the first or the last document in the order of `_id`, decoded with the collection's options; as `ask`.

    The driver's `find_one` makes a cursor for it, which takes the reader half as long again.
    """
    command = find_command(collection, query, 1, descending=last) | {"singleBatch": True}
    if projection:
        command["projection"] = projection
    found: list[dict[str, Any]] = ask(collection, command, session, collection.codec_options)["cursor"]["firstBatch"]
    return found[0] if found else None


def ask(collection: Any, command: dict[str, Any], session: Any, options: Any) -> Any:
    """Return the reply to a read command on a collection of the synchronous driver; raises the driver's errors.

    Sent a second time when the connection is lost or the primary steps down, as the driver repeats its own finds.
    """
    command = with_read_concern(command, collection, session)
    try:
        return collection.database.command(dict(command), codec_options=options, session=session)
    except ServerSelectionTimeoutError:
        raise
    except AutoReconnect:
        return collection.database.command(dict(command), codec_options=options, session=session)


def with_read_concern(command: dict[str, Any], collection: Any, session: Any) -> dict[str, Any]:
    """Return a command with a collection's read concern, that reads nothing older than its session has read.

    The driver adds these to its own finds, and to no command (PyMongo 4.20).
    """
    concern = dict(collection.read_concern.document)
    if session is not None and session.operation_time is not None:
        concern["afterClusterTime"] = session.operation_time
    return command | {"readConcern": concern} if concern else command
