"""The store under damage, many processes, kills and other people's folders."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracedsl.cache import Key, Store, write_atomic
from tracedsl.diagnostics import TracedslWarning

KEY = Key("kernel", "module:f", {"source": "abc", "target": "cpu"})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_round_trip(store: Store) -> None:
    assert store.get(KEY) is None
    assert store.put(KEY, {"code": b"\x00\n\xff" * 100, "empty": b""}, {"shape": [1, 2], "name": "ü"})
    entry = Store(store.root).get(KEY)
    assert entry is not None and entry.blobs == {"code": b"\x00\n\xff" * 100, "empty": b""}
    assert entry.meta == {"shape": [1, 2], "name": "ü"} and entry.key == KEY


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.text(min_size=1, max_size=8), st.binary(max_size=200), max_size=4),
       st.dictionaries(st.text(), st.text(), max_size=3), st.text())
def test_any_content_survives(tmp_path_factory: pytest.TempPathFactory, blobs: dict[str, bytes],
                              parts: dict[str, str], subject: str) -> None:
    store = Store(tmp_path_factory.mktemp("s"))
    key = Key("kernel", subject, parts)
    assert store.put(key, blobs, {"parts": parts})
    entry = store.get(key)
    assert entry is not None and dict(entry.blobs) == blobs and entry.meta == {"parts": parts}


def test_every_kind_of_damage_is_a_miss_with_a_warning(store: Store) -> None:
    store.put(KEY, {"code": b"machine code"}, {"n": 1})
    (path,) = store.root.glob("entries/*/*/*.entry")
    good = path.read_bytes()
    rng = random.Random(0)
    for case in range(60):
        data = bytearray(good)
        if case % 3 == 0:
            data = data[:rng.randrange(len(data))]
        elif case % 3 == 1:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        else:
            data += b"more"
        path.write_bytes(bytes(data))
        with pytest.warns(TracedslWarning, match="A001"):
            assert store.get(KEY) is None
        assert not path.exists(), "the damaged file stands aside"
    store.put(KEY, {"code": b"machine code"}, {"n": 1})
    assert store.get(KEY) is not None


def test_an_entry_under_a_foreign_name_is_not_taken(store: Store) -> None:
    other = Key("kernel", "module:f", {"source": "other"})
    store.put(other, {"code": b"wrong"})
    (path,) = store.root.glob("entries/*/*/*.entry")
    path.rename(path.with_name(KEY.digest + ".entry"))
    with pytest.warns(TracedslWarning):
        assert store.get(KEY) is None


def test_why_tells_what_changed(store: Store) -> None:
    assert store.why(KEY).nearest is None
    store.put(KEY)
    assert store.why(KEY).hit
    changed = Key("kernel", "module:f", {"source": "xyz", "target": "cpu"})
    why = store.why(changed)
    assert not why.hit and dict(why.changed) == {"source": ("abc", "xyz")}
    assert "changed since the nearest entry: source" in str(why)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() is None, reason="POSIX permissions")
def test_a_folder_open_to_others_is_not_used(tmp_path: Path) -> None:
    root = tmp_path / "open"
    root.mkdir()
    root.chmod(0o777)
    store = Store(root)
    with pytest.warns(TracedslWarning, match="A002"):
        assert not store.put(KEY, {"code": b"x"})
    assert store.get(KEY) is None and list(root.iterdir()) == []


def test_a_root_that_is_a_file_means_uncached_work(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    store = Store(file)
    with pytest.warns(TracedslWarning, match="A003"):
        assert store.get(KEY) is None
    assert not store.put(KEY) and file.read_text() == "mine"
    with store.lock(KEY):
        pass


def test_creating_a_store_touches_no_disk(tmp_path: Path) -> None:
    Store(tmp_path / "later")
    assert not (tmp_path / "later").exists()


def test_verify_and_prune(store: Store) -> None:
    for n in range(5):
        store.put(Key("kernel", f"f{n}", {}), {"b": bytes(100)})
    store.put(Key("lm", "model", {}), {"b": bytes(100)})
    (victim, *_) = sorted(store.root.glob("entries/kernel/*/*.entry"))
    victim.write_bytes(b"garbage")
    with pytest.warns(TracedslWarning):
        assert store.verify() == [victim]
    assert store.prune(kind="kernel") > 400
    assert [e.key.kind for e in store.entries()] == ["lm"]


def _race(root: str, seed: int) -> None:
    store, rng = Store(root), random.Random(seed)
    for _ in range(60):
        n = rng.randrange(4)
        key = Key("kernel", "shared", {"n": str(n)})
        if rng.random() < 0.5:
            store.put(key, {"blob": bytes([n]) * 5000})
        else:
            entry = store.get(key)
            assert entry is None or entry.blobs["blob"] == bytes([n]) * 5000


def test_many_processes_never_see_half_an_entry(store: Store) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_race, args=(str(store.root), seed)) for seed in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * 4


WRITER = """
import sys
from tracedsl.cache import Key, Store
store, n = Store(sys.argv[1]), 0
print("go", flush=True)
while True:
    store.put(Key("kernel", "k", {"n": str(n % 3)}), {"blob": bytes([n % 3]) * 300_000})
    n += 1
"""


def test_kill_9_leaves_whole_entries_or_none(store: Store) -> None:
    for round in range(4):
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(store.root)], stdout=subprocess.PIPE)
        assert process.stdout is not None and process.stdout.readline() == b"go\n"
        time.sleep(0.05 + 0.02 * round)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        for n in range(3):
            entry = store.get(Key("kernel", "k", {"n": str(n)}))
            assert entry is None or entry.blobs["blob"] == bytes([n]) * 300_000


def test_write_atomic_keeps_the_old_content_on_a_failing_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_a_warning(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    store.put(KEY, {"code": b"old"})
    monkeypatch.setattr(os, "fsync", full)
    with pytest.warns(TracedslWarning, match="No space left"):
        assert not store.put(KEY, {"code": b"new"})
    entry = store.get(KEY)
    assert entry is not None and entry.blobs["code"] == b"old"


def _hold(root: str, path: str) -> None:
    with Store(root).lock(KEY), open(path, "a") as file:
        file.write("in ")
        file.flush()
        time.sleep(0.05)
        file.write("out ")


def test_the_lock_serialises_processes(store: Store, tmp_path: Path) -> None:
    log = tmp_path / "log"
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_hold, args=(str(store.root), str(log))) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert log.read_text() == "in out " * 3
