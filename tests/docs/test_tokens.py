"""Verifying tokens offline, with the code of docs/tokens.md and the packages that it names."""

import asyncio
import json
import re
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from testing.node import node_with
from tests.docs.pages import block, page, run_json, write_file
from tests.docs.tokens import JAVASCRIPT, PAGE, PYTHON
from tests.docs.venv import python_with
from tests.integration.device import logged_in, registered_device
from tests.integration.services import Running, migrated, started
from tests.reader.harness import bearer

HERE = Path(__file__).parent
EMAIL = "ada@example.com"

# Drivers of the page's code: print the owner of each token, or null if the code raises the error that the page names.
DRIVERS = {
    "pyjwt": """
import json, sys
wrong = jwt.PyJWTError
""",
    "joserfc": """
import sys, warnings
from joserfc.errors import JoseError
wrong = (JoseError, ValueError)
""",
}
DRIVEN = """
said = {}
for name, (token, scope) in json.load(sys.stdin).items():
    try:
        said[name] = verified(token, scope)["owner"]
    except wrong as error:
        said[name] = None
        print(name, type(error).__name__, error, file=sys.stderr)
print(json.dumps(said))
"""
DRIVEN_BY_NODE = """
import { verified } from "./verified.mjs";
import { readFileSync } from "node:fs";
const said = {};
for (const [name, [token, scope]] of Object.entries(JSON.parse(readFileSync(0))))
  said[name] = await verified(token, scope).then(
    (claims) => claims.owner,
    (error) => (console.error(name, error.message), null),
  );
console.log(JSON.stringify(said));
"""


@dataclass
class Issued:
    """An `auth` whose signing key is known to the test, and tokens that it issued."""

    auth: Running
    key: Ed25519PrivateKey
    owner: str
    user: str
    device: str

    def like(self, signed_with: Any = None, header: dict[str, Any] | None = None, **claims: Any) -> str:
        """Sign a variant of the user's token; None removes a claim."""
        changed = jwt.decode(self.user, options={"verify_signature": False}) | claims
        headers = {**jwt.get_unverified_header(self.user), **(header or {})}
        payload = {name: value for name, value in changed.items() if value is not None}
        return jwt.encode(payload, signed_with or self.key, algorithm=headers["alg"], headers=headers)


@pytest.fixture
async def issued(tmp_path: Path) -> AsyncIterator[Issued]:
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    write_file(tmp_path, "key.pem", pem).chmod(0o600)
    url = f"sqlite+aiosqlite:///{tmp_path}/users.db"
    await migrated(url)
    async with (
        started("auth", AUTH_DATABASE_URL=url, SIGNING_KEY_FILES=str(tmp_path / "key.pem"), BCRYPT_COST="4") as auth,
        aiohttp.ClientSession(auth.url) as http,
    ):
        owner, _, device = await registered_device(auth.url, EMAIL)
        yield Issued(auth, key, owner, await logged_in(http, EMAIL), device)


def tokens(issued: Issued) -> dict[str, tuple[str, str]]:
    """Return (token, required scope) by name; names of valid tokens begin with `good`."""
    reads, writes = "readings:read", "readings:write"
    return {
        "good user": (issued.user, reads),
        "good device": (issued.device, writes),
        "good, signed here": (issued.like(), reads),
        "good API key": (issued.like(sid=None, jti="k", key="k"), reads),
        "API key for other devices": (issued.like(sid=None, jti="k", key="k", devices=["another"]), reads),
        "device that would read": (issued.device, reads),
        "expired": (issued.like(exp=int(time.time()) - 120), reads),
        "of another issuer": (issued.like(iss="another"), reads),
        "for another audience": (issued.like(aud="another"), reads),
        "of another type": (issued.like(header={"typ": "JWT"}), reads),
        "without an owner": (issued.like(owner=None), reads),
        "without a scope": (issued.like(scope=None), reads),
        "without an end": (issued.like(exp=None), reads),
        "forged": (issued.like(Ed25519PrivateKey.generate()), reads),
        "of an unknown key": (issued.like(header={"kid": "unknown"}), reads),
        "of another algorithm": (issued.like("a" * 64, header={"alg": "HS256"}), reads),
        "not a token": ("garbage", reads),
    }


async def run_verifier(issued: Issued, *command: str) -> dict[str, str | None]:
    cases = tokens(issued)
    process = await asyncio.create_subprocess_exec(
        *command,
        env={"URL": issued.auth.url, "PATH": "/usr/bin:/bin"},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await asyncio.wait_for(process.communicate(json.dumps(cases).encode()), 60)
    assert process.returncode == 0
    found: dict[str, str | None] = json.loads(output)
    assert found.keys() == cases.keys()
    return found


def require_right(found: dict[str, str | None], owner: str) -> None:
    assert found == {name: owner if name.startswith("good") else None for name in found}


@pytest.mark.parametrize("package", DRIVERS)
async def test_python_takes_good_tokens_and_no_others(package: str, issued: Issued, tmp_path: Path) -> None:
    python = sys.executable if package == "pyjwt" else python_with(tried("joserfc", "=="))
    code = block(PAGE, PYTHON[package]) + DRIVERS[package] + DRIVEN
    require_right(await run_verifier(issued, python, str(write_file(tmp_path, "verify.py", code))), issued.owner)


async def test_jose_takes_good_tokens_and_no_others(issued: Issued, tmp_path: Path) -> None:
    node = node_with(HERE, "jose")
    assert tried("jose", "@").partition("@")[2] == versions()["jose"]
    (tmp_path / "node_modules").symlink_to(HERE / "node_modules")
    write_file(tmp_path, "verified.mjs", block(PAGE, JAVASCRIPT))
    script = write_file(tmp_path, "verify.mjs", DRIVEN_BY_NODE)
    require_right(await run_verifier(issued, node, str(script)), issued.owner)


def tried(package: str, sign: str) -> str:
    """Return the requirement with the version that the page names as tried."""
    found = re.search(rf"install {package}` \(tried: ([\d.]+)\)", page(PAGE))
    assert found, package
    return f"{package}{sign}{found[1]}"


def versions() -> dict[str, str]:
    found: dict[str, str] = json.loads((HERE / "package.json").read_text())["dependencies"]
    return found


async def test_only_auth_knows_that_a_token_was_revoked(issued: Issued, tmp_path: Path) -> None:
    command = block(PAGE, "What it cannot tell")

    async def cases(token: str) -> int:
        environment = {"URL": issued.auth.url, "TOKEN": token, "PATH": "/usr/bin:/bin"}
        process = await asyncio.create_subprocess_exec(
            "sh", "-c", command, env=environment, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
        )
        return await process.wait()

    curl_refused = 22
    assert [await cases(token) for token in (issued.user, issued.device, "garbage")] == [0, 0, curl_refused]
    async with aiohttp.ClientSession(issued.auth.url, raise_for_status=True) as http:
        (device,) = (await (await http.get("/devices", headers=bearer(issued.user))).json())["items"]
        await http.delete(f"/devices/{device['id']}/tokens", headers=bearer(issued.user))
        await http.post("/user/logout", headers=bearer(issued.user))
    assert [await cases(token) for token in (issued.user, issued.device)] == [curl_refused, curl_refused]
    code = block(PAGE, PYTHON["pyjwt"]) + DRIVERS["pyjwt"] + DRIVEN
    found = await run_verifier(issued, sys.executable, str(write_file(tmp_path, "verify.py", code)))
    assert (found["good user"], found["good device"]) == (issued.owner, issued.owner)


def refusals() -> dict[str, tuple[str, str]]:
    """Return the packages that cannot verify, by the page: version and error message."""
    rows = re.findall(r"^\| ([\w-]+)[ ()\w]* \| ([\d.]+) \| `([^`]+)` \|$", page(PAGE), re.MULTILINE)
    return {name: (version, words) for name, version, words in rows}


JSONWEBTOKEN = """
const jwt = require("jsonwebtoken"), crypto = require("node:crypto");
(async () => {
  const { keys } = await (await fetch(process.env.URL + "/.well-known/jwks.json")).json();
  const key = crypto.createPublicKey({ key: keys[0], format: "jwk" });
  try {
    console.log(JSON.stringify(jwt.verify(process.env.TOKEN, key, { algorithms: ["EdDSA"] })));
  } catch (error) {
    console.log(JSON.stringify(error.message));
  }
})();
"""
PYTHON_JOSE = """
import json, os, urllib.request
from jose import jwt
from jose.exceptions import JOSEError
keys = json.load(urllib.request.urlopen(os.environ["URL"] + "/.well-known/jwks.json"))
try:
    print(json.dumps(jwt.decode(os.environ["TOKEN"], keys, algorithms=["EdDSA"], audience="tidegate")))
except JOSEError as error:
    print(json.dumps(str(error)))
"""


async def test_packages_that_cannot_verify_fail_as_the_page_says(issued: Issued, tmp_path: Path) -> None:
    named = refusals()
    assert named.keys() == {"jsonwebtoken", "python-jose"}
    environment = {"URL": issued.auth.url, "TOKEN": issued.user}
    assert versions()["jsonwebtoken"] == named["jsonwebtoken"][0]
    (tmp_path / "node_modules").symlink_to(HERE / "node_modules")
    script = write_file(tmp_path, "verify.js", JSONWEBTOKEN)
    node = node_with(HERE, "jsonwebtoken")
    assert await run_json(node, str(script), environment=environment) == named["jsonwebtoken"][1]
    python = python_with(f"python-jose[cryptography]=={named['python-jose'][0]}")
    script = write_file(tmp_path, "verify.py", PYTHON_JOSE)
    assert await run_json(python, str(script), environment=environment) == named["python-jose"][1]
