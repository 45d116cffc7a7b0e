"""What a configuration costs, estimated at once: for searching over configurations.

What holds here: multipliers and memory blocks follow from the sizes. Look-up tables and registers are sums of terms
that the RTL has (a place of the array, a lane, a queue ...), with weights fitted to what Yosys made of some
configurations: `python -m benchmarks.fpga.hardware area` measures them, fits again, and tells the error.
"""

from __future__ import annotations

from tracedsl.hw.fpga.config import Config
from tracedsl.hw.fpga.resources import Resources, family_of
from tracedsl.hw.fpga.rtl.verilog import log2

# Shapes of a block of 18 kbit: bits of a word, words.
_SHAPES = ((36, 512), (18, 1024), (9, 2048), (4, 4096))
_LUT_RAM = 64  # no more words than this: built of look-up tables

# Weights of `terms`, for look-up tables and for registers.
WEIGHTS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "ecp5": ((2242, 16.26, 694.7, 0, 0.06676, 252.2, 1351),
             (2501, 7.978, 452.5, 16.5, 0.9178, 303.8, 19.76)),
    "xilinx": ((2089, 15.54, 445.6, 4.87, 0, 226.6, 5.706),
               (2386, 8.926, 447.2, 0, 0.9306, 211.9, 0)),
}


def estimate(config: Config, family: str = "ecp5") -> Resources:
    """Look-up tables, registers, multipliers and memory blocks of a configuration. Raises FpgaError (H060) if there is
    no such family."""
    family_of(family)
    found = terms(config)
    luts, registers = (sum(weight * term for weight, term in zip(weights, found, strict=True))
                       for weights in WEIGHTS[family])
    block, bus = config.block, config.bus_bytes
    return Resources(round(luts), round(registers), block * block + 2 * block + 2 * bus, memory_blocks(config))


def terms(config: Config) -> tuple[float, ...]:
    """What look-up tables and registers grow with: one, places of the array, lanes, lanes times stages of their sums,
    registers in the sums, lanes of the store, words of the queues."""
    block, stages, levels = config.block, config.tree_stages, log2(config.block)
    held = {stage * levels // stages for stage in range(1, stages + 1)}  # levels of the sums that have registers
    sums = block * sum((16 + level) * (block >> level) for level in held)
    return (1.0, block * block, block, block * stages, sums, config.bus_bytes, -(-config.queue_depth // 16))


def memory_blocks(config: Config) -> int:
    """Blocks of 18 kbit in the scratchpads; `acc` is there twice, since compute and store both read it."""
    banks = [(8 * config.bus_bytes, config.depth(name), config.beats(name)) for name in ("inp", "wgt", "aux")]
    banks.append((32 * config.block, config.acc_depth, 2))
    return sum(count * min(-(-width // word) * -(-depth // words) for word, words in _SHAPES)
               for width, depth, count in banks if depth > _LUT_RAM)
