"""The compute unit: a loop engine in front of one pipeline that the array (GEMM) and the lanes (ALU) share.

What holds here: a step enters the pipeline in cycle e. With t = `tree_stages`:

    e            addresses stand at `inp` and `wgt`
    e+2          their data; from here ALU's operand (inp or imm) is delayed
    e+3, e+4     factors, products
    e+1+t        the address stands at `aux`
    e+2+t = k    that of the element stands at `acc`; in k-1 that of ALU's operand acc
    k+1          data of `aux`; whatever does not come from `acc` or the array is chosen
    k+2          data of `acc`, sums of B products
    k+3          both operands, chosen
    k+4          their sum or difference, their product, the operand shifted by whole bytes
    k+5          the result, at `acc`'s write port; tokens are given

so what k+5 writes can be read from k+6 on: six cycles after the step's own read (`config.REUSE`).
"""

from __future__ import annotations

from tracedsl.hw.fpga.config import RESULT, REUSE, Config
from tracedsl.hw.fpga.isa import Op, Operand, Start
from tracedsl.hw.fpga.rtl.lanes import CHOICE, lanes
from tracedsl.hw.fpga.rtl.memories import fifo
from tracedsl.hw.fpga.rtl.verilog import module, part_of, vector
from tracedsl.hw.fpga.rtl.words import RECORDS

WALKS = ("acc", "inp", "wgt", "aux")


def compute(config: Config) -> list[str]:
    """The modules of the compute unit, `compute` the last of them."""
    queue, queue_text = fifo(RECORDS["compute"].width, config.queue_depth)
    field = {name: RECORDS["compute"].of("head", name) for name in RECORDS["compute"].fields}
    engine_ports = ", ".join(f".{name}_address({name}_address)" for name in WALKS)
    text = module(
        "compute", "The compute unit: takes words, walks over their loops, sends steps down the pipeline.",
        [("input", 1, "reset"), ("input", 1, "queue_push"), ("input", RECORDS["compute"].width, "queue_word"),
         ("output", 1, "queue_full"),
         *(("input", 1, f"token_{side}") for side in ("prev", "next")),
         *(("output", 1, f"{verb}_{side}") for verb in ("pop", "push") for side in ("prev", "next")),
         *_memory_ports(config), ("output", 1, "issue"), ("output", 1, "retire")],
        f"""
        wire {vector(RECORDS["compute"].width)}head;
        wire valid, idle, step, first, last;
        wire [11:0] {", ".join(f"{name}_address" for name in WALKS)};
        {queue} queue (.clk(clk), .reset(reset), .push(queue_push), .word(queue_word), .pop(issue),
            .head(head), .valid(valid), .full(queue_full));
        assign issue = valid && idle && (token_prev || !{field["pop_prev"]}) && (token_next || !{field["pop_next"]});
        assign pop_prev = issue && {field["pop_prev"]};
        assign pop_next = issue && {field["pop_next"]};

        wire operand_now;
        loops loops (.clk(clk), .reset(reset), .take(issue), .word(head), .idle(idle), .step(step), .first(first),
            .last(last),
            .soon(operand_now), {engine_ports});

        // what the word says, for as long as it walks
        reg alu, once, give_prev, give_next;
        reg [1:0] start;
        reg [2:0] op;
        reg [31:0] immediate;
        always @(posedge clk) if (issue) begin
            alu <= {field["alu"]};
            once <= {field["once"]};
            start <= {field["start"]};
            op <= {field["op"]};
            give_prev <= {field["push_prev"]};
            give_next <= {field["push_next"]};
            immediate <= {_immediate()};
        end
        {_pipeline_text()}
        """)
    return [queue_text, *loops(), *lanes(config), pipeline(config), text]


def _immediate() -> str:
    """The 32 bits of the word where `imm` stands: `wgt` and what follows it."""
    return part_of(RECORDS["compute"].of("head", "wgt"), 0, 32)


def _pipeline_text() -> str:
    gemm = "!alu"
    values = {
        "gemm": gemm,
        "from_acc": f"alu || start == 2'd{Start.ACC.value} || (once && !first)",
        "from_aux": f"!alu && start == 2'd{Start.AUX.value} && !(once && !first)",
        "operand": "start",
        "op": f"!alu ? 3'd{Op.ADD.value} : once && first ? 3'd{Op.MOV.value} : op",
    }
    return f"""
        wire [{CHOICE.width - 1}:0] what = {CHOICE.pack(values)};
        wire at_operand = operand_now && alu && start == 2'd{Operand.ACC.value};
        pipeline pipeline (.clk(clk), .reset(reset), .step(step), .what(what), .over(step && last),
            .give({{step && last && give_next, step && last && give_prev}}), .given({{push_next, push_prev}}),
            .retire(retire),
            .immediate(immediate), .is_immediate(alu && start == 2'd{Operand.IMM.value}),
            .acc_address(at_operand ? wgt_address : acc_address), .aux_address(aux_address),
            .inp_address(inp_address), .wgt_address(wgt_address),
            .inp_read(inp_read), .inp_data(inp_data), .wgt_read(wgt_read), .wgt_data(wgt_data),
            .aux_read(aux_read), .aux_data(aux_data), .acc_read(acc_read), .acc_data(acc_data),
            .acc_write(acc_write), .acc_at(acc_at), .acc_result(acc_result));"""


def _memory_ports(config: Config) -> list[tuple[str, int, str]]:
    block = config.block
    reads = [(("output", 12, f"{name}_read"), ("input", 8 * config.element_bytes(name), f"{name}_data"))
             for name in ("inp", "wgt", "aux", "acc")]
    return [*(port for pair in reads for port in pair), ("output", 1, "acc_write"), ("output", 12, "acc_at"),
            ("output", 32 * block, "acc_result")]


def loops() -> list[str]:
    """The modules `walk` and `loops`: three counters, and for each walk the element of this step."""
    field = {name: RECORDS["compute"].of("word", name) for name in RECORDS["compute"].fields}
    walks = "\n        ".join(
        f"""walk {name}_walk (.clk(clk), .take(take), .base({field[name]}), .stride0({field[f"{name}_stride0"]}),
            .stride1({field[f"{name}_stride1"]}), .stride2({field[f"{name}_stride2"]}), .step(step), .end1(end1),
            .end2(end2),
            .place({name}_address));""" for name in WALKS)
    walker = module(
        "walk", "One walk: the inner loop adds its stride, an end of it goes back and adds that of the loop around it. "
        "All three sums are made, then one is taken.",
        [("input", 1, "take"), *(("input", 12, name) for name in ("base", "stride0", "stride1", "stride2")),
         ("input", 1, "step"), ("input", 1, "end1"), ("input", 1, "end2"), ("output", 12, "place")],
        """
        reg [11:0] here, row, plane, add0, add1, add2;
        assign place = here;
        wire [11:0] next_here = here + add2;
        wire [11:0] next_row = row + add1;
        wire [11:0] next_plane = plane + add0;
        wire [11:0] back = end1 ? next_plane : next_row;
        always @(posedge clk) begin
            if (take) begin
                {here, row, plane} <= {base, base, base};
                {add0, add1, add2} <= {stride0, stride1, stride2};
            end else if (step) begin
                here <= end2 ? back : next_here;
                if (end2) row <= back;
                if (end2 && end1) plane <= next_plane;
            end
        end
        """)
    levels = range(3)
    reload = "\n                ".join(
        f"""left{level} <= {field[f"count{level}"]};
                count{level} <= {field[f"count{level}"]};
                end{level} <= {field[f"count{level}"]} == 12'd1;
                one{level} <= {field[f"count{level}"]} == 12'd1;""" for level in levels)
    advance = "\n                ".join(
        f"""if ({" && ".join(["step", *(f"end{inner}" for inner in levels if inner > level)])}) begin
                    left{level} <= end{level} ? count{level} : left{level} - 12'd1;
                    end{level} <= end{level} ? one{level} : left{level} == 12'd2;
                end""" for level in levels)
    unread = ("pop_prev", "pop_next", "push_prev", "push_next", "start", "once", "op", "alu")
    text = module(
        "loops", "The loop engine. A step stands in the last of the `interval` cycles that it takes; `soon`: the cycle "
        "before it. After the last step it rests until what it wrote can be read.",
        [("input", 1, "reset"), ("input", 1, "take"), ("input", RECORDS["compute"].width, "word"),
         ("output", 1, "idle"),
         ("output", 1, "step"), ("output", 1, "first"), ("output", 1, "last"), ("output", 1, "soon"),
         *(("output", 12, f"{name}_address") for name in WALKS)],
        f"""
        reg active, leading;
        reg [2:0] wait_left, wait_all, rest;
        {" ".join(f"reg [11:0] left{level}, count{level}; reg end{level}, one{level};" for level in levels)}
        assign idle = !active && rest == 3'd0;
        assign step = active && wait_left == 3'd0;
        assign soon = active && wait_left == 3'd1;
        assign first = leading;
        assign last = end0 && end1 && end2;
        wire unused_bits = &{{{", ".join(field[name] for name in unread)}}};
        {walks}
        always @(posedge clk) begin
            if (take) begin
                {reload}
                wait_left <= {field["interval"]} - 3'd1;
                wait_all <= {field["interval"]} - 3'd1;
                leading <= 1'b1;
            end else if (active) begin
                wait_left <= step ? wait_all : wait_left - 3'd1;
                if (step && end1 && end2) leading <= 1'b0;
                {advance}
            end
            if (reset) begin
                active <= 1'b0;
                rest <= 3'd0;
            end else begin
                if (take) active <= 1'b1;
                else if (step && last) active <= 1'b0;
                if (step && last) rest <= 3'd{REUSE - 2};
                else if (rest != 3'd0) rest <= rest - 3'd1;
            end
        end
        """)
    return [walker, text]


def pipeline(config: Config) -> str:
    """The module `pipeline`; the stages are those of this file's first lines."""
    block, tree = config.block, config.tree_stages
    early = tree + 2  # cycles from e to k
    late = early + RESULT  # from e to the result
    wide, narrow = 32 * block, 8 * block
    return module(
        "pipeline", "Scratchpads, array, operands, lanes, result.",
        [("input", 1, "reset"), ("input", 1, "step"), ("input", CHOICE.width, "what"), ("input", 1, "over"),
         ("input", 2, "give"), ("output", 2, "given"), ("output", 1, "retire"), ("input", 32, "immediate"),
         ("input", 1, "is_immediate"), *(("input", 12, f"{name}_address") for name in WALKS), *_memory_ports(config)],
        f"""
        // e: what travels along; one bit of `flow` a stage
        reg [{late - 1}:0] flow, overs, gives_prev, gives_next;
        always @(posedge clk) begin
            if (reset) {{flow, overs, gives_prev, gives_next}} <= {4 * late}'d0;
            else begin
                flow <= {{flow[{late - 2}:0], step}};
                overs <= {{overs[{late - 2}:0], over}};
                gives_prev <= {{gives_prev[{late - 2}:0], give[0]}};
                gives_next <= {{gives_next[{late - 2}:0], give[1]}};
            end
        end
        assign given = {{gives_next[{late - 1}], gives_prev[{late - 1}]}};
        assign retire = overs[{late - 1}];
        {_delay("acc_read", "acc_address", 12, early)}
        {_delay("aux_read", "aux_address", 12, early - 1)}
        assign inp_read = inp_address;
        assign wgt_read = wgt_address;

        // e+2: the operand of ALU that comes from `inp` or the word
        reg [1:0] immediates;
        always @(posedge clk) immediates <= {{immediates[0], is_immediate}};
        wire [{narrow - 1}:0] outer = immediates[1] ? {_widened("immediate", narrow)} : inp_data;
        wire [{narrow - 1}:0] outer_soon;
        {_delay("outer_soon", "outer", narrow, early - 1)}

        // e+3 to e+4+t: the array
        wire [{wide - 1}:0] sums;
        genvar i;
        generate for (i = 0; i < {block}; i = i + 1) begin : rows
            lane lane (.clk(clk), .factors(inp_data), .weights(wgt_data[{narrow} * i +: {narrow}]),
                .sum(sums[32 * i +: 32]));
        end endgenerate

        // k to k+5: the lanes
        wire [{CHOICE.width - 1}:0] choice;
        {_delay("choice", "what", CHOICE.width, early)}
        generate for (i = 0; i < {block}; i = i + 1) begin : lanes
            alu alu (.clk(clk), .choice(choice), .word(outer_soon[31:0]), .narrow(outer_soon[8 * i +: 8]),
                .aux(aux_data[32 * i +: 32]), .acc(acc_data[32 * i +: 32]), .sum(sums[32 * i +: 32]),
                .result(acc_result[32 * i +: 32]));
        end endgenerate

        // k+5: the result
        {_delay("acc_at", "acc_read", 12, RESULT)}
        assign acc_write = flow[{late - 1}];
        """)


def _delay(name: str, value: str, width: int, cycles: int) -> str:
    """A chain of registers from `value` to the wire or output `name`."""
    stages = "\n        ".join(
        f"{name}_{cycle} <= {value if cycle == 1 else f'{name}_{cycle - 1}'};" for cycle in range(1, cycles + 1))
    return f"""reg [{width - 1}:0] {", ".join(f"{name}_{cycle}" for cycle in range(1, cycles + 1))};
        assign {name} = {name}_{cycles};
        always @(posedge clk) begin
        {stages}
        end"""


def _widened(name: str, width: int) -> str:
    return name if width == 32 else f"{{{width - 32}'d0, {name}}}"
