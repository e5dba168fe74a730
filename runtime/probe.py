"""A container's health check: exits with 0 if `/readyz`, or the path given, on OPS_PORT answers 200, otherwise with 1.

Run as a file with `python -I -S`: it uses only a socket and takes 20 ms.
"""

import os
import socket
import sys

TIMEOUT_S = 2.5


def ready(port: int, path: str = "/readyz") -> bool:
    """Return whether the process that serves `port` of this host answers 200 on a path."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            answer = b""
            while piece := connection.recv(4096):
                answer += piece
    except OSError as error:
        sys.stderr.write(f"{error}\n")
        return False
    head, _, body = answer.partition(b"\r\n\r\n")
    sys.stdout.write(body.decode(errors="replace") + "\n")
    return b" 200 " in head.partition(b"\r\n")[0]


if __name__ == "__main__":
    sys.exit(0 if ready(int(os.environ["OPS_PORT"]), *sys.argv[1:2]) else 1)
