"""The store unit: takes words, asks for room in memory for their rows, reads `acc`, requantises, writes.

What holds here: from reading `acc` on, data moves without stopping, into a queue that has room for all that is under
way (credits); so neither `acc` nor the lanes need to wait for the memory. Stages, after a place was read in cycle w:

    w+2          its data
    w+3          the lanes that go into this beat
    w+4          products with the multiplier, of the low and the high half
    w+5, w+6     the high one plus the rounding, plus the low one
    w+7, w+8     shifted by bytes, by bits
    w+9          clipped
"""

from __future__ import annotations

from tracedsl.hw.fpga.config import Config
from tracedsl.hw.fpga.rtl.load import PENDING, TOKENS
from tracedsl.hw.fpga.rtl.memories import fifo
from tracedsl.hw.fpga.rtl.multipliers import name_of
from tracedsl.hw.fpga.rtl.requests import BEATS
from tracedsl.hw.fpga.rtl.verilog import Record, log2, module, part_of, vector
from tracedsl.hw.fpga.rtl.words import RECORDS

READY = 32  # beats that may wait for the memory, those in the lanes included
STAGES = 9  # from reading `acc` to the clipped beat
JOB = Record({"at": 12, "rows": 12, "cols": 12, "pitch": 12, "wide": 1, "multiplier": 15, "shift": 6, "low": 8,
              "high": 8, "push": 1})
MARKS = Record({"row_last": 1, "last": 1, "push": 1})


def store(config: Config) -> list[str]:
    """The modules of the store unit, `store` the last of them."""
    queue, queue_text = fifo(RECORDS["store"].width, config.queue_depth)
    jobs, jobs_text = fifo(JOB.width, PENDING)
    bus, block = 8 * config.bus_bytes, config.block
    ready, ready_text = fifo(bus + MARKS.width, READY)
    field = {name: RECORDS["store"].of("head", name) for name in RECORDS["store"].fields}
    job = {**field, "push": field["push_prev"]}
    shifts = {wide: log2(config.beats("acc" if wide else "inp")) for wide in (False, True)}
    text = module(
        "store", "The store unit: one half asks for rows, the other makes the data ready and moves it.",
        [("input", 1, "reset"), ("input", 1, "queue_push"), ("input", RECORDS["store"].width, "queue_word"),
         ("output", 1, "queue_full"), *TOKENS,
         ("output", 1, "offer"), ("output", 32, "address"), ("output", BEATS, "beats"), ("input", 1, "grant"),
         ("output", 12, "acc_read"), ("input", 32 * block, "acc_data"),
         ("output", 1, "write_valid"), ("input", 1, "write_ready"), ("output", bus, "write_data"),
         ("output", 1, "issue"), ("output", 1, "retire")],
        f"""
        wire {vector(RECORDS["store"].width)}head;
        wire valid, busy, jobs_full, job_valid, job_pop;
        {queue} queue (.clk(clk), .reset(reset), .push(queue_push), .word(queue_word), .pop(issue),
            .head(head), .valid(valid), .full(queue_full));
        assign issue = valid && !busy && !jobs_full && (token || !{field["pop_prev"]});
        assign pop = issue && {field["pop_prev"]};

        wire [{BEATS - 1}:0] row_beats = {field["wide"]} ? {_times(field["cols"], shifts[True])}
            : {_times(field["cols"], shifts[False])};
        wire moved = write_valid && write_ready;
        wire row_done = moved && {MARKS.of("marks", "row_last")};
        requests requests (.clk(clk), .reset(reset), .take(issue), .rows({field["rows"]}), .row_beats(row_beats),
            .first_address({field["dram"]}), .row_stride({field["stride"]}), .busy(busy), .offer(offer),
            .address(address),
            .beats(beats), .grant(grant), .row_done(row_done));

        wire {vector(JOB.width)}job;
        {jobs} jobs (.clk(clk), .reset(reset), .push(issue), .word({JOB.pack(job)}), .pop(job_pop),
            .head(job), .valid(job_valid), .full(jobs_full));
        wire made;
        wire [{bus + MARKS.width - 1}:0] made_beat;
        send send (.clk(clk), .reset(reset), .job(job), .job_valid(job_valid), .job_pop(job_pop), .credit(moved),
            .acc_read(acc_read), .acc_data(acc_data), .made(made), .beat(made_beat));

        wire [{MARKS.width - 1}:0] marks;
        wire unused_full;
        {ready} waiting (.clk(clk), .reset(reset), .push(made), .word(made_beat), .pop(moved),
            .head({{write_data, marks}}), .valid(write_valid), .full(unused_full));
        reg retired, pushed;
        assign {{retire, push}} = {{retired, pushed}};
        always @(posedge clk) begin
            retired <= moved && {MARKS.of("marks", "last")} && !reset;
            pushed <= moved && {MARKS.of("marks", "last")} && {MARKS.of("marks", "push")} && !reset;
        end
        """)
    return [queue_text, jobs_text, ready_text, scale(), send(config), text]


def _times(cols: str, shift: int) -> str:
    return f"{{{part_of(cols, 0, BEATS - shift)}, {shift}'d0}}" if shift else part_of(cols, 0, BEATS)


def send(config: Config) -> str:
    """The module `send`: walks over the places of a store and turns them into beats."""
    field = {name: JOB.of("job", name) for name in JOB.fields}
    bus, lanes, block = 8 * config.bus_bytes, config.bus_bytes, config.block
    part = max(1, log2(config.beats("acc")))
    last_wide, last_narrow = config.beats("acc") - 1, config.beats("inp") - 1
    words = lanes // 4  # lanes of a wide beat
    narrow = [f"acc_data[32 * (lane + {lanes * at}) +: 32]" for at in range(config.beats("inp"))]
    chosen = _choose("narrow_part", narrow)
    wide = _choose("part_at_data", [f"acc_data[32 * (lane + {words * at}) +: 32]" for at in range(config.beats("acc"))])
    narrow_bits = log2(config.beats("inp"))
    marks = MARKS.pack({"row_last": f"row_lasts[{STAGES - 1}]", "last": f"lasts[{STAGES - 1}]", "push": "pushes"})
    return module(
        "send", "The half of the store unit that makes data ready. One beat a cycle while there is credit; the next "
        "store begins when the last beat of the one before has left the lanes.",
        [("input", 1, "reset"), ("input", JOB.width, "job"), ("input", 1, "job_valid"), ("output", 1, "job_pop"),
         ("input", 1, "credit"), ("output", 12, "acc_read"), ("input", 32 * block, "acc_data"),
         ("output", 1, "made"), ("output", bus + MARKS.width, "beat")],
        f"""
        reg active, wide, pushes;
        reg [11:0] at, row, rows, cols, col, pitch;
        reg [{part - 1}:0] part;
        reg [14:0] multiplier;
        reg [5:0] shift;
        reg [47:0] round;
        reg [7:0] low, high;
        reg [3:0] draining;
        reg [5:0] credits;
        assign job_pop = job_valid && !active && draining == 4'd0;
        assign acc_read = at;
        wire step = active && credits != 6'd0;
        wire part_end = part == (wide ? {part}'d{last_wide} : {part}'d{last_narrow});
        wire col_end = part_end && col == 12'd1;
        wire over = col_end && rows == 12'd1;
        always @(posedge clk) begin
            if (job_pop) begin
                at <= {field["at"]};
                row <= {field["at"]};
                rows <= {field["rows"]};
                {{cols, col}} <= {{{field["cols"]}, {field["cols"]}}};
                pitch <= {field["pitch"]};
                part <= {part}'d0;
                wide <= {field["wide"]};
                multiplier <= {field["wide"]} ? 15'd1 : {field["multiplier"]};
                shift <= {field["wide"]} ? 6'd0 : {field["shift"]};
                round <= {field["wide"]} || {field["shift"]} == 6'd0 ? 48'd0 : 48'd1 << ({field["shift"]} - 6'd1);
                {{low, high}} <= {{{field["low"]}, {field["high"]}}};
                pushes <= {field["push"]};
            end else if (step) begin
                part <= part_end ? {part}'d0 : part + {part}'d1;
                if (part_end) begin
                    at <= col_end ? row + pitch : at + 12'd1;
                    col <= col_end ? cols : col - 12'd1;
                end
                if (col_end) begin
                    row <= row + pitch;
                    rows <= rows - 12'd1;
                end
            end
            if (reset) begin
                active <= 1'b0;
                draining <= 4'd0;
                credits <= 6'd{READY};
            end else begin
                if (job_pop) active <= 1'b1;
                else if (step && over) active <= 1'b0;
                if (step && over) draining <= 4'd{STAGES};
                else if (draining != 4'd0) draining <= draining - 4'd1;
                if (step && !credit) credits <= credits - 6'd1;
                if (credit && !step) credits <= credits + 6'd1;
            end
        end

        // what travels along
        reg [{STAGES - 1}:0] flow, row_lasts, lasts;
        reg [{part - 1}:0] part_1, part_at_data;
        always @(posedge clk) begin
            if (reset) {{flow, row_lasts, lasts}} <= {3 * STAGES}'d0;
            else begin
                flow <= {{flow[{STAGES - 2}:0], step}};
                row_lasts <= {{row_lasts[{STAGES - 2}:0], step && col_end}};
                lasts <= {{lasts[{STAGES - 2}:0], step && over}};
            end
            part_1 <= part;
            part_at_data <= part_1;
        end
        {f"wire [{narrow_bits - 1}:0] narrow_part = part_at_data[{narrow_bits - 1}:0];" if narrow_bits else ""}
        wire [{bus - 1}:0] bytes;
        wire [{bus - 1}:0] wides;
        genvar lane;
        generate for (lane = 0; lane < {lanes}; lane = lane + 1) begin : lanes
            wire [31:0] narrow = {chosen};
            wire [31:0] raw;
            if (lane < {words}) begin : word
                scale scale (.clk(clk), .narrow(narrow), .whole({wide}), .wide(wide), .multiplier(multiplier),
                    .shift(shift), .round(round), .low(low), .high(high), .clipped(bytes[8 * lane +: 8]), .raw(raw));
                assign wides[32 * lane +: 32] = raw;
            end else begin : narrow_only
                scale scale (.clk(clk), .narrow(narrow), .whole(narrow), .wide(1'b0), .multiplier(multiplier),
                    .shift(shift), .round(round), .low(low), .high(high), .clipped(bytes[8 * lane +: 8]), .raw(raw));
                wire unused_raw = &{{raw}};
            end
        end endgenerate
        assign made = flow[{STAGES - 1}];
        assign beat = {{wide ? wides : bytes, {marks}}};
        """)


def _choose(index: str, choices: list[str]) -> str:
    """A multiplexer."""
    width = log2(len(choices))
    if not width:
        return choices[0]
    text = choices[-1]
    for at in range(len(choices) - 2, -1, -1):
        text = f"{index} == {width}'d{at} ? {choices[at]} : {text}"
    return f"({text})"


def scale() -> str:
    """The module `scale`: one lane of requantisation."""
    return module(
        "scale", "(value * multiplier + round) >> shift, clipped; the value is `whole` or `narrow`. Two products, two "
        "sums, a shift by bytes that leaves 16 bits and whether more are needed, a shift by bits. `raw`: the low 32 "
        "bits of the sum, at the same time.",
        [("input", 32, "narrow"), ("input", 32, "whole"), ("input", 1, "wide"), ("input", 15, "multiplier"),
         ("input", 6, "shift"), ("input", 48, "round"), ("input", 8, "low"), ("input", 8, "high"),
         ("output", 8, "clipped"), ("output", 32, "raw")],
        f"""
        reg from_whole;
        reg [5:0] by;
        reg signed [7:0] least, most;
        wire [31:0] value = from_whole ? whole : narrow;
        wire [15:0] factor = {{1'b0, multiplier}};
        wire [32:0] low_product;
        wire [31:0] high_product;
        {name_of(17, 16)} multiply_low (.clk(clk), .a({{1'b0, value[15:0]}}), .b(factor), .product(low_product));
        {name_of(16, 16)} multiply_high (.clk(clk), .a(value[31:16]), .b(factor), .product(high_product));
        reg [32:0] low_kept;
        reg [47:0] upper;
        reg signed [47:0] sum;
        reg [15:0] window;
        reg too_big, sign, too_big_2, sign_2;
        reg [7:0] shifted;
        reg [7:0] result;
        reg [31:0] raw_1, raw_2, raw_3;
        wire [{8 * 7 - 1}:0] long = {{{{8{{sum[47]}}}}, sum}};
        assign clipped = result;
        assign raw = raw_3;
        always @(posedge clk) begin
            from_whole <= wide;
            by <= shift;
            {{least, most}} <= {{low, high}};
            upper <= {{high_product, 16'd0}} + round;
            low_kept <= low_product;
            sum <= upper + {{{{15{{low_kept[32]}}}}, low_kept}};
            sign <= sum[47];
            raw_1 <= sum[31:0];
            case (by[5:3])
                {_windows()}
            endcase
            shifted <= window[{{1'b0, by[2:0]}} +: 8];
            too_big_2 <= too_big || (window ^ {{16{{sign}}}}) >> ({{1'b0, by[2:0]}} + 4'd7) != 16'd0;
            sign_2 <= sign;
            raw_2 <= raw_1;
            result <= clip;
            raw_3 <= raw_2;
        end
        wire signed [7:0] full = too_big_2 ? {{sign_2, {{7{{!sign_2}}}}}} : shifted;
        wire [7:0] clip = full < least ? least : full > most ? most : full;
        """)


def _windows() -> str:
    lines = []
    for at in range(6):
        above = f"long[55:{8 * at + 15}]"
        lines.append(f"{f'''3'd{at}''' if at < 5 else 'default'}: begin window <= long[{8 * at + 15}:{8 * at}]; "
                     f"too_big <= |{above} && !(&{above}); end")
    return "\n                ".join(lines)
