"""Memories: scratchpads with a registered output, and queues.

What holds here: a scratchpad answers two cycles after its address; an element is never read in the cycle in which it is
written (the instruction set forbids it), so no bypass is built.
"""

from __future__ import annotations

from tracedsl.hw.fpga.rtl.verilog import bits, log2, module, vector


def ram(width: int, depth: int) -> tuple[str, str]:
    """Name and text of a memory with one port to write and one to read."""
    name, address = f"ram_{width}x{depth}", log2(depth)
    return name, module(
        name, "A block memory: the word at `read_address` stands in `data` two cycles later.",
        [("input", 1, "write"), ("input", address, "write_address"), ("input", width, "write_data"),
         ("input", address, "read_address"), ("output", width, "data")],
        f"""
        (* no_rw_check *) reg {vector(width)}cells [0:{depth - 1}];
        reg {vector(width)}found, held;
        assign data = held;
        always @(posedge clk) begin
            if (write) cells[write_address] <= write_data;
            found <= cells[read_address];
            held <= found;
        end
        """)


SEEN = 2  # cycles from a push into an empty queue until its word can be taken


def fifo(width: int, depth: int) -> tuple[str, str]:
    """Name and text of a queue whose oldest word can be seen before it is taken."""
    name, index, count = f"fifo_{width}x{depth}", log2(depth), bits(depth)
    return name, module(
        name, "A queue: `head` is the oldest word if `valid`. It stands in registers of its own, so that what looks at "
        "it does not wait for a memory; what is pushed can be seen two cycles later.",
        [("input", 1, "reset"), ("input", 1, "push"), ("input", width, "word"), ("input", 1, "pop"),
         ("output", width, "head"), ("output", 1, "valid"), ("output", 1, "full")],
        f"""
        reg {vector(width)}cells [0:{depth - 1}];
        reg {vector(width)}oldest;
        reg {vector(index)}first, last;
        reg {vector(count)}count;  // in `cells`
        reg shown;
        wire move = count != {count}'d0 && (!shown || pop);
        assign head = oldest;
        assign valid = shown;
        assign full = count == {count}'d{depth} || (count == {count}'d{depth - 1} && shown);
        always @(posedge clk) begin
            if (push) cells[last] <= word;
            if (move) oldest <= cells[first];
            if (reset) begin
                first <= {index}'d0;
                last <= {index}'d0;
                count <= {count}'d0;
                shown <= 1'b0;
            end else begin
                shown <= move || (shown && !pop);
                if (push) last <= last + {index}'d1;
                if (move) first <= first + {index}'d1;
                if (push && !move) count <= count + {count}'d1;
                if (move && !push) count <= count - {count}'d1;
            end
        end
        """)
