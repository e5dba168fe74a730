"""The passwords that attackers try first: 16,285 of at least 8 characters, in lower case.

`common_passwords.txt.gz` merges the 19,640 of Django 5.2 (Royce Williams' list, BSD) and the 30,000 of zxcvbn 4.5 (Mark
Burnett's, MIT), without the shorter ones. All of both lists' first 10,000 are in it, and neither list alone has the
other's. The list is copied because no package contains it and little else. OWASP ASVS 5, 6.2.4, requires 3,000 of this
length.
"""

import gzip
from functools import cache
from importlib.resources import files


def is_common(password: str) -> bool:
    """Return whether the password is on the list, ignoring case."""
    return password.lower() in _load()


@cache
def _load() -> frozenset[str]:
    # Loaded on first use, not at start-up: about 5 ms, 2 MB.
    packed = files("auth").joinpath("common_passwords.txt.gz").read_bytes()
    return frozenset(gzip.decompress(packed).decode("ascii").splitlines())
