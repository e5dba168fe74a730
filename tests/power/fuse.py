"""The FUSE protocol of Linux, spoken directly on /dev/fuse: requests of the kernel → a VolatileDisk.

Run as a program it mounts at its argument and obeys lines on standard input, each answered with one line:
`sync`, `cut SEED` (SEED `none` loses everything that was not synced), `ext4` (what replaces a file by renaming has its
data when it has the name), `ignore` (syncs do nothing), `delay SECONDS` of each sync, `fail TIMES` (EIO for the next
syncs, until a cut), `syncs` (their number, and how many failed). The end of the input ends it.
"""

import errno
import heapq
import os
import random
import resource
import select
import stat
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path

from testing.servers.namespaces import MS_NODEV, MS_NOSUID, mount, unmount
from tests.power.volatile import ROOT, SECTOR, Node, VolatileDisk

HEADER = struct.Struct("<IIQQIIIHH")  # fuse_in_header
OUT = struct.Struct("<IiQ")  # fuse_out_header
MAX_WRITE = 128 * 1024
ASYNC_READ, BIG_WRITES = 1 << 0, 1 << 5
KEEP_CACHE = 1 << 1
FOREVER_S = 1 << 30  # nobody else changes this disk, so the kernel may keep what it knows
FATTR_MODE, FATTR_UID, FATTR_GID, FATTR_SIZE, FATTR_MTIME = 1, 2, 4, 8, 32


def attributes(node: Node) -> bytes:
    seconds, nanoseconds = divmod(node.modified_ns, 10**9)
    links = 2 if node.is_folder else 1
    blocks = (node.size + 511) // 512
    times = (seconds, seconds, seconds, nanoseconds, nanoseconds, nanoseconds)
    rest = (node.mode, links, node.uid, node.gid, 0, SECTOR, 0)
    return struct.pack("<6Q10I", node.number, node.size, blocks, *times[:3], *times[3:], *rest)


def entry(node: Node) -> bytes:
    return struct.pack("<QQQQII", node.number, 0, FOREVER_S, FOREVER_S, 0, 0) + attributes(node)


class Fuse:
    """One mount of one disk; requests are served one after the other, only delayed syncs wait aside."""

    def __init__(self, at: Path) -> None:
        self.at = at
        self.disk = VolatileDisk()
        self.ignores_syncs = False
        self.delay_s = 0.0
        self.failures = 0
        self.syncs = self.failed = 0
        self._waiting: list[tuple[float, int, Node]] = []
        self._calls: dict[int, Callable[[Node, memoryview, tuple[int, int]], bytes]] = {
            1: self._lookup, 3: self._getattr, 4: self._setattr, 8: self._mknod, 9: self._mkdir,
            10: self._unlink, 11: self._rmdir, 12: self._rename, 14: self._open, 15: self._read, 16: self._write,
            17: self._statfs, 18: self._nothing, 26: self._init, 27: self._open, 28: self._readdir, 29: self._nothing,
            35: self._create, 43: self._fallocate, 45: self._rename2,
        }  # fmt: skip
        self.open()

    def open(self) -> None:
        self.device = os.open("/dev/fuse", os.O_RDWR)
        options = f"fd={self.device},rootmode=40755,user_id=0,group_id=0,allow_other,default_permissions"
        mount("fuse", self.at, options, MS_NOSUID | MS_NODEV)

    def close(self) -> None:
        unmount(self.at)
        os.close(self.device)

    def cut(self, rng: random.Random | None) -> None:
        """Cut the power and mount again what is left; what the kernel still has of the old mount is gone."""
        self.close()
        self._waiting.clear()
        self.disk.cut(rng)
        self.open()

    def serve_one(self) -> None:
        try:
            request = memoryview(os.read(self.device, MAX_WRITE + 4096))
        except OSError as error:
            if error.errno in {errno.ENOENT, errno.EINTR, errno.EAGAIN}:  # the request was interrupted
                return
            raise
        _, call, unique, number, uid, gid, *_ = HEADER.unpack_from(request)
        if call in {2, 36, 42}:  # FORGET, INTERRUPT and BATCH_FORGET have no answer
            return
        try:
            node = self.disk.nodes[number or ROOT]
            if call in {20, 30}:  # FSYNC, FSYNCDIR
                heapq.heappush(self._waiting, (time.monotonic() + self.delay_s, unique, node))
                return
            self._answer(unique, self._calls.get(call, _unknown)(node, request[HEADER.size :], (uid, gid)))
        except OSError as error:
            self._answer(unique, b"", error.errno or errno.EIO)

    def next_sync_s(self) -> float | None:
        """Seconds until a waiting sync is due."""
        return max(0.0, self._waiting[0][0] - time.monotonic()) if self._waiting else None

    def finish_syncs(self) -> None:
        while self._waiting and self._waiting[0][0] <= time.monotonic():
            _, unique, node = heapq.heappop(self._waiting)
            self.syncs += 1
            if self.failures:
                self.failures -= 1
                self.failed += 1
                node.forget_dirty()
                self._answer(unique, b"", errno.EIO)
                continue
            if not self.ignores_syncs:
                self.disk.sync(node)
            self._answer(unique, b"")

    def _answer(self, unique: int, body: bytes, error: int = 0) -> None:
        try:
            os.write(self.device, OUT.pack(OUT.size + len(body), -error, unique) + body)
        except OSError as failure:
            if failure.errno != errno.ENOENT:  # its caller was killed
                raise

    def _init(self, node: Node, body: memoryview, user: tuple[int, int]) -> bytes:
        _, _, readahead, offered = struct.unpack_from("<IIII", body)
        flags = offered & (ASYNC_READ | BIG_WRITES)
        return struct.pack("<IIIIHHIIHHI7I", 7, 31, readahead, flags, 64, 48, MAX_WRITE, 1, 0, 0, 0, *[0] * 7)

    def _nothing(self, node: Node, body: memoryview, user: tuple[int, int]) -> bytes:
        return b""

    def _lookup(self, node: Node, body: memoryview, user: tuple[int, int]) -> bytes:
        return entry(_child(node, _name(body)))

    def _getattr(self, node: Node, body: memoryview, user: tuple[int, int]) -> bytes:
        return struct.pack("<QII", FOREVER_S, 0, 0) + attributes(node)

    def _setattr(self, node: Node, body: memoryview, user: tuple[int, int]) -> bytes:
        valid, _, _, size, _, _, modified, _, _, modified_ns, _, mode, _, uid, gid, _ = struct.unpack_from(
            "<IIQQQQQQIIIIIIII", body
        )
        if valid & FATTR_MODE:
            node.mode = stat.S_IFMT(node.mode) | stat.S_IMODE(mode)
        if valid & FATTR_UID:
            node.uid = uid
        if valid & FATTR_GID:
            node.gid = gid
        if valid & FATTR_SIZE:
            node.resize(size)
        if valid & FATTR_MTIME:
            node.modified_ns = modified * 10**9 + modified_ns
        return self._getattr(node, body, user)

    def _new(self, folder: Node, name: bytes, mode: int, user: tuple[int, int]) -> Node:
        if name in folder.entries:
            raise OSError(errno.EEXIST, "exists")
        node = self.disk.new(mode, *user)
        self.disk.change((folder, name, node))
        return node

    def _mknod(self, node: Node, body: memoryview, user: tuple[int, int]) -> bytes:
        mode = struct.unpack_from("<I", body)[0]
        return entry(self._new(node, _name(body[16:]), mode, user))

    def _mkdir(self, node: Node, body: memoryview, user: tuple[int, int]) -> bytes:
        mode = struct.unpack_from("<I", body)[0]
        return entry(self._new(node, _name(body[8:]), stat.S_IFDIR | stat.S_IMODE(mode), user))

    def _create(self, node: Node, body: memoryview, user: tuple[int, int]) -> bytes:
        mode = struct.unpack_from("<II", body)[1]
        made = self._new(node, _name(body[16:]), stat.S_IFREG | stat.S_IMODE(mode), user)
        return entry(made) + self._open(made, body, user)

    def _open(self, node: Node, body: memoryview, user: tuple[int, int]) -> bytes:
        return struct.pack("<QII", 0, 0 if node.is_folder else KEEP_CACHE, 0)

    def _unlink(self, node: Node, body: memoryview, user: tuple[int, int]) -> bytes:
        _child(node, _name(body))
        self.disk.unlink(node, _name(body))
        return b""

    def _rmdir(self, node: Node, body: memoryview, user: tuple[int, int]) -> bytes:
        if _child(node, _name(body)).entries:
            raise OSError(errno.ENOTEMPTY, "not empty")
        return self._unlink(node, body, user)

    def _rename(self, node: Node, body: memoryview, user: tuple[int, int], names_at: int = 8) -> bytes:
        target = self.disk.nodes[struct.unpack_from("<Q", body)[0]]
        name, new_name = bytes(body[names_at:]).split(b"\0")[:2]
        self.disk.rename(node, name, target, new_name)
        return b""

    def _rename2(self, node: Node, body: memoryview, user: tuple[int, int]) -> bytes:
        flags = struct.unpack_from("<QI", body)[1]
        new_name = bytes(body[16:]).split(b"\0")[1]
        if flags & ~1:
            raise OSError(errno.EINVAL, "exchanging is not implemented")
        if flags and new_name in self.disk.nodes[struct.unpack_from("<Q", body)[0]].entries:  # RENAME_NOREPLACE
            raise OSError(errno.EEXIST, "exists")
        return self._rename(node, body, user, names_at=16)

    def _read(self, node: Node, body: memoryview, user: tuple[int, int]) -> bytes:
        _, at, size = struct.unpack_from("<QQI", body)
        return os.pread(node.data, size, at)

    def _write(self, node: Node, body: memoryview, user: tuple[int, int]) -> bytes:
        _, at, size = struct.unpack_from("<QQI", body)
        node.write(body[40 : 40 + size], at)
        return struct.pack("<II", size, 0)

    def _fallocate(self, node: Node, body: memoryview, user: tuple[int, int]) -> bytes:
        _, at, length, mode, _ = struct.unpack_from("<QQQII", body)
        if mode & ~1:  # KEEP_SIZE is all that is implemented
            raise OSError(errno.EOPNOTSUPP, "not implemented")
        if not mode and at + length > node.size:
            node.resize(at + length)
        return b""

    def _statfs(self, node: Node, body: memoryview, user: tuple[int, int]) -> bytes:
        blocks = 64 * 2**30 // SECTOR
        return struct.pack("<5Q4I6I", blocks, blocks, blocks, 10**6, 10**6, SECTOR, 255, SECTOR, 0, *[0] * 6)

    def _readdir(self, node: Node, body: memoryview, user: tuple[int, int]) -> bytes:
        _, start, size = struct.unpack_from("<QQI", body)
        found = b""
        names = [(b".", node), (b"..", node), *node.entries.items()]
        for position, (name, child) in list(enumerate(names))[start:]:
            one = struct.pack("<QQII", child.number, position + 1, len(name), stat.S_IFMT(child.mode) >> 12) + name
            one += b"\0" * (-len(one) % 8)
            if len(found) + len(one) > size:
                break
            found += one
        return found


def _unknown(node: Node, body: memoryview, user: tuple[int, int]) -> bytes:
    raise OSError(errno.ENOSYS, "not implemented")


def _name(body: memoryview) -> bytes:
    return bytes(body).split(b"\0", 1)[0]


def _child(folder: Node, name: bytes) -> Node:
    if name not in folder.entries:
        raise OSError(errno.ENOENT, "no such name")
    return folder.entries[name]


def obey(fuse: Fuse, line: str) -> str:
    """Carry out one line."""
    command, *arguments = line.split()
    if command == "cut":
        fuse.failures = 0
        fuse.cut(None if arguments[0] == "none" else random.Random(int(arguments[0])))
    elif command == "sync":
        fuse.disk.sync_all()
    elif command == "ext4":
        fuse.disk.data_before_rename = True
    elif command == "ignore":
        fuse.ignores_syncs = True
    elif command == "delay":
        fuse.delay_s = float(arguments[0])
    elif command == "fail":
        fuse.failures = int(arguments[0])
    elif command != "syncs":
        raise ValueError(f"not a command: {line}")
    return f"{fuse.syncs} {fuse.failed}"


def main() -> None:
    soft_and_hard = (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2
    resource.setrlimit(resource.RLIMIT_NOFILE, soft_and_hard)
    fuse = Fuse(Path(sys.argv[1]))
    print("mounted", flush=True)
    try:
        while True:
            ready, _, _ = select.select([fuse.device, 0], [], [], fuse.next_sync_s())
            fuse.finish_syncs()
            if 0 in ready:
                line = os.read(0, 1000).decode()  # one line: the other side waits for its answer
                if not line:
                    return
                print(obey(fuse, line), flush=True)
            elif ready:
                fuse.serve_one()
                fuse.finish_syncs()
    finally:
        fuse.close()


if __name__ == "__main__":
    main()
