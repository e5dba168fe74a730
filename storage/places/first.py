"""The first readings of a window over all places, read one after the other in one of the driver's threads.

A switch to the event loop and back for each query would take as long as the query.
"""

from typing import Any

from readings.document import AS_MILLISECONDS
from storage.codec.columns import Columns, concatenate
from storage.places.blocks import Blocks, FoundHead
from storage.places.found import Found
from storage.places.loose import Loose, LooseReadings
from storage.places.moving import unless_moved
from storage.places.names import PIECES
from storage.places.pieces import Pieces, pieces_and_head, pieces_in
from storage.places.state import State
from storage.places.window import Window


class FirstReadings:
    """Reads one database of the synchronous driver; its errors, BlockError, DocumentError and PlacesChanged."""

    def __init__(self, database: Any) -> None:
        self.blocks = Blocks(database)
        self._loose = LooseReadings(database)
        self._pieces = database.get_collection(PIECES, codec_options=AS_MILLISECONDS)

    def loose(self, window: Window, limit: int, session: Any) -> tuple[Found, State]:
        """Return the first `limit` readings of a window that are in no block, and the state as it was after hot."""
        found, _, state = self._loose.read(window, limit, session)
        if state.has_blocks:
            found.add(self._pieces_in(found.rest, session).first(found.rest, limit))
        return found, state

    def read(self, window: Window, limit: int, session: Any, *, exact: bool) -> Loose:
        """Return the first `limit` readings of a window, or without `exact` also the rest of the blocks they are in."""
        loose = self._loose.read(window, limit, session)
        if loose.state.has_blocks and not loose.found.rest.is_empty:
            self._add_pieces_and_blocks(loose.found, limit, session, exact=exact)
        return loose

    def _add_pieces_and_blocks(self, found: Found, limit: int, session: Any, *, exact: bool) -> None:
        """Add what is in pieces and blocks; pieces are opened only where the readings are that will be returned."""
        pieces, *heads = unless_moved(lambda: pieces_and_head(self._pieces, found.rest, session))
        if pieces.count >= limit:
            found.add(pieces.first(found.rest, limit))

        def of_blocks() -> Columns | None:
            # Another try asks for the head again.
            return self._of_blocks(found.rest, limit, session, heads.pop() if heads else None)

        found.add(unless_moved(of_blocks), whole=not exact)
        if pieces.count < limit:
            found.add(pieces.first(found.rest, limit))

    def _pieces_in(self, window: Window, session: Any) -> Pieces:
        return unless_moved(lambda: pieces_in(self._pieces, window, session))

    def _of_blocks(self, window: Window, limit: int, session: Any, head: FoundHead | None) -> Columns | None:
        """Return the readings of the first blocks of a window in order: at least `limit`, or all of them."""
        found: list[Columns] = []
        count = 0
        for block in self.blocks.walk(window, session, head):
            if block.lies_in(window):
                found.append(window.cut(self.blocks.columns(block, session)))
                count += len(found[-1])
                if count >= limit:
                    break
        return concatenate(found[::-1] if window.descending else found) if found else None
