"""nginx, HAProxy, Apache httpd and Caddy of this machine, each with its configuration from docs/proxies.md."""

import asyncio
import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from testing.servers.ports import free_port
from testing.servers.process import Server, ServerError
from tests.docs.pages import block, page, replace_all, write_file

PAGE = "proxies.md"
PROGRAMS = {"nginx": "nginx", "haproxy": "haproxy", "apache": "apache2", "caddy": "caddy"}
HEADINGS = {"nginx": "nginx", "haproxy": "HAProxy", "apache": "Apache httpd", "caddy": "Caddy"}
NAME, CERTIFICATES = "telemetry.example.com", "/etc/ssl/telemetry"
# What Debian's own configuration says around a file in conf.d, but for the paths.
AROUND_NGINX = """daemon off;
user root;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/tidegate.conf;
}}
"""
# And around a site, with the modules that Debian's apache2 has from its start, of which one waits less here.
AROUND_APACHE = """ServerRoot {folder}
ServerName localhost
DefaultRuntimeDir {folder}
PidFile {folder}/apache2.pid
ErrorLog /dev/stderr
User www-data
Group www-data
{modules}
RequestReadTimeout header=20-40,minrate=500 body=2,minrate=500
Listen 127.0.0.1:{port} https
Include {folder}/tidegate.conf
"""
APACHE_MODULES, APACHE_HAS = Path("/usr/lib/apache2/modules"), ("mpm_event", "authz_core", "reqtimeout")
# A test has no name that an authority could know, and no rights on port 80.
AROUND_CADDY = "{\n\tadmin off\n\tauto_https disable_redirects\n\tservers {\n\t\tprotocols h1 h2\n\t}\n}\n"


def certificate(folder: Path) -> None:
    """Make a certificate for localhost; `both.pem` has its key, too."""
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "2"),
            *("-keyout", "key.pem", "-out", "certificate.pem"),
        ],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    write_file(folder, "both.pem", "".join((folder / name).read_text() for name in ("certificate.pem", "key.pem")))


class ReverseProxy(Server):
    """One of them, in front of what listens on a port of 127.0.0.1; 0: of what it names itself."""

    def __init__(
        self, folder: Path, kind: str, behind: int, *, heading: str = "", changes: Mapping[str, str] | None = None
    ) -> None:
        """Take what stands under the heading `said`, else under the kind's; changes must find their place."""
        self.name, self.program = kind, PROGRAMS[kind]
        super().__init__(folder)
        self._behind = behind
        self._heading = heading or HEADINGS[kind]
        self._changes = dict(changes or {})

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    @property
    def certificate(self) -> Path:
        return self.folder / "certificate.pem"

    def kill(self) -> None:
        """End it with its workers: they listen, too, and the process that answers need not be their master."""
        self._end_by_force()

    def _choose_ports(self) -> None:
        self.port = free_port()

    def _prepare(self) -> None:
        certificate(self.folder)

    def _command(self) -> tuple[list[str], Mapping[str, str]]:
        program = shutil.which(self.program, path="/usr/sbin:/usr/local/sbin:/usr/local/bin:/usr/bin:/bin")
        if program is None:
            raise ServerError(f"{self.program} is not installed: testing/servers/install")
        arguments: list[str] = getattr(self, f"_{self.name}")(self._page_config())
        return [program, *arguments], {"HOME": str(self.folder), "XDG_DATA_HOME": str(self.folder)}

    def _page_config(self) -> str:
        changes = self._changes | ({"127.0.0.1:8080": f"127.0.0.1:{self._behind}"} if self._behind else {})
        if self.name != "caddy":
            changes[CERTIFICATES] = str(self.folder)
        return replace_all(block(PAGE, self._heading), changes)

    def _nginx(self, text: str) -> list[str]:
        changes = {"listen 443": f"listen 127.0.0.1:{self.port}", NAME: "localhost"}
        write_file(self.folder, "tidegate.conf", replace_all(text, changes))
        config = write_file(self.folder, "nginx.conf", AROUND_NGINX.format(folder=self.folder))
        return ["-e", "stderr", "-p", str(self.folder), "-c", str(config)]

    def _haproxy(self, text: str) -> list[str]:
        config = write_file(self.folder, "haproxy.cfg", replace_all(text, {"bind :443": f"bind 127.0.0.1:{self.port}"}))
        return ["-db", "-f", str(config)]

    def _apache(self, text: str) -> list[str]:
        named = re.search(r"`a2enmod ([a-z0-9_ ]+)`", page(PAGE))
        assert named, "the page no longer names Apache's modules"
        modules = [*APACHE_HAS, *named[1].split(), "socache_shmcb"]  # a2enmod takes what ssl needs along
        changes = {"*:443": f"127.0.0.1:{self.port}", NAME: "localhost"}
        write_file(self.folder, "tidegate.conf", replace_all(text, changes))
        loaded = "\n".join(f"LoadModule {name}_module {APACHE_MODULES}/mod_{name}.so" for name in modules)
        around = AROUND_APACHE.format(folder=self.folder, modules=loaded, port=self.port)
        return ["-D", "FOREGROUND", "-f", str(write_file(self.folder, "apache2.conf", around))]

    def _caddy(self, text: str) -> list[str]:
        tls = f"\ttls {self.folder}/certificate.pem {self.folder}/key.pem\n\tbind 127.0.0.1\n"
        site = replace_all(text, {f"{NAME} {{\n": f"https://localhost:{self.port} {{\n{tls}"})
        config = write_file(self.folder, "Caddyfile", AROUND_CADDY + site)
        return ["run", "--adapter", "caddyfile", "--config", str(config)]

    def _answers(self) -> bool:
        with socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True


class ProxyClient:
    """An HTTP client of Tidegate through a proxy."""

    def __init__(self, url: str, http: aiohttp.ClientSession, certificate: Path) -> None:
        self.url = url
        self.http = http
        self.certificate = certificate


@asynccontextmanager
async def running_proxy(folder: Path, kind: str, port: int, **options: Any) -> AsyncIterator[ProxyClient]:
    """Run a proxy of this kind in front of `port`; yields a client of it."""
    server = ReverseProxy(folder / kind, kind, port, **options)
    await asyncio.to_thread(server.start)
    try:
        context = ssl.create_default_context(cafile=server.certificate)
        # From an address that no proxy has: all of 127.0.0.0/8 is this machine.
        connector = aiohttp.TCPConnector(ssl=context, family=socket.AF_INET, local_addr=("127.0.0.5", 0))
        async with aiohttp.ClientSession(connector=connector) as http:
            yield ProxyClient(server.url, http, server.certificate)
    finally:
        await asyncio.to_thread(server.kill)
