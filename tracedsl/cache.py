"""The content-addressed store on disk: machine code, compiled programs and LM answers all live here.

What holds here:
- An entry is one file: a checksummed JSON header, then the blobs. It is written beside its place and moved there in
  one step, so a reader sees a whole entry or none; a damaged or foreign file is a miss with a warning.
- A key is made of named parts, so a miss can be explained: `why` tells which parts differ from the nearest entry of
  the same subject. Keys and entries hold no secrets: callers put digests and settings into them, never credentials.
- Nothing is pickled. The folder belongs to its owner alone; one that others may write to is not used.
- Creating a `Store` touches no disk.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from tracedsl.diagnostics import warn

_MAGIC = b"tracedsl-entry 1 "
_SUFFIX = ".entry"


def digest(*parts: bytes | str) -> str:
    """SHA-256 of the parts, each with its length, as 64 hex digits."""
    sha = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        sha.update(f"{len(data)}:".encode())
        sha.update(data)
    return sha.hexdigest()


@cache
def code_digest(*folders: Path) -> str:
    """What the compiler itself is: 16 hex digits over the Python files below the folders. Part of the keys of what it
    makes, so that another version of tracedsl never runs what this one made."""
    files = sorted(found for folder in folders for found in _python_files(str(folder)))
    key, store = Key("memo", "source files", {"stamps": digest(json.dumps(files))}), Store()
    if (known := store.get(key)) is not None:
        return str(known.meta["digest"])
    found = digest(*(Path(path).read_bytes() for path, *_ in files))[:16]
    store.put(key, meta={"digest": found}, durable=False)
    return found


def _python_files(folder: str) -> Iterator[tuple[str, int, int]]:
    """Path, size and time of each Python file below: what Python itself goes by when it trusts a compiled module."""
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            yield from _python_files(entry.path)
        elif entry.name.endswith(".py"):
            info = entry.stat()
            yield entry.path, info.st_size, info.st_mtime_ns


@dataclass(frozen=True)
class Key:
    """What an entry depends on.

    `kind` is the sort of artefact ("kernel", "program", "lm", ...), `subject` what it belongs to (a function's
    qualified name, a model), `parts` the named things that decide whether an entry still fits.
    """

    kind: str
    subject: str
    parts: Mapping[str, str]
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        parts = dict(sorted(self.parts.items()))
        object.__setattr__(self, "parts", parts)
        text = json.dumps([self.kind, self.subject, parts], ensure_ascii=False)
        object.__setattr__(self, "digest", digest(text))


@dataclass(frozen=True)
class Entry:
    """A stored artefact: `blobs` by name, and `meta`, a JSON object. `created` is a Unix time in seconds."""

    key: Key
    meta: Mapping[str, Any]
    blobs: Mapping[str, bytes]
    created: float
    path: Path
    size: int


@dataclass(frozen=True)
class Why:
    """Why a look-up misses: `hit`, or the parts that differ from the nearest entry (name -> (stored, asked))."""

    hit: bool
    nearest: str | None
    changed: Mapping[str, tuple[str | None, str | None]]

    def __str__(self) -> str:
        if self.hit:
            return "found in the cache"
        if self.nearest is None:
            return "not in the cache: nothing is stored for this subject"
        names = ", ".join(self.changed) or "nothing (the entry is damaged)"
        return f"not in the cache: changed since the nearest entry: {names}"


def default_root() -> Path:
    """`$TRACEDSL_CACHE`, else the user's cache folder."""
    if given := os.environ.get("TRACEDSL_CACHE"):
        return Path(given).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("tracedsl", appauthor=False)


class Store:
    """A folder of entries, shared safely by any number of processes. All methods degrade to misses on a bad disk."""

    def __init__(self, root: Path | str | None = None) -> None:
        self._root = Path(root) if root is not None else None
        self._usable: bool | None = None

    @property
    def root(self) -> Path:
        if self._root is None:
            self._root = default_root()
        return self._root

    # -- look up and keep ---------------------------------------------------------------------------------------

    def get(self, key: Key) -> Entry | None:
        """The entry, or None. A damaged file is a miss: it is moved aside with a warning."""
        if not self.usable():
            return None
        path = self._path(key)
        try:
            data = path.read_bytes()
        except OSError:
            return None
        entry = _decode(data, path)
        if entry is None or entry.key != key:
            self._set_aside(path)
            return None
        return entry

    def put(self, key: Key, blobs: Mapping[str, bytes] | None = None, meta: Mapping[str, Any] | None = None, *,
            durable: bool = True) -> bool:
        """Keep an artefact; True if it is on disk now. An entry that is already there is replaced as a whole.
        `durable`: wait for the disk. What can be made again in milliseconds need not: after a crash it is a miss."""
        if not self.usable():
            return False
        path = self._path(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_atomic(path, _encode(key, blobs or {}, meta or {}), durable=durable)
        except OSError as error:
            warn("A003", f"cannot write to the cache {self.root}", why=str(error), hint="work goes on uncached")
            return False
        return True

    @contextmanager
    def lock(self, key: Key, timeout: float = -1) -> Iterator[None]:
        """Hold this key across processes, so that only one of them does the work. Waits `timeout` seconds at most
        (negative: for ever), then goes on without the lock: doing work twice is safe, only wasteful."""
        from filelock import FileLock, Timeout

        if not self.usable():
            yield
            return
        folder = self.root / "locks"
        lock = None
        try:
            folder.mkdir(exist_ok=True, mode=0o700)
            lock = FileLock(str(folder / key.digest[:32]), timeout=timeout)
            lock.acquire()
        except (Timeout, OSError):
            lock = None
        try:
            yield
        finally:
            if lock is not None:
                lock.release()

    # -- explain and look after ---------------------------------------------------------------------------------

    def why(self, key: Key) -> Why:
        """Whether `key` is stored and, if not, what changed since the nearest entry of the same kind and subject."""
        if self.usable() and self._path(key).exists() and self.get(key) is not None:
            return Why(True, key.digest, {})
        best: tuple[int, float, Entry] | None = None
        for entry in self.entries(key.kind, key.subject):
            same = sum(entry.key.parts.get(name) == value for name, value in key.parts.items())
            if best is None or (same, entry.created) > best[:2]:
                best = (same, entry.created, entry)
        if best is None:
            return Why(False, None, {})
        stored = best[2].key.parts
        names = sorted({*stored, *key.parts})
        changed = {n: (stored.get(n), key.parts.get(n)) for n in names if stored.get(n) != key.parts.get(n)}
        return Why(False, best[2].key.digest, changed)

    def entries(self, kind: str | None = None, subject: str | None = None) -> Iterator[Entry]:
        """All readable entries, without their blobs' order being promised; damaged files are skipped silently."""
        if not self.usable():
            return
        base = self.root / "entries"
        pattern = f"{kind or '*'}/{_slug(subject) if subject is not None else '*'}/*{_SUFFIX}"
        for path in sorted(base.glob(pattern)):
            with suppress(OSError):
                entry = _decode(path.read_bytes(), path)
                if entry is not None and (subject is None or entry.key.subject == subject):
                    yield entry

    def verify(self) -> list[Path]:
        """Check every entry; the damaged ones are moved aside and returned."""
        bad = []
        if self.usable():
            for path in sorted((self.root / "entries").glob(f"*/*/*{_SUFFIX}")):
                if _decode(path.read_bytes(), path) is None:
                    self._set_aside(path)
                    bad.append(path)
        return bad

    def prune(self, *, kind: str | None = None, older_than: float = 0.0) -> int:
        """Remove entries (of one kind) created more than `older_than` seconds ago; returns the bytes freed."""
        freed, now = 0, time.time()
        for entry in self.entries(kind):
            if now - entry.created >= older_than:
                with suppress(OSError):
                    entry.path.unlink()
                    freed += entry.size
        return freed

    def usable(self) -> bool:
        """Whether the folder exists (it is made if need be), is ours, and only we may write to it."""
        if self._usable is None:
            self._usable = self._check()
        return self._usable

    def _check(self) -> bool:
        try:
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
            info = self.root.stat()
        except OSError as error:
            warn("A003", f"the cache folder {self.root} cannot be used", why=str(error),
                 hint="set TRACEDSL_CACHE to a folder of yours; work goes on uncached")
            return False
        if os.name == "posix" and (info.st_uid != os.geteuid() or info.st_mode & 0o022):
            warn("A002", f"the cache folder {self.root} is not used: others may write to it",
                 why="machine code is loaded from it", hint=f"chmod 700 {self.root}; work goes on uncached")
            return False
        return True

    def _path(self, key: Key) -> Path:
        return self.root / "entries" / key.kind / _slug(key.subject) / (key.digest + _SUFFIX)

    def _set_aside(self, path: Path) -> None:
        warn("A001", f"a damaged cache entry was set aside: {path.name}", why="its checksum or key does not fit",
             hint="nothing: it is made anew")
        with suppress(OSError):
            os.replace(path, path.with_suffix(".damaged"))


def write_atomic(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write a file so that readers see the old content or the new, never a part of it; if it is `durable`, also after
    the machine crashed."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise


@lru_cache(maxsize=1024)
def _slug(subject: str) -> str:
    """A folder name for a subject: readable, and unique by a piece of its hash."""
    return f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', subject)[:60]}-{digest(subject)[:10]}"


def _encode(key: Key, blobs: Mapping[str, bytes], meta: Mapping[str, Any]) -> bytes:
    header = {
        "kind": key.kind, "subject": key.subject, "parts": dict(key.parts), "meta": dict(meta), "created": time.time(),
        "blobs": [[name, len(blob), hashlib.sha256(blob).hexdigest()] for name, blob in blobs.items()],
    }
    text = json.dumps(header, ensure_ascii=False).encode()
    return b"%s%s %d\n%s%s" % (
        _MAGIC, hashlib.sha256(text).hexdigest().encode(), len(text), text, b"".join(blobs.values()))


def _decode(data: bytes, path: Path) -> Entry | None:
    """The entry in `data`; None if anything about it is not as it was written."""
    try:
        line, _, rest = data.partition(b"\n")
        if not line.startswith(_MAGIC):
            return None
        checksum, length = line[len(_MAGIC):].split(b" ")
        text, body = rest[:int(length)], rest[int(length):]
        if hashlib.sha256(text).hexdigest().encode() != checksum:
            return None
        header = json.loads(text)
        blobs, offset = {}, 0
        for name, size, sha in header["blobs"]:
            blob = body[offset:offset + size]
            if hashlib.sha256(blob).hexdigest() != sha:
                return None
            blobs[name], offset = blob, offset + size
        if offset != len(body):
            return None
        key = Key(header["kind"], header["subject"], header["parts"])
        return Entry(key, header["meta"], blobs, header["created"], path, len(data))
    except (ValueError, KeyError, TypeError):
        return None
