"""Questions that meet readings on their way to the next place."""

import pytest
from pymongo.errors import OperationFailure

from storage.places.moving import unless_moved, until_unmoved


class Question:
    """Fails once, as mongod does."""

    def __init__(self, code: int) -> None:
        self._code = code
        self.asked = 0

    def ask(self) -> str:
        self.asked += 1
        if self.asked == 1:
            raise OperationFailure("as mongod says it", self._code)
        return "found"

    async def ask_later(self) -> str:
        return self.ask()


# mongod 6.0.5, three members: 26 from an aggregation with $unionWith that began while the compactor dropped one of its
# collections.
@pytest.mark.parametrize("code", [26, 175, 246])
async def test_a_question_that_a_move_ends_is_asked_again(code: int) -> None:
    assert unless_moved(Question(code).ask) == "found"
    assert await until_unmoved(Question(code).ask_later) == "found"


async def test_another_error_is_not_a_move() -> None:
    question, later = Question(13), Question(13)
    with pytest.raises(OperationFailure):
        unless_moved(question.ask)
    with pytest.raises(OperationFailure):
        await until_unmoved(later.ask_later)
    assert (question.asked, later.asked) == (1, 1)
