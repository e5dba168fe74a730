#!/usr/bin/env bash
# HAProxy 2.6.12 (Debian 12): over HTTP/2 a response that its server has cut off looks complete.
#
# RFC 9112, 8: a chunked body without its last chunk is incomplete, and RFC 9113, 8.1: END_STREAM says that a response is
# complete. The server below sends three chunks and closes the connection, like one that cannot go on. For a client over
# HTTP/1.1 HAProxy closes without the last chunk, so that the client knows. For one over HTTP/2 it ends the stream normally,
# and half an export looks like all of it. HAProxy 3.2.26 resets the stream.
#
# Seen: HTTP/1.1 cut off, HTTP/2 whole
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

PATH=$PATH:/usr/sbin
if ! command -v haproxy >/dev/null; then # Debian 12's package, unpacked here
    apt-get download -qq haproxy liblua5.3-0 libopentracing1 libopentracing-c-wrapper0
    for package in *.deb; do dpkg-deb --extract "$package" root; done
    PATH=$PATH:$folder/root/usr/sbin
    export LD_LIBRARY_PATH=$(echo "$folder"/root/usr/lib/*-linux-gnu)
fi
version=$(haproxy -v)
echo "${version%%$'\n'*}"
[[ $version == *"version 2.6.12"* ]] || { echo "this needs HAProxy 2.6.12"; exit 2; }
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check 'httpx[http2]==0.28.1' 2>/dev/null

cat >try.py <<'P'
import socket, subprocess, sys, threading, time
import httpx

def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]

def serve(listening: socket.socket) -> None:
    while True:
        client, _ = listening.accept()
        client.recv(65536)
        client.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(3):
            client.sendall(b"5\r\nhello\r\n")
            time.sleep(0.2)
        client.close()

listening = socket.create_server(("127.0.0.1", 0))
threading.Thread(target=serve, args=(listening,), daemon=True).start()
http1, http2 = port(), port()
with open("haproxy.cfg", "w") as file:
    file.write(f"""
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
listen try
    bind 127.0.0.1:{http1}
    bind 127.0.0.1:{http2} proto h2
    server one 127.0.0.1:{listening.getsockname()[1]}
""")
haproxy = subprocess.Popen(["haproxy", "-db", "-f", "haproxy.cfg"])
try:
    for name, at, client in (("HTTP/1.1", http1, httpx.Client()), ("HTTP/2", http2, httpx.Client(http1=False, http2=True))):
        for _ in range(50):
            try:
                body = client.get(f"http://127.0.0.1:{at}/").text
                print(name, "whole" if body == "hello" * 3 else body)
                break
            except httpx.ConnectError:
                time.sleep(0.1)
            except httpx.RemoteProtocolError:
                print(name, "cut off")
                break
finally:
    haproxy.terminate()
    haproxy.wait()
P
venv/bin/python try.py | tee seen.txt
diff seen.txt - <<'S'
HTTP/1.1 cut off
HTTP/2 whole
S
