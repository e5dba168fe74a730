import subprocess
import sys

import pytest

from auth.common_passwords import _load, is_common
from auth.passwords import MIN_PASSWORD_CHARS


@pytest.mark.parametrize(
    "password",
    [
        *("password", "12345678", "123456789", "qwertyuiop", "password1", "iloveyou", "1q2w3e4r", "00000000"),
        *("michelle", "sunshine", "football", "starwars", "passw0rd", "p@ssw0rd", "password123", "aaaaaaaa"),
        *("PASSWORD", "Password1", "P@ssW0rd", "iLoveYou"),
    ],
)
def test_what_everyone_tries_first_is_on_the_list(password: str) -> None:
    assert is_common(password)


@pytest.mark.parametrize("password", ["correct horse battery", "rh3umlwp", "password-of-ada", "x" * 73, "", "pässword"])
def test_what_few_would_try_is_not(password: str) -> None:
    assert not is_common(password)


def test_the_list_has_what_can_be_typed_and_no_more() -> None:
    assert len(_load()) == 16_285
    assert all(len(word) >= MIN_PASSWORD_CHARS and word == word.lower() and word.isascii() for word in _load())


def test_the_list_is_read_when_it_is_first_needed() -> None:
    code = "from auth import app; from auth.common_passwords import _load as l; print(l.cache_info().currsize)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout == "0\n"
