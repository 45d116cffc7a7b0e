"""The OpenCL device of this machine: found once, asked for what schedules need.

What holds here: nothing is loaded before it is needed. A driver that is known to be broken is refused.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

from tracedsl.cache import Store
from tracedsl.diagnostics import TracedslError

_BINDING = ("pyopencl", "pip install 'tracedsl[opencl]'")
_DRIVER = ("an OpenCL driver", "apt install pocl-opencl-icd")
_BROKEN = "pocl-binary-distribution"     # its compiler aborts on fma(float16) and leaves a damaged cache behind


@dataclass(frozen=True)
class Device:
    """What was found. `handle` is pyopencl's device; `options` are what programs are built with."""

    name: str
    version: str
    is_cpu: bool
    units: int
    options: tuple[str, ...]
    handle: Any


def missing() -> tuple[tuple[str, str], ...]:
    """What this machine lacks, each with the line that installs it."""
    if find_spec("pyopencl") is None:
        return (_BINDING,)
    return () if _handles() else (_DRIVER,)


@cache
def device() -> Device:
    """The device that is used: a GPU if there is one, else a CPU. `TRACEDSL_OPENCL_DEVICE` names another one by a part
    of its name. Raises TracedslError (H070) if there is none, H072 if its driver is one that is known to be broken."""
    if lacking := missing():
        raise TracedslError("H070", f"the target 'opencl' needs {lacking[0][0]}", hint=lacking[0][1])
    wanted = os.environ.get("TRACEDSL_OPENCL_DEVICE", "")
    found = [d for d in _handles() if wanted.lower() in d.name.lower()]
    if not found:
        names = ", ".join(d.name.strip() for d in _handles())
        raise TracedslError("H070", f"there is no OpenCL device with {wanted!r} in its name", why=f"there is {names}",
                            hint="change TRACEDSL_OPENCL_DEVICE")
    import pyopencl as cl

    best = max(found, key=lambda d: bool(d.type & cl.device_type.GPU))
    _refuse_broken(best)
    if not best.double_fp_config:
        raise TracedslError("H072", f"the OpenCL device {best.name.strip()} has no float64",
                            hint="choose another one by TRACEDSL_OPENCL_DEVICE")
    exact = best.single_fp_config & cl.device_fp_config.CORRECTLY_ROUNDED_DIVIDE_SQRT
    return Device(best.name.strip(), f"{best.platform.version} {best.driver_version}",
                  bool(best.type & cl.device_type.CPU), best.max_compute_units,
                  ("-cl-fp32-correctly-rounded-divide-sqrt",) if exact else (), best)


def _refuse_broken(handle: Any) -> None:
    try:
        number = version(_BROKEN)
    except PackageNotFoundError:
        return
    if "Portable Computing Language" in handle.platform.name:
        raise TracedslError("H072", f"the OpenCL driver of the package {_BROKEN} {number} cannot be used",
                            why="its compiler aborts on fused multiply-add of vectors and damages its own cache",
                            hint=f"pip uninstall {_BROKEN}; apt install pocl-opencl-icd")


@cache
def _handles() -> tuple[Any, ...]:
    os.environ.setdefault("POCL_CACHE_DIR", str(Store().root / "pocl"))      # read once, when the driver is loaded
    import pyopencl as cl

    try:
        return tuple(d for platform in cl.get_platforms() for d in platform.get_devices())
    except cl.Error:      # no driver is registered
        return ()
