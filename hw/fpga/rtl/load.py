"""The load unit: takes words, asks for their rows, and writes what comes into `inp`, `wgt` and `aux`.

What holds here: data comes in the order in which it was asked for; a scratchpad is built of banks one beat wide, so a
beat is written where it belongs as it comes.
"""

from __future__ import annotations

from tracedsl.hw.fpga.config import Config
from tracedsl.hw.fpga.isa import Target
from tracedsl.hw.fpga.rtl.memories import fifo
from tracedsl.hw.fpga.rtl.requests import BEATS
from tracedsl.hw.fpga.rtl.verilog import Port, Record, join, log2, module, part_of, vector
from tracedsl.hw.fpga.rtl.words import RECORDS

PENDING = 8  # loads, or stores, that have asked for rows and not yet moved all of them
TOKENS = (("input", 1, "token"), ("output", 1, "pop"), ("output", 1, "push"))
# What the first half tells the second
JOB = Record({"target": 2, "at": 12, "rows": 12, "beats": BEATS, "before": 12, "between": 12, "after": 12, "value": 8,
              "push": 1})


def load(config: Config) -> list[str]:
    """The modules of the load unit, `load` the last of them."""
    queue, queue_text = fifo(RECORDS["load"].width, config.queue_depth)
    jobs, jobs_text = fifo(JOB.width, PENDING)
    bus = 8 * config.bus_bytes
    field = {name: RECORDS["load"].of("head", name) for name in RECORDS["load"].fields}
    job = {**field, "beats": "row_beats", "push": field["push_next"]}
    width = BEATS - log2(config.beats("inp"))
    text = module(
        "load", "The load unit: one half asks for rows, the other takes what comes.",
        [("input", 1, "reset"), ("input", 1, "queue_push"), ("input", RECORDS["load"].width, "queue_word"),
         ("output", 1, "queue_full"), *TOKENS,
         ("output", 1, "offer"), ("output", 32, "address"), ("output", BEATS, "beats"), ("input", 1, "grant"),
         ("input", 1, "beat"), ("output", 1, "ready"), ("input", bus, "beat_data"), *write_ports(config),
         ("output", 1, "issue"), ("output", 1, "retire")],
        f"""
        wire {vector(RECORDS["load"].width)}head;
        wire valid, busy, jobs_full, job_valid, job_pop, row_done;
        {queue} queue (.clk(clk), .reset(reset), .push(queue_push), .word(queue_word), .pop(issue),
            .head(head), .valid(valid), .full(queue_full));
        assign issue = valid && !busy && !jobs_full && (token || !{field["pop_next"]});
        assign pop = issue && {field["pop_next"]};
        wire unused_bits = &{{{part_of(field["cols"], width, 12 - width)}}};

        wire [{width - 1}:0] cols = {part_of(field["cols"], 0, width)};  // a row has no more
        reg [{BEATS - 1}:0] row_beats;
        always @(*) case ({field["target"]})
            {_row_beats(config)}
        endcase
        requests requests (.clk(clk), .reset(reset), .take(issue), .rows({field["rows"]}), .row_beats(row_beats),
            .first_address({field["dram"]}), .row_stride({field["stride"]}), .busy(busy), .offer(offer),
            .address(address),
            .beats(beats), .grant(grant), .row_done(row_done));

        wire {vector(JOB.width)}job;
        {jobs} jobs (.clk(clk), .reset(reset), .push(issue), .word({JOB.pack(job)}), .pop(job_pop),
            .head(job), .valid(job_valid), .full(jobs_full));
        receive receive (.clk(clk), .reset(reset), .job(job), .job_valid(job_valid), .job_pop(job_pop), .beat(beat),
            .ready(ready),
            .beat_data(beat_data), .row_done(row_done), .push(push), .retire(retire),
            {", ".join(f".{name}({name})" for _, _, name in write_ports(config))});
        """)
    return [queue_text, *([jobs_text] if jobs_text != queue_text else []), receive(config), text]


def write_ports(config: Config) -> list[Port]:
    """What the scratchpads are written through. `write_off` is `write_data`, with zeros where `diag` wants them."""
    bus = 8 * config.bus_bytes
    widths = {f"{memory}_write": config.beats(memory) for memory in ("inp", "wgt", "aux")}
    widths |= {"write_address": 12, "write_data": bus, "write_off": bus}
    return [("output", width, name) for name, width in widths.items()]


def _row_beats(config: Config) -> str:
    lines = []
    for target in Target:
        shift = log2(config.beats(target.name.lower()))
        value = f"{{cols[{BEATS - 1 - shift}:0], {shift}'d0}}" if shift else "cols"
        lines.append(f"2'd{target.value}: row_beats = {value};")
    return "\n            ".join(lines)


def receive(config: Config) -> str:
    """The module `receive`: walks over the elements of a load, those to fill and those that come."""
    field = {name: JOB.of("job", name) for name in JOB.fields}
    bus, part = 8 * config.bus_bytes, max(1, log2(config.beats("wgt")))
    last = {target: config.beats(target.name.lower()) - 1 for target in Target}
    chosen = "\n            ".join(f"2'd{target.value}: last_part = {part}'d{last[target]};" for target in Target)
    return module(
        "receive", "The half of the load unit that takes data. It fills (`filling`) or takes beats; every element "
        "goes to the next place. Writes are presented one cycle later.",
        [("input", 1, "reset"), ("input", JOB.width, "job"), ("input", 1, "job_valid"), ("output", 1, "job_pop"),
         ("input", 1, "beat"), ("output", 1, "ready"), ("input", bus, "beat_data"), ("output", 1, "row_done"),
         ("output", 1, "push"), ("output", 1, "retire"), *write_ports(config)],
        f"""
        reg active, filling, pushes;
        reg [1:0] target;
        reg [11:0] at, fill, rows, between, after;
        reg [{BEATS - 1}:0] beats, left;
        reg [{part - 1}:0] at_part, last_part;
        reg [7:0] value;

        assign job_pop = job_valid && !active;
        assign ready = active && !filling;
        wire taken = beat && ready;
        wire filled = active && filling;
        assign row_done = taken && left == {BEATS}'d1;
        wire last_fill = filled && fill == 12'd1;
        wire last_row = rows == 12'd0;  // filling: the rows have come
        wire over = (row_done && rows == 12'd1 && after == 12'd0) || (last_fill && last_row);

        always @(posedge clk) begin
            if (job_pop) begin
                filling <= {field["before"]} != 12'd0;
                fill <= {field["before"]};
                rows <= {field["rows"]};
                beats <= {field["beats"]};
                left <= {field["beats"]};
                between <= {field["between"]};
                after <= {field["after"]};
                value <= {field["value"]};
                at <= {field["at"]};
                target <= {field["target"]};
                pushes <= {field["push"]};
                at_part <= {part}'d0;
            end else begin
                if (row_done) begin
                    rows <= rows - 12'd1;
                    left <= beats;
                    fill <= rows == 12'd1 ? after : between;
                    filling <= (rows == 12'd1 ? after : between) != 12'd0;
                end else if (taken) left <= left - {BEATS}'d1;
                if (filled) fill <= fill - 12'd1;
                if (last_fill) filling <= 1'b0;
                if (taken) at_part <= at_part == last_part ? {part}'d0 : at_part + {part}'d1;
                if (filled || (taken && at_part == last_part)) at <= at + 12'd1;
            end
            if (reset || over) active <= 1'b0;
            else if (job_pop) active <= 1'b1;
        end
        always @(*) case (target)
            {chosen}
        endcase

        reg {vector(config.beats("inp"))}inp_now;
        reg {vector(config.beats("wgt"))}wgt_now;
        reg {vector(config.beats("aux"))}aux_now;
        reg [11:0] address_now;
        reg {vector(bus)}data_now, off_now;
        reg over_now, push_now;
        assign {{inp_write, wgt_write, aux_write, write_address}} = {{inp_now, wgt_now, aux_now, address_now}};
        assign {{write_data, write_off}} = {{data_now, off_now}};
        assign {{retire, push}} = {{over_now, push_now}};
        always @(posedge clk) begin
            inp_now <= {_enables(config, Target.INP, part)};
            wgt_now <= ({_enables(config, Target.WGT, part)})
                | {_diagonal(config, part)};
            aux_now <= {_enables(config, Target.AUX, part)};
            address_now <= at;
            data_now <= filling ? {{{config.bus_bytes}{{value}}}} : beat_data;
            off_now <= filling ? {{{config.bus_bytes}{{value}}}}
                : target == 2'd{Target.DIAG.value} ? {bus}'d0 : beat_data;
            over_now <= over && !reset;
            push_now <= over && pushes && !reset;
        end
        """)


def _enables(config: Config, target: Target, part: int) -> str:
    """Which banks a beat or a filled element is written to."""
    count, here = config.beats(target.name.lower()), f"target == 2'd{target.value}"
    if count == 1:
        return f"{here} && (filled || taken)"
    one = f"{count}'d1 << at_part{_cut(part, log2(count))}"
    return f"!({here}) ? {count}'d0 : filled ? {{{count}{{1'b1}}}} : taken ? {one} : {count}'d0"


def _cut(width: int, wanted: int) -> str:
    return "" if width == wanted else f"[{wanted - 1}:0]"


def _diagonal(config: Config, part: int) -> str:
    """The banks that a vector's beat of `diag` is written to: all of the rows whose lanes it brings."""
    rows, chunks = config.block, config.beats("inp")
    lanes = config.bus_bytes
    enables = [f"(target == 2'd{Target.DIAG.value} && (filled || (taken && at_part == {part}'d{row // lanes})))"
               for row in range(rows)]
    return join(f"{{{chunks}{{{enable}}}}}" for enable in enables)


