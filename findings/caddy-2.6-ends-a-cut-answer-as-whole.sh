#!/usr/bin/env bash
# Caddy 2.6.2 (Debian 12): a response that its server has cut off looks complete.
#
# RFC 9112, 8: a chunked body without its last chunk is incomplete, and a proxy has to pass that on to its client. The
# server below sends three chunks and closes the connection, like one that cannot go on. Caddy's reverse_proxy logs
# "aborting with incomplete response" and then sends the last chunk that never came: half an export looks like all of it.
# Without Caddy, the same client raises IncompleteRead. Caddy 2.11.4 closes the connection.
#
# Seen: without Caddy cut off, through Caddy whole
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

if ! command -v caddy >/dev/null; then # Debian 12's package, unpacked here
    apt-get download -qq caddy
    dpkg-deb --extract caddy_*.deb root
    PATH=$PATH:$folder/root/usr/bin
fi
caddy version
[[ $(caddy version) == *2.6.2* ]] || { echo "this needs Caddy 2.6.2"; exit 2; }

cat >try.py <<'P'
import http.client, socket, subprocess, threading, time

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
behind = listening.getsockname()[1]
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    before = free.getsockname()[1]
with open("Caddyfile", "w") as file:
    file.write(f"{{\n\tadmin off\n}}\nhttp://127.0.0.1:{before} {{\n\treverse_proxy 127.0.0.1:{behind}\n}}\n")
caddy = subprocess.Popen(
    ["caddy", "run", "--adapter", "caddyfile", "--config", "Caddyfile"],
    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
)
try:
    for name, port in (("without Caddy", behind), ("through Caddy", before)):
        for _ in range(100):
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
                connection.request("GET", "/")
                body = connection.getresponse().read()
                print(name, "whole" if body == b"hello" * 3 else body)
                break
            except ConnectionRefusedError:
                time.sleep(0.1)
            except http.client.IncompleteRead:
                print(name, "cut off")
                break
finally:
    caddy.terminate()
    caddy.wait()
P
python3 try.py | tee seen.txt
diff seen.txt - <<'S'
without Caddy cut off
through Caddy whole
S
