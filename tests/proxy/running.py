"""nginx from Debian's packages with the configuration that ships: only names, ports and paths are this test's own."""

import asyncio
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from testing.servers.ports import free_port
from testing.waiting import eventually
from tests.integration.services import ROOT
from tests.proxy.names import Names

CONFIG = ROOT / "proxy" / "nginx.conf"
TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
SERVICES = ("auth", "gateway", "reader", "simulator", "grafana")


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
        """What was logged of requests."""
        return (self.folder / "access.log").read_text()


def nginx() -> str:
    found = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/bin")
    assert found, "nginx is not installed: testing/servers/install"
    return found


def rendered(folder: Path, names: Names, ports: dict[str, int], proxy: Proxy) -> Path:
    """Write the shipped configuration with what is another here; every replacement must find its place."""
    services = folder / "services.conf"
    services.write_text(
        (services.read_text() if services.exists() else "")  # an operator's own lines
        + f"resolver 127.0.0.1:{names.port} valid=1s ipv6=off;\n"
        + "".join(f'map "" ${name} {{ default {name}.test:{port}; }}\n' for name, port in ports.items())
    )
    text = CONFIG.read_text()
    replaced = {
        "/etc/nginx/services.conf": f"{folder}/services.conf",
        "listen 8080 default_server": f"listen 127.0.0.1:{proxy.port} default_server",
        "listen 127.0.0.1:8081;": f"listen 127.0.0.1:{proxy.health_port};",
        "pid /tmp/nginx.pid;": f"pid {folder}/nginx.pid;",
        "access_log /dev/stdout json;": f"access_log {folder}/access.log json;",
        "/srv/docs": str(ROOT / "docs" / "protocol"),
        "/etc/nginx/tls/*.conf": f"{folder}/tls/*.conf",
        **{f"{kind}_temp_path /tmp": f"{kind}_temp_path {folder}" for kind in TEMPORARY},
    }
    for old, new in replaced.items():
        assert old in text, f"nginx.conf no longer says {old!r}"
        text = text.replace(old, new)
    (folder / "nginx.conf").write_text(text)
    return folder / "nginx.conf"


def with_tls(folder: Path) -> int:
    """Let the proxy that will run here speak TLS with a certificate of its own; returns its port."""
    (folder / "tls").mkdir()
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    made += ["-subj", "/CN=localhost", "-days", "2", "-keyout", "tls/key.pem", "-out", "tls/certificate.pem"]
    subprocess.run(made, cwd=folder, check=True, capture_output=True, timeout=30)
    port = free_port()
    text = CONFIG.with_name("tls.conf").read_text().replace("/etc/nginx/tls", f"{folder}/tls")
    text = text.replace("listen 8443 ssl;", f"listen 127.0.0.1:{port} ssl;")
    if version() < (1, 25, 1):  # Debian 12's: what ships is for the image's, nginx:stable
        assert "http2 on;" in text
        text = text.replace("http2 on;", "").replace(" ssl;", " ssl http2;")
    (folder / "tls" / "tls.conf").write_text(text)
    return port


def version() -> tuple[int, ...]:
    """Return the version of the nginx that is installed."""
    said = subprocess.run([nginx(), "-v"], capture_output=True, text=True, check=True, timeout=30).stderr
    found = re.search(r"nginx/(\d+)\.(\d+)\.(\d+)", said)
    assert found, said
    return tuple(map(int, found.groups()))


@asynccontextmanager
async def proxied(folder: Path, names: Names, **ports: int) -> AsyncIterator[Proxy]:
    """Run nginx in front of services: `ports` are theirs, their addresses are what `names` says of `NAME.test`."""
    proxy = Proxy(free_port(), free_port(), free_port(), folder)
    config = rendered(folder, names, {name: ports.get(name, 9) for name in SERVICES}, proxy)
    with (folder / "error.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(nginx(), "-e", "stderr", "-p", str(folder), "-c", str(config), "-g", "daemon off;"), stderr=log
        )

    async def healthy() -> bool:
        assert process.returncode is None, (folder / "error.log").read_text()
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", proxy.health_port)
        except OSError:
            return False
        writer.close()
        return True

    try:
        await eventually(healthy, "nginx listens")
        yield proxy
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
