"""A disk with a volatile cache, without its interface: what was written, and what of it a power cut leaves.

- A file's data and size outlive a cut once that file was synced.
- Names (created, removed, renamed) are a journal, as in ext4 and XFS: whatever is synced, all names until then are
  durable, in their order. A file whose name is durable and whose data is not is empty.
- A cut keeps any of the sectors that were written and not synced, each as a coin falls, and the names up to a random
  one; or nothing.
- Where a file replaces another by renaming, its data may be missing all the same, as in XFS; with `data_before_rename`
  they are durable when the name is, as in ext4 unless it is mounted with `noauto_da_alloc`.
- A sync that fails loses what it should have written, as Linux does: the pages count as clean, a further sync succeeds.
"""

import errno
import os
import random
import stat
import time
from collections.abc import Iterator

SECTOR = 4096
ROOT = 1


class Node:
    """A file or folder, as it is and as it is on the disk."""

    def __init__(self, number: int, mode: int, uid: int, gid: int) -> None:
        self.number = number
        self.mode, self.uid, self.gid = mode, uid, gid
        self.modified_ns = time.time_ns()
        self.size = 0
        self.entries: dict[bytes, Node] = {}
        self.durable_entries: dict[bytes, Node] = {}
        self.dirty: set[int] = set()
        self.shrunk_to: int | None = None  # the smallest size since the last sync
        if self.is_folder:
            return
        self.data = os.memfd_create("data")
        self.durable = os.memfd_create("durable")

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.mode)

    def write(self, data: bytes | memoryview, at: int) -> None:
        os.pwrite(self.data, data, at)
        self.size = max(self.size, at + len(data))
        self.dirty.update(range(at // SECTOR, (at + len(data) + SECTOR - 1) // SECTOR))
        self.modified_ns = time.time_ns()

    def resize(self, size: int) -> None:
        if size < self.size:
            self.shrunk_to = size if self.shrunk_to is None else min(size, self.shrunk_to)
            if size % SECTOR:
                self.dirty.add(size // SECTOR)
        os.ftruncate(self.data, size)
        self.size = size
        self.modified_ns = time.time_ns()

    def sync(self) -> None:
        if self.is_folder:
            return
        if self.shrunk_to is not None:
            os.ftruncate(self.durable, min(self.shrunk_to, os.fstat(self.durable).st_size))
        self._copy(self.data, self.durable, self.dirty)
        os.ftruncate(self.durable, self.size)
        self.forget_dirty()

    def forget_dirty(self) -> None:
        self.dirty, self.shrunk_to = set(), None

    def cut(self, rng: random.Random | None) -> None:
        """Return to what is on the disk, after some of the sectors have reached it."""
        if self.is_folder:
            self.entries = dict(self.durable_entries)
            return
        if rng is not None:
            kept = {sector for sector in sorted(self.dirty) if rng.random() < 0.5}
            self._copy(self.data, self.durable, kept)
        self.size = os.fstat(self.durable).st_size
        os.close(self.data)
        self.data = os.memfd_create("data")
        left = self.size
        os.lseek(self.durable, 0, os.SEEK_SET)
        while left > 0 and (sent := os.sendfile(self.data, self.durable, None, left)):
            left -= sent
        os.ftruncate(self.data, self.size)
        self.forget_dirty()

    def _copy(self, source: int, target: int, sectors: set[int]) -> None:
        for sector in sectors:
            length = min(SECTOR, self.size - sector * SECTOR)
            if length > 0:
                os.pwrite(target, os.pread(source, length, sector * SECTOR), sector * SECTOR)

    def close(self) -> None:
        if not self.is_folder:
            os.close(self.data)
            os.close(self.durable)


class VolatileDisk:
    """All files, and the names that no sync has made durable yet."""

    def __init__(self) -> None:
        self.nodes: dict[int, Node] = {}
        self.data_before_rename = False
        self._last = 0
        # Each change of names is one group: a rename is never half done.
        self._names: list[list[tuple[Node, bytes, Node | None]]] = []
        self.root = self.new(stat.S_IFDIR | 0o755, 0, 0)

    def new(self, mode: int, uid: int, gid: int) -> Node:
        self._last += 1
        node = self.nodes[self._last] = Node(self._last, mode, uid, gid)
        return node

    def change(self, *names: tuple[Node, bytes, Node | None]) -> None:
        """Set or remove (None) names, all or none of them."""
        for folder, name, node in names:
            _set(folder.entries, name, node)
            folder.modified_ns = time.time_ns()
        self._names.append(list(names))

    def unlink(self, folder: Node, name: bytes) -> None:
        self.change((folder, name, None))

    def rename(self, folder: Node, name: bytes, target: Node, new_name: bytes) -> None:
        node = folder.entries.get(name)
        if node is None:
            raise OSError(errno.ENOENT, "no such name")
        self.change((folder, name, None), (target, new_name, node))

    def sync(self, node: Node) -> None:
        self._make_durable(len(self._names))
        node.sync()

    def sync_all(self) -> None:
        """As an orderly unmount."""
        self._make_durable(len(self._names))
        for node in self.nodes.values():
            node.sync()

    def cut(self, rng: random.Random | None) -> None:
        """Cut the power; with a generator, some of what was not synced has reached the disk."""
        self._make_durable(rng.randint(0, len(self._names)) if rng else 0)
        self._names.clear()
        reachable = {node.number: node for node in _below(self.root)}
        for number, node in self.nodes.items():
            if number not in reachable:
                node.close()
        self.nodes = reachable
        for node in reachable.values():
            node.cut(rng)

    def _make_durable(self, groups: int) -> None:
        for group in self._names[:groups]:
            for folder, name, node in group:
                if self.data_before_rename and node is not None and name in folder.durable_entries:
                    node.sync()
                _set(folder.durable_entries, name, node)
        del self._names[:groups]


def _set(entries: dict[bytes, Node], name: bytes, node: Node | None) -> None:
    if node is None:
        entries.pop(name, None)
    else:
        entries[name] = node


def _below(node: Node) -> Iterator[Node]:
    yield node
    for child in node.durable_entries.values():
        yield from _below(child)
