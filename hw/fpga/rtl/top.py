"""The whole accelerator: units, tokens, scratchpads, and the port to the memory.

What holds here: every request that goes out was chosen in the cycle before, fetch before store before load. Data comes
and goes in the order of the requests, reads and writes alike.
"""

from __future__ import annotations

from tracedsl.hw.fpga.config import Config
from tracedsl.hw.fpga.rtl.compute import compute
from tracedsl.hw.fpga.rtl.fetch import fetch
from tracedsl.hw.fpga.rtl.load import load
from tracedsl.hw.fpga.rtl.memories import ram
from tracedsl.hw.fpga.rtl.requests import BEATS, requests
from tracedsl.hw.fpga.rtl.store import store
from tracedsl.hw.fpga.rtl.verilog import Port, join, log2, module, part_of
from tracedsl.hw.fpga.rtl.words import RECORDS

TOP = "accelerator"
CHANNELS = ("load_compute", "compute_load", "compute_store", "store_compute")


def write(config: Config) -> dict[str, str]:
    """The accelerator's modules by name, a file `<name>.v` each; the first one, `accelerator`, holds the others."""
    texts = [_top(config), *fetch(config), requests(config), *load(config), *compute(config), *store(config), _tokens(),
             *_scratchpad_texts(config)]
    return {text.partition("\nmodule ")[2].partition(" ")[0]: text for text in texts}


def text(config: Config) -> str:
    """All modules in one text, under a line that tells the configuration."""
    return f"// {config.text()}\n\n" + "\n".join(write(config).values())


def ports(config: Config) -> list[Port]:
    """The ports of the accelerator beside its clock."""
    bus = 8 * config.bus_bytes
    return [("input", 1, "reset"), ("input", 1, "start"), ("input", 32, "program_address"),
            ("input", 16, "program_chunks"), ("output", 1, "done"), ("output", 1, "error"),
            ("output", 1, "request_valid"), ("input", 1, "request_ready"), ("output", 1, "request_write"),
            ("output", 1, "request_fetch"), ("output", 32, "request_address"), ("output", BEATS, "request_beats"),
            ("input", 1, "read_valid"), ("output", 1, "read_ready"), ("input", 1, "read_fetch"),
            ("input", bus, "read_data"),
            ("output", 1, "write_valid"), ("input", 1, "write_ready"), ("output", bus, "write_data"),
            ("output", 3, "issue"), ("output", 3, "retire")]


def _tokens() -> str:
    return module(
        "tokens", "Tokens from one unit to its neighbour.",
        [("input", 1, "reset"), ("input", 1, "give"), ("input", 1, "take"), ("output", 1, "any")],
        """
        reg [7:0] count;
        reg some;  // count is not 0
        assign any = some;
        always @(posedge clk) begin
            some <= !reset && (give || (some && !(take && count == 8'd1)));
            if (reset) count <= 8'd0;
            else if (give && !take) count <= count + 8'd1;
            else if (take && !give) count <= count - 8'd1;
        end
        """)


def _scratchpad_texts(config: Config) -> list[str]:
    bus = 8 * config.bus_bytes
    return [*(ram(bus, config.depth(name))[1] for name in ("inp", "wgt", "aux")),
            ram(32 * config.block, config.acc_depth)[1]]


def _top(config: Config) -> str:
    bus = 8 * config.bus_bytes
    words = "\n        ".join(
        f"wire {unit}_push, {unit}_full; wire [{record.width - 1}:0] {unit}_word;" for unit, record in RECORDS.items())
    fetch_ports = ", ".join(f".{unit}_{name}({unit}_{name})" for unit in RECORDS for name in ("push", "word", "full"))
    tokens = "\n        ".join(
        f"""wire give_{channel}, take_{channel}, any_{channel};
        tokens {channel} (.clk(clk), .reset(reset), .give(give_{channel}), .take(take_{channel}),
            .any(any_{channel}));"""
        for channel in CHANNELS)
    return module(
        TOP, "The accelerator. After `start` it runs the program at `program_address`, so many chunks long, until "
        "`done`; `error`: the program is damaged. `issue` and `retire` pulse when load, compute, store (bits 0, 1, 2) "
        "take a word and when it is done.",
        ports(config),
        f"""
        {words}
        wire fetch_offer, load_offer, store_offer, fetch_grant, load_grant, store_grant, dealt, finished, broken;
        wire [31:0] fetch_address, load_address, store_address;
        wire [{BEATS - 1}:0] load_beats, store_beats;
        wire load_ready;
        fetch fetch (.clk(clk), .reset(reset), .start(start), .program_address(program_address),
            .program_chunks(program_chunks),
            .offer(fetch_offer), .address(fetch_address), .grant(fetch_grant), .beat(read_valid && read_fetch),
            .beat_data(read_data), {fetch_ports}, .dealt(dealt), .finished(finished), .broken(broken));

        {tokens}

        wire [{config.beats("inp") - 1}:0] inp_write;
        wire [{config.beats("wgt") - 1}:0] wgt_write;
        wire [{config.beats("aux") - 1}:0] aux_write;
        wire [11:0] scratch_at;
        wire [{bus - 1}:0] scratch_data, scratch_off;
        load load (.clk(clk), .reset(reset), .queue_push(load_push), .queue_word(load_word), .queue_full(load_full),
            .token(any_compute_load), .pop(take_compute_load), .push(give_load_compute), .offer(load_offer),
            .address(load_address),
            .beats(load_beats), .grant(load_grant), .beat(read_valid && !read_fetch), .ready(load_ready),
            .beat_data(read_data),
            .inp_write(inp_write), .wgt_write(wgt_write), .aux_write(aux_write), .write_address(scratch_at),
            .write_data(scratch_data), .write_off(scratch_off), .issue(issue[0]), .retire(retire[0]));

        wire [11:0] inp_read, wgt_read, aux_read, acc_read, acc_at, acc_store_read;
        wire [{8 * config.element_bytes("inp") - 1}:0] inp_data;
        wire [{8 * config.element_bytes("wgt") - 1}:0] wgt_data;
        wire [{8 * config.element_bytes("aux") - 1}:0] aux_data, acc_data, acc_store_data, acc_result;
        wire acc_write;
        compute compute (.clk(clk), .reset(reset), .queue_push(compute_push), .queue_word(compute_word),
            .queue_full(compute_full),
            .token_prev(any_load_compute), .token_next(any_store_compute), .pop_prev(take_load_compute),
            .pop_next(take_store_compute), .push_prev(give_compute_load), .push_next(give_compute_store),
            .inp_read(inp_read), .inp_data(inp_data), .wgt_read(wgt_read), .wgt_data(wgt_data), .aux_read(aux_read),
            .aux_data(aux_data), .acc_read(acc_read), .acc_data(acc_data), .acc_write(acc_write), .acc_at(acc_at),
            .acc_result(acc_result), .issue(issue[1]), .retire(retire[1]));

        store store (.clk(clk), .reset(reset), .queue_push(store_push), .queue_word(store_word),
            .queue_full(store_full),
            .token(any_compute_store), .pop(take_compute_store), .push(give_store_compute), .offer(store_offer),
            .address(store_address), .beats(store_beats), .grant(store_grant), .acc_read(acc_store_read),
            .acc_data(acc_store_data), .write_valid(write_valid), .write_ready(write_ready), .write_data(write_data),
            .issue(issue[2]), .retire(retire[2]));

        {_scratchpads(config)}

        // the port to the memory
        reg request_now, request_is_write, request_is_fetch;
        reg [31:0] request_at;
        reg [{BEATS - 1}:0] request_length;
        assign {{request_valid, request_write, request_fetch}} = {{request_now, request_is_write, request_is_fetch}};
        assign {{request_address, request_beats}} = {{request_at, request_length}};
        assign read_ready = read_fetch || load_ready;
        wire free = !request_now || request_ready;
        assign fetch_grant = free && fetch_offer;
        assign store_grant = free && store_offer && !fetch_offer;
        assign load_grant = free && load_offer && !fetch_offer && !store_offer;
        always @(posedge clk) begin
            if (reset) request_now <= 1'b0;
            else if (free) request_now <= fetch_offer || store_offer || load_offer;
            if (free) begin
                request_is_write <= store_grant;
                request_is_fetch <= fetch_grant;
                request_at <= fetch_offer ? fetch_address : store_offer ? store_address : load_address;
                request_length <= fetch_offer ? {BEATS}'d{8 * config.word_beats}
                    : store_offer ? store_beats : load_beats;
            end
        end

        // the end
        reg [9:0] pending;  // dealt out and not done
        reg over;
        assign done = over || broken;
        assign error = broken;
        wire [1:0] retired = {{1'b0, retire[0]}} + {{1'b0, retire[1]}} + {{1'b0, retire[2]}};
        always @(posedge clk) begin
            if (reset) begin
                pending <= 10'd0;
                over <= 1'b0;
            end else begin
                pending <= pending + {{9'd0, dealt}} - {{8'd0, retired}};
                over <= !start && finished && pending == 10'd0;
            end
        end
        """)


def _scratchpads(config: Config) -> str:
    bus, lines = 8 * config.bus_bytes, []
    unread = []
    for memory in ("inp", "wgt", "aux"):
        depth = config.depth(memory)
        name, index = ram(bus, depth)[0], f"[{log2(depth) - 1}:0]"
        for bank in range(config.beats(memory)):
            enable = f"{memory}_write[{bank}]" if config.beats(memory) > 1 else f"{memory}_write"
            data = _tile_data(config, bank) if memory == "wgt" else "scratch_data"
            lines.append(f"{name} {memory}_{bank} (.clk(clk), .write({enable}), .write_address(scratch_at{index}), "
                         f".write_data({data}), .read_address({memory}_read{index}), "
                         f".data({memory}_data[{bus * bank + bus - 1}:{bus * bank}]));")
        unread += [(f"{memory}_read", depth)]
    name, index = ram(32 * config.block, config.acc_depth)[0], f"[{log2(config.acc_depth) - 1}:0]"
    for reader, address, data in (("compute", "acc_read", "acc_data"), ("store", "acc_store_read", "acc_store_data")):
        lines.append(f"{name} acc_for_{reader} (.clk(clk), .write(acc_write), .write_address(acc_at{index}), "
                     f".write_data(acc_result), .read_address({address}{index}), .data({data}));")
    unread += [(address, config.acc_depth) for address in ("acc_read", "acc_store_read", "acc_at")]
    unread.append(("scratch_at", max(config.inp_depth, config.wgt_depth, config.aux_depth)))
    parts = [part_of(address, log2(depth), 12 - log2(depth)) for address, depth in unread if depth < 4096]
    lines.append(f"wire unused_bits = &{{{', '.join(['1b1', *parts])}}};".replace("1b1", "1'b1"))
    return "\n        ".join(lines)


def _tile_data(config: Config, bank: int) -> str:
    """The data of a bank of `wgt`: as it comes but for the bytes off the diagonal, which `diag` makes zero. The bank
    holds lanes `chunk * bus_bytes` on of row `row`."""
    lanes = config.bus_bytes
    row, chunk = divmod(bank, config.beats("inp"))
    kept = row % lanes if row // lanes == chunk else -1
    parts = [part_of("scratch_data" if lane == kept else "scratch_off", 8 * lane, 8) for lane in range(lanes)]
    return join(parts) if kept >= 0 else "scratch_off"
