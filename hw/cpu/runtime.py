"""Machine code of the runtime itself (thread pool, native entry point, memory pool): made once, kept in the store.

What holds here: a runtime module is a text of IR. Its object code is kept under kind "runtime", by the digest of the
text and of the machine; what is stored but cannot be linked is made anew. It stays loaded until the process ends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tracedsl.cache import Key, Store, digest
from tracedsl.diagnostics import TracedslError
from tracedsl.hw.cpu import jit
from tracedsl.hw.cpu.machine import Machine

_OBJECT = "object"


def load(name: str, text: str, symbols: Sequence[str], machine: Machine, store: Store, *, passes: int = 0,
         imports: Mapping[str, int] | None = None) -> jit.Loaded:
    """The code of `text`, from the store or made and put there. Raises TracedslError as `jit` does."""
    key = Key("runtime", name, {"source": digest(text), "machine": machine.fingerprint()})
    if (entry := store.get(key)) is not None:
        try:
            return _kept(jit.load(entry.blobs[_OBJECT], symbols, imports))
        except (KeyError, TracedslError):
            pass
    image = jit.compile_object(text, machine, passes=passes)
    store.put(key, {_OBJECT: image}, durable=False)
    return _kept(jit.load(image, symbols, imports))


def _kept(loaded: jit.Loaded) -> jit.Loaded:
    loaded.keep()
    return loaded
