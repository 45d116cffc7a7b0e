"""Links object code of our own making without LLVM, so that a warm start needs no compiler in the process.

What holds here:
- Only what this package's code generator emits for Linux on x86-64 is understood: relocatable ELF files with a few
  kinds of relocations. Whatever else there is raises `NotLinked`, and the caller takes LLVM's linker.
- Memory is writable while it is filled and executable afterwards, never both. It is unmapped when the `Image` goes,
  but not when the interpreter ends: threads that it does not wait for may be running in it.
- Nothing outside the bytes is read whatever they say.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
import weakref
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

_PAGE = 4096
_MOST = 1 << 30                            # bytes of one image
_SECTION, _SYMBOL, _RELOCATION = struct.Struct("<IIQQQQIIQQ"), struct.Struct("<IBBHQQ"), struct.Struct("<QQq")
_NOBITS, _SYMTAB, _RELA, _REL = 8, 2, 4, 9
_WRITE, _ALLOC, _EXEC = 1, 2, 4
_64, _PC32, _PLT32, _GOTPCREL, _GOTPCRELX, _REX_GOTPCRELX = 1, 2, 4, 9, 41, 42       # R_X86_64_...
_JUMP = b"\xff\x25"                         # jmp *displacement(%rip)
_PROT_READ, _PROT_WRITE, _PROT_EXEC, _PRIVATE_ANONYMOUS = 1, 2, 4, 0x22


class NotLinked(Exception):
    """These bytes need another linker."""


@dataclass(frozen=True)
class _Section:
    flags: int
    kind: int
    offset: int
    size: int
    align: int
    link: int
    info: int


@dataclass(eq=False)
class Image:
    """Object code in memory: the addresses of the symbols that were asked for."""

    symbols: Mapping[str, int]
    base: int
    size: int
    _finalizer: Any = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._finalizer = weakref.finalize(self, _libc().munmap, self.base, self.size)
        self._finalizer.atexit = False

    def keep(self) -> None:
        """Never unmap this code."""
        self._finalizer.detach()


def link(image: bytes, symbols: Iterable[str], imports: Mapping[str, int]) -> Image:
    """Put object code into memory. `imports` are addresses by name; other names are looked for in this process.

    Raises `NotLinked` for bytes, relocations or names that are not understood here."""
    if not (sys.platform == "linux" and os.uname().machine == "x86_64"):
        raise NotLinked("not this kind of machine")
    try:
        return _Linker(image, imports).run(tuple(symbols))
    except (struct.error, IndexError, ValueError, KeyError, UnicodeDecodeError, OverflowError) as error:
        raise NotLinked(f"{type(error).__name__}: {error}") from error


class _Linker:
    """One image on its way. Sections of equal rights lie together: code, constants, data with the addresses."""

    def __init__(self, image: bytes, imports: Mapping[str, int]) -> None:
        if image[:7] != b"\x7fELF\x02\x01\x01" or struct.unpack_from("<HH", image, 16) != (1, 62):
            raise NotLinked("no relocatable file for x86-64")
        self.image, self.imports = image, imports
        table, = struct.unpack_from("<Q", image, 40)
        count, = struct.unpack_from("<H", image, 60)
        rows = [_SECTION.unpack_from(image, table + i * _SECTION.size) for i in range(count)]
        self.sections = [_Section(r[2], r[1], r[4], r[5], max(1, r[8]), r[6], r[7]) for r in rows]
        for section in self.sections:
            if section.align > _PAGE:
                raise NotLinked("a section wants more than a page's alignment")
            if section.kind != _NOBITS and section.offset + section.size > len(image):
                raise NotLinked("a section ends outside the file")
        if any(s.kind == _REL for s in self.sections):
            raise NotLinked("relocations without addends")
        self.table = [s for s in self.sections if s.kind == _SYMTAB][0]  # noqa: RUF015 - IndexError is what is caught
        self.names = self.sections[self.table.link]
        self.places: dict[int, int] = {}         # section -> offset in memory
        self.slots: dict[int, int] = {}          # symbol -> offset of the word that holds its address
        self.stubs: dict[int, int] = {}          # symbol -> offset of a jump to it

    def run(self, wanted: tuple[str, ...]) -> Image:
        relocations = list(self._relocations())
        through = dict.fromkeys(s for _, kind, s, _ in relocations
                                if kind in (_GOTPCREL, _GOTPCRELX, _REX_GOTPCRELX) or self._is_outside(kind, s))
        ends = self._lay_out([s for s in through if any(k == _PLT32 for _, k, n, _ in relocations if n == s)],
                             list(through))
        if ends[-1] > _MOST:
            raise NotLinked("implausibly large")
        base = _map(ends[-1])
        made = Image(self._addresses(base, wanted), base, ends[-1])
        memory = (ctypes.c_uint8 * ends[-1]).from_address(base)
        self._fill(memory, base, through)
        for relocation in relocations:
            self._relocate(memory, base, *relocation)
        _protect(base, 0, ends[0], _PROT_READ | _PROT_EXEC)
        _protect(base, ends[0], ends[1], _PROT_READ)
        return made

    def _relocations(self) -> Iterator[tuple[int, int, int, tuple[int, int]]]:
        """(section, kind, symbol, (offset, addend)) of all that belongs to memory."""
        for section in self.sections:
            if section.kind == _RELA and self.sections[section.info].flags & _ALLOC:
                for at in range(section.offset, section.offset + section.size, _RELOCATION.size):
                    offset, info, addend = _RELOCATION.unpack_from(self.image, at)
                    yield section.info, info & 0xFFFFFFFF, info >> 32, (offset, addend)

    def _is_outside(self, kind: int, symbol: int) -> bool:
        return kind == _PLT32 and self._symbol(symbol)[3] == 0

    def _lay_out(self, called: list[int], through: list[int]) -> tuple[int, int, int]:
        """Place sections, jumps and words; where code, constants and data end, in whole pages."""
        at, ends = 0, []
        for rights in (_EXEC, 0, _WRITE):
            for index, section in enumerate(self.sections):
                if section.flags & _ALLOC and section.flags & (_EXEC | _WRITE) == rights:
                    at = -(-at // section.align) * section.align
                    self.places[index] = at
                    at += section.size
            if rights == _EXEC:
                for symbol in called:
                    at = -(-at // 8) * 8
                    self.stubs[symbol] = at
                    at += 8
            if rights == _WRITE:
                for symbol in through:
                    at = -(-at // 8) * 8
                    self.slots[symbol] = at
                    at += 8
            at = -(-at // _PAGE) * _PAGE
            ends.append(at)
        return ends[0], ends[1], max(ends[2], _PAGE)

    def _fill(self, memory: Any, base: int, through: Iterable[int]) -> None:
        for index, place in self.places.items():
            section = self.sections[index]
            if section.kind != _NOBITS:
                memory[place:place + section.size] = self.image[section.offset:section.offset + section.size]
        for symbol, stub in self.stubs.items():
            memory[stub:stub + 6] = _JUMP + struct.pack("<i", self.slots[symbol] - stub - 6)
        for symbol in through:
            struct.pack_into("<Q", memory, self.slots[symbol], self._value(base, symbol))

    def _relocate(self, memory: Any, base: int, section: int, kind: int, symbol: int, where: tuple[int, int]) -> None:
        offset, addend = where
        at = self.places[section] + offset
        size = 8 if kind == _64 else 4
        if offset + size > self.sections[section].size:
            raise NotLinked("a relocation outside its section")
        if kind == _64:
            struct.pack_into("<q", memory, at, self._value(base, symbol) + addend)
        elif kind in (_GOTPCREL, _GOTPCRELX, _REX_GOTPCRELX):
            struct.pack_into("<i", memory, at, self.slots[symbol] + addend - at)
        elif kind in (_PC32, _PLT32):
            to = self.stubs[symbol] if symbol in self.stubs else self._value(base, symbol) - base
            struct.pack_into("<i", memory, at, to + addend - at)
        else:
            raise NotLinked(f"relocation {kind}")

    # -- symbols --------------------------------------------------------------------------------------------------

    def _symbol(self, number: int) -> tuple[int, ...]:
        return _SYMBOL.unpack_from(self.image, self.table.offset + number * _SYMBOL.size)

    def _name(self, symbol: tuple[int, ...]) -> str:
        start = self.names.offset + symbol[0]
        return self.image[start:self.image.index(b"\0", start)].decode()

    def _value(self, base: int, number: int) -> int:
        symbol = self._symbol(number)
        if symbol[3] == 0:
            name = self._name(symbol)
            address = self.imports.get(name) or _in_process(name)
            if not address:
                raise NotLinked(f"no {name!r}")
            return address
        return base + self.places[symbol[3]] + symbol[4]

    def _addresses(self, base: int, wanted: tuple[str, ...]) -> dict[str, int]:
        found = {}
        for number in range(self.table.size // _SYMBOL.size):
            symbol = self._symbol(number)
            if symbol[3] in self.places and symbol[1] >> 4 and (name := self._name(symbol)) in wanted:
                found[name] = base + self.places[symbol[3]] + symbol[4]
        return {name: found[name] for name in wanted}


@cache
def _libc() -> Any:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return libc


@cache
def _libm() -> Any:
    return ctypes.CDLL("libm.so.6")


def _in_process(name: str) -> int:
    for library in (_libc, _libm):
        try:
            return ctypes.cast(getattr(library(), name), ctypes.c_void_p).value or 0
        except (AttributeError, OSError):
            continue
    return 0


def _map(size: int) -> int:
    base = _libc().mmap(None, size, _PROT_READ | _PROT_WRITE, _PRIVATE_ANONYMOUS, -1, 0)
    if base is None or base == ctypes.c_void_p(-1).value:
        raise NotLinked("no memory for the code")
    return int(base)


def _protect(base: int, begin: int, end: int, rights: int) -> None:
    if end > begin and _libc().mprotect(base + begin, end - begin, rights):
        raise NotLinked("the system lets no new code run")
