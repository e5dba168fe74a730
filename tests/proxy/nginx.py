"""nginx from Debian's packages with the shipped configuration; only names, ports and paths are changed."""

import asyncio
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from testing.servers.ports import free_port
from testing.waiting import eventually
from tests.integration.services import ROOT
from tests.proxy.name_server import NameServer

CONFIG = ROOT / "proxy" / "nginx.conf"
TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
SERVICES = ("alarms", "auth", "gateway", "reader", "simulator", "grafana")


@dataclass
class Proxy:
    """A running nginx."""

    port: int
    health_port: int
    tls_port: int
    folder: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """The access log."""
        return (self.folder / "access.log").read_text()


def nginx_program() -> str:
    found = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/bin")
    assert found, "nginx is not installed: testing/servers/install"
    return found


def render_config(folder: Path, names: NameServer, ports: dict[str, int], proxy: Proxy) -> Path:
    """Write the shipped configuration with this test's names, ports and paths; every replacement must match."""
    services = folder / "services.conf"
    services.write_text(
        (services.read_text() if services.exists() else "")  # an operator's own lines
        + f"resolver 127.0.0.1:{names.port} valid=1s ipv6=off;\n"
        + "".join(f'map "" ${name} {{ default {name}.test:{port}; }}\n' for name, port in ports.items())
    )
    text = CONFIG.read_text()
    replacements = {
        "/etc/nginx/services.conf": f"{folder}/services.conf",
        "listen 8080 default_server": f"listen 127.0.0.1:{proxy.port} default_server",
        "listen 127.0.0.1:8081;": f"listen 127.0.0.1:{proxy.health_port};",
        "pid /tmp/nginx.pid;": f"pid {folder}/nginx.pid;",
        "access_log /dev/stdout json;": f"access_log {folder}/access.log json;",
        "/srv/docs": str(ROOT / "docs" / "protocol"),
        "/etc/nginx/tls/*.conf": f"{folder}/tls/*.conf",
        **{f"{kind}_temp_path /tmp": f"{kind}_temp_path {folder}" for kind in TEMPORARY},
    }
    for old, new in replacements.items():
        assert old in text, f"{old!r} no longer occurs in nginx.conf"
        text = text.replace(old, new)
    (folder / "nginx.conf").write_text(text)
    return folder / "nginx.conf"


def enable_tls(folder: Path, program: str = "") -> int:
    """Enable TLS with a self-signed certificate for the proxy of this folder; return its port.

    `program`: the nginx that will run, if it is not this machine's.
    """
    (folder / "tls").mkdir()
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-subj", "/CN=localhost", "-days", "2", "-keyout", "tls/key.pem", "-out", "tls/certificate.pem"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=30)
    port = free_port()
    text = CONFIG.with_name("tls.conf").read_text().replace("/etc/nginx/tls", f"{folder}/tls")
    text = text.replace("listen 8443 ssl;", f"listen 127.0.0.1:{port} ssl;")
    if version(program) < (1, 25, 1):  # Debian 12's; the shipped file is for nginx:stable
        assert "http2 on;" in text
        text = text.replace("http2 on;", "").replace(" ssl;", " ssl http2;")
    (folder / "tls" / "tls.conf").write_text(text)
    return port


def version(program: str = "") -> tuple[int, ...]:
    """Return the version of this nginx, or of the installed one."""
    output = subprocess.run(
        [program or nginx_program(), "-v"], capture_output=True, text=True, check=True, timeout=30
    ).stderr
    found = re.search(r"nginx/(\d+)\.(\d+)\.(\d+)", output)
    assert found, output
    return tuple(map(int, found.groups()))


@asynccontextmanager
async def running_nginx(folder: Path, names: NameServer, program: str = "", /, **ports: int) -> AsyncIterator[Proxy]:
    """Run nginx in front of services on `ports`; `names` resolves their addresses as `NAME.test`.

    `program`: another nginx than this machine's.
    """
    proxy = Proxy(free_port(), free_port(), free_port(), folder)
    config = render_config(folder, names, {name: ports.get(name, 9) for name in SERVICES}, proxy)
    with (folder / "error.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(program or nginx_program(), "-e", "stderr", "-p", str(folder), "-c", str(config), "-g", "daemon off;"),
            stderr=log,
            start_new_session=True,  # Ctrl-C is for the run, which stops it
        )

    async def healthy() -> bool:
        assert process.returncode is None, (folder / "error.log").read_text()
        try:
            async with (
                asyncio.timeout(1),
                aiohttp.request("GET", f"http://127.0.0.1:{proxy.health_port}/healthz") as ok,
            ):
                return ok.status == 200  # it listens before its workers answer and its pid is written
        except (OSError, TimeoutError, aiohttp.ClientError):
            return False

    try:
        await eventually(healthy, "nginx listens")
        yield proxy
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
