"""How a process gives up everything but computing: limits, other identity, empty namespaces, a system call filter.

What holds here: standard library alone; runs in the process that is to be locked in, before any foreign code. The
filter names what is allowed and refuses the rest, so a system call that a later kernel brings is refused too.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys

NOBODY = 65534
_CLONE_NEWNS, _CLONE_NEWUTS, _CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 4, 22, 38
_SECCOMP_MODE_FILTER = 2
_KILL, _ALLOW, _REFUSE = 0x80000000, 0x7FFF0000, 0x00050000 | 1      # the last one: EPERM
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06

# Memory, time, signals to itself, random numbers, reading and writing what is open already (the pipe), ending.
# No open, no socket, no process or thread, no signal to others, no limits, no mounts, no tracing.
# name: (number on x86-64, number on AArch64), from the kernel's tables; None where it does not exist
ALLOWED: dict[str, tuple[int | None, int | None]] = {
    "read": (0, 63), "write": (1, 64), "mmap": (9, 222), "mprotect": (10, 226), "munmap": (11, 215), "brk": (12, 214),
    "mremap": (25, 216), "madvise": (28, 233), "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139), "sigaltstack": (131, 132), "sched_yield": (24, 124), "nanosleep": (35, 101),
    "clock_nanosleep": (230, 115), "clock_gettime": (228, 113), "clock_getres": (229, 114), "gettimeofday": (96, 169),
    "time": (201, None), "times": (100, 153), "getrusage": (98, 165), "setitimer": (38, 103), "getitimer": (36, 102),
    "getpid": (39, 172), "getuid": (102, 174), "geteuid": (107, 175), "getgid": (104, 176), "getegid": (108, 177),
    "gettid": (186, 178), "futex": (202, 98), "set_robust_list": (273, 99), "rseq": (334, 293),
    "membarrier": (324, 283), "restart_syscall": (219, 128), "getrandom": (318, 278), "exit": (60, 93),
    "exit_group": (231, 94),
}
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}    # column above, AUDIT_ARCH_*


def lock_in(memory: int, cpu: int) -> list[str]:
    """Lock this process in and return which walls stand: "limits", "identity", "namespaces", "syscalls".

    Args:
        memory: bytes of address space.
        cpu: seconds of processor time.
    """
    walls = []
    if _set_limits(memory, cpu):
        walls.append("limits")
    if sys.platform != "linux":
        return walls
    libc = ctypes.CDLL(None, use_errno=True)
    if _leave_namespaces(libc):
        walls.append("namespaces")
    if _drop_identity():
        walls.append("identity")
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    if _filter_syscalls(libc):
        walls.append("syscalls")
    return walls


def _set_limits(memory: int, cpu: int) -> bool:
    try:
        import resource
    except ImportError:
        return False
    limits = {"RLIMIT_AS": memory, "RLIMIT_CPU": cpu, "RLIMIT_FSIZE": 0, "RLIMIT_CORE": 0, "RLIMIT_NPROC": 0,
              "RLIMIT_NOFILE": 3, "RLIMIT_MEMLOCK": 0}
    for name, value in limits.items():
        try:
            resource.setrlimit(getattr(resource, name), (value, value))
        except (AttributeError, ValueError, OSError):
            if name in ("RLIMIT_CPU", "RLIMIT_FSIZE"):
                return False
    return True


def _leave_namespaces(libc: ctypes.CDLL) -> bool:
    """Networks, mounts and shared memory of its own, all of them empty. Not everywhere allowed; the filter refuses
    their use anyway."""
    flags = _CLONE_NEWNET | _CLONE_NEWIPC | _CLONE_NEWUTS | _CLONE_NEWNS
    return bool(libc.unshare(flags if os.geteuid() == 0 else flags | _CLONE_NEWUSER) == 0)


def _drop_identity() -> bool:
    """Become nobody, if this is root; another user has no more rights than the filter leaves."""
    if os.geteuid() != 0:
        return False
    try:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    except OSError:
        return False
    return True


def _filter_syscalls(libc: ctypes.CDLL) -> bool:
    """Refuse every system call that is not in `ALLOWED` (seccomp, mode filter); irrevocable, also for root."""
    machine = _MACHINES.get(platform.machine())
    if machine is None or sys.maxsize < 2**32 or libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return False
    column, architecture = machine
    code = [(_LOAD, 0, 0, 4), (_JUMP_IF_EQUAL, 1, 0, architecture), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, 0)]
    for numbers in ALLOWED.values():
        if (number := numbers[column]) is not None:
            code += [(_JUMP_IF_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ALLOW)]
    code.append((_RETURN, 0, 0, _REFUSE))
    instructions = b"".join(struct.pack("HBBI", *line) for line in code)
    buffer = ctypes.create_string_buffer(instructions)

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))

    program = Program(len(code), ctypes.addressof(buffer))
    return bool(libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0) == 0)
