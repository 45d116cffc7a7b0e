"""Fetch: reads the program, a chunk at a time, and deals its words out to the units' queues in order.

What holds here: a chunk is asked for only when there is room for all of it, so what comes back is always taken.
"""

from __future__ import annotations

from tracedsl.hw.fpga.config import CHUNK, WORD_BYTES, Config
from tracedsl.hw.fpga.isa import OPCODES, Alu, Finish, Gemm, Load, Store
from tracedsl.hw.fpga.rtl.memories import fifo
from tracedsl.hw.fpga.rtl.verilog import log2, module
from tracedsl.hw.fpga.rtl.words import RECORDS, from_word, unused

ROOM = 2 * CHUNK  # words


def fetch(config: Config) -> list[str]:
    """The module `fetch` and the queue in it."""
    width = 8 * WORD_BYTES - 8  # the checksum is the compiler's
    queue, queue_text = fifo(width, ROOM)
    bus, beats = 8 * config.bus_bytes, config.word_beats
    code = {kind.__name__.lower(): f"4'd{number}" for kind, number in OPCODES.items()}
    assert set(OPCODES) == {Load, Gemm, Alu, Store, Finish}
    text = module(
        "fetch", "Reads words in chunks and deals them out. `finished`: FINISH was dealt out and every word that was "
        "asked for has come. `broken`: a word with no such opcode, or no FINISH.",
        [("input", 1, "reset"), ("input", 1, "start"), ("input", 32, "program_address"),
         ("input", 16, "program_chunks"),
         ("output", 1, "offer"), ("output", 32, "address"), ("input", 1, "grant"),
         ("input", 1, "beat"), ("input", bus, "beat_data"),
         *((direction, size, f"{unit}_{name}") for unit in RECORDS for direction, size, name in (
             ("output", 1, "push"), ("output", RECORDS[unit].width, "word"), ("input", 1, "full"))),
         ("output", 1, "dealt"), ("output", 1, "finished"), ("output", 1, "broken")],
        f"""
        reg [31:0] next;
        reg [15:0] chunks;
        reg [4:0] room;  // words for which the queue has room
        reg running, ended, failed;

        assign offer = running && chunks != 16'd0 && room >= 5'd{CHUNK};
        assign address = next;
        assign finished = ended && room == 5'd{ROOM};
        assign broken = failed;

        // words out of beats
        {_assembly(bus, beats)}

        wire [{width - 1}:0] head;
        wire valid, pop;
        {queue} queue (.clk(clk), .reset(reset), .push(word_ready), .word(word[{width - 1}:0]), .pop(pop),
            .head(head), .valid(valid), .full(unused_full));
        wire unused_full;
        wire unused_bits = &{{unused_full, word[{width + 7}:{width}], {unused("head", width)}}};

        // dealing out
        wire [3:0] opcode = head[3:0];
        wire is_load = opcode == {code["load"]};
        wire is_compute = opcode == {code["gemm"]} || opcode == {code["alu"]};
        wire is_store = opcode == {code["store"]};
        wire is_finish = opcode == {code["finish"]};
        wire live = valid && running && !ended && !failed;
        assign load_push = live && is_load && !load_full;
        assign compute_push = live && is_compute && !compute_full;
        assign store_push = live && is_store && !store_full;
        assign load_word = {from_word("load", "head")};
        assign compute_word = {from_word("compute", "head")};
        assign store_word = {from_word("store", "head")};
        assign dealt = load_push || compute_push || store_push;
        wire finish = live && is_finish;
        wire strange = live && !(is_load || is_compute || is_store || is_finish);
        wire no_end = running && !ended && chunks == 16'd0 && room == 5'd{ROOM};
        assign pop = dealt || finish || (valid && ended);

        always @(posedge clk) begin
            if (reset) begin
                running <= 1'b0;
                ended <= 1'b0;
                failed <= 1'b0;
                room <= 5'd{ROOM};
                chunks <= 16'd0;
                next <= 32'd0;
            end else if (start) begin
                running <= 1'b1;
                ended <= 1'b0;
                failed <= 1'b0;
                next <= program_address;
                chunks <= program_chunks;
            end else begin
                if (grant) begin
                    next <= next + 32'd{CHUNK * WORD_BYTES // config.block};
                    chunks <= chunks - 16'd1;
                end
                if (finish) begin
                    ended <= 1'b1;
                    chunks <= 16'd0;
                end
                if (strange || no_end) failed <= 1'b1;
                room <= room - (grant ? 5'd{CHUNK} : 5'd0) + (pop ? 5'd1 : 5'd0);
            end
        end
        """)
    return [queue_text, text]


def _assembly(bus: int, beats: int) -> str:
    if beats == 1:
        return """reg [255:0] word;
        reg word_ready;
        always @(posedge clk) begin
            word <= beat_data;
            word_ready <= beat && !reset;
        end"""
    count = log2(beats)
    return f"""reg [255:0] word;
        reg [{count - 1}:0] part;
        reg word_ready;
        always @(posedge clk) begin
            if (beat) word <= {{beat_data, word[255:{bus}]}};
            word_ready <= beat && part == {count}'d{beats - 1} && !reset;
            if (reset) part <= {count}'d0;
            else if (beat) part <= part + {count}'d1;
        end"""
