"""Documents are cut out of a reply as they are, whatever their lengths."""

import random
from typing import Any

import bson
import pytest
from bson import Int64
from bson.raw_bson import RawBSONDocument

from storage.places.raw_find import documents_of_reply


def reply(documents: list[bytes]) -> bytes:
    batch = [RawBSONDocument(document) for document in documents]
    cursor: dict[str, Any] = {"firstBatch": batch, "id": Int64(0), "ns": "a.b"}
    return bson.encode({"cursor": cursor, "ok": 1.0})


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 16, 99, 100, 101, 1000, 12_345])
@pytest.mark.parametrize("other", [0.0, 0.01, 0.5])
def test_every_document_comes_back(rng: random.Random, count: int, other: float) -> None:
    documents = [
        bson.encode({"_id": at, "a": "x" * (rng.randrange(1, 40) if rng.random() < other else 3)})
        for at in range(count)
    ]
    assert documents_of_reply(reply(documents)) == b"".join(documents)


def test_what_is_no_reply_to_find_is_an_error() -> None:
    with pytest.raises(ValueError, match="no batch"):
        documents_of_reply(bson.encode({"ok": 1.0}))
    with pytest.raises(ValueError, match="no document"):
        documents_of_reply(bson.encode({"cursor": {"firstBatch": [1, 2, 3]}, "ok": 1.0}))
