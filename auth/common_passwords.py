"""The passwords that guessers try first: 16,285 of at least 8 characters, in lower case.

`common_passwords.txt.gz` joins, without what is shorter, the 19,640 of Django 5.2 (Royce Williams' list, BSD) and the
30,000 of zxcvbn 4.5 (Mark Burnett's, MIT): both lists' first 10,000 are in it whole, and neither alone has the other's.
A copy, because no package holds such a list and little else. OWASP ASVS 5, 6.2.4, asks for 3,000 of this length.
"""

import gzip
from functools import cache
from importlib.resources import files


def is_common(password: str) -> bool:
    """Say whether it is on the list, however its letters are written."""
    return password.lower() in _listed()


@cache
def _listed() -> frozenset[str]:
    # Read with the first new password, some 5 ms, not at the start; about 2 MB.
    packed = files("auth").joinpath("common_passwords.txt.gz").read_bytes()
    return frozenset(gzip.decompress(packed).decode("ascii").splitlines())
