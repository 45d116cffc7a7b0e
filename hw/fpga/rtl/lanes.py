"""The lanes: a row of the array, and what comes behind it.

What holds here: both take a step a cycle and know nothing of steps; when their operands stand is `pipeline`'s business.
"""

from __future__ import annotations

from tracedsl.hw.fpga.config import Config
from tracedsl.hw.fpga.isa import Op, Operand
from tracedsl.hw.fpga.rtl.multipliers import WIDTHS, multiply, name_of
from tracedsl.hw.fpga.rtl.verilog import Record, log2, module

# How a lane gets its operands, and what it does with them
CHOICE = Record({"gemm": 1, "from_acc": 1, "from_aux": 1, "operand": 2, "op": 3})


def lanes(config: Config) -> list[str]:
    """The multipliers, and the modules `lane`, one row of the array, and `alu`, one lane of what comes behind it."""
    block, levels, stages = config.block, log2(config.block), config.tree_stages
    tree, parts = [], [f"products[{16 * at} +: 16]" for at in range(block)]
    width = 16
    for stage in range(1, stages + 1):
        for level in range((stage - 1) * levels // stages, stage * levels // stages):
            held = level + 1 == stage * levels // stages
            sums = []
            for at in range(0, len(parts), 2):
                name = f"sum{level}_{at // 2}"
                a, b = (f"{{{_sign(part, width)}, {part}}}" for part in parts[at:at + 2])
                tree.append(f"{'reg' if held else 'wire'} [{width}:0] {name}{';' if held else f' = {a} + {b};'}")
                if held:
                    tree.append(f"always @(posedge clk) {name} <= {a} + {b};")
                sums.append(name)
            parts, width = sums, width + 1
    row = module(
        "lane", "A row of the array: B products of int8 and their sum.",
        [("input", 8 * block, "factors"), ("input", 8 * block, "weights"), ("output", 32, "sum")],
        f"""
        wire [{16 * block - 1}:0] products;
        genvar j;
        generate for (j = 0; j < {block}; j = j + 1) begin : places
            {name_of(8, 8)} multiply (.clk(clk), .a(factors[8 * j +: 8]), .b(weights[8 * j +: 8]),
                .product(products[16 * j +: 16]));
        end endgenerate
        """ + "\n        ".join(tree) + f"""
        assign sum = {{{{{32 - width}{{{_sign(parts[0], width)}}}}}, {parts[0]}}};
        """)
    return [*(multiply(a, b) for a, b in WIDTHS), row, _alu()]


def _sign(part: str, width: int) -> str:
    """The top bit of a part that is `width` bits wide."""
    if part.startswith("products["):
        return f"products[{int(part[len('products['):].split(' ')[0]) + width - 1}]"
    return f"{part}[{width - 1}]"


def _alu() -> str:
    """Every lane keeps its own copy of what chooses: one register for all would have to reach all over the chip."""
    picks = {op: f"3'd{op.value}" for op in Op}
    field = {name: CHOICE.of("choice", name) for name in CHOICE.fields}
    return module(
        "alu", "A lane behind the array. `choice` comes first; `word` (the immediate), `narrow` (a byte of inp) and "
        "`aux` one cycle later, `acc` and `sum` two, the result five. The second stage adds, multiplies and shifts by "
        "whole bytes; the third adds the products' halves, shifts by bits, and takes one of them.",
        [("input", CHOICE.width, "choice"), ("input", 32, "word"), ("input", 8, "narrow"), ("input", 32, "aux"),
         ("input", 32, "acc"), ("input", 32, "sum"), ("output", 32, "result")],
        f"""
        // operands; zero is what comes from elsewhere
        reg [1:0] other;
        reg a_aux, a_acc, b_acc, b_sum, a_acc_1, b_acc_1, b_sum_1;
        reg [2:0] op_0, op_1;
        reg [31:0] a_before, b_before, acc_1;
        always @(posedge clk) begin
            other <= {field["gemm"]} ? 2'd{Operand.ACC.value} : {field["operand"]};
            a_aux <= {field["from_aux"]};
            a_acc <= {field["from_acc"]};
            b_acc <= !{field["gemm"]} && {field["operand"]} == 2'd{Operand.ACC.value};
            b_sum <= {field["gemm"]};
            op_0 <= {field["op"]};

            a_before <= aux & {{32{{a_aux}}}};
            case (other)
                2'd{Operand.IMM.value}: b_before <= word;
                2'd{Operand.INP.value}: b_before <= {{{{24{{narrow[7]}}}}, narrow}};
                2'd{Operand.AUX.value}: b_before <= aux;
                default: b_before <= 32'd0;
            endcase
            {{a_acc_1, b_acc_1, b_sum_1, op_1}} <= {{a_acc, b_acc, b_sum, op_0}};
            acc_1 <= acc;
        end

        reg [31:0] left, right, left_1, right_1, coarse, found;
        wire [31:0] a = a_before | acc & {{32{{a_acc_1}}}};
        wire [31:0] b = b_before | sum & {{32{{b_sum_1}}}} | acc_1 & {{32{{b_acc_1}}}};
        wire [32:0] low;
        wire [31:0] high;
        {name_of(17, 16)} multiply_low (.clk(clk), .a({{1'b0, a[15:0]}}), .b(b[15:0]), .product(low));
        {name_of(16, 16)} multiply_high (.clk(clk), .a(a[31:16]), .b(b[15:0]), .product(high));
        reg [2:0] what, what_1, fine;
        reg [32:0] total;
        assign result = found;
        wire minus = what != {picks[Op.ADD]};
        wire less = total[32];
        wire take_right = what_1 == {picks[Op.MOV]} || less == (what_1 == {picks[Op.MAX]});
        wire [31:0] product = {{low[31:16] + high[15:0], low[15:0]}};
        wire signed [31:0] coarse_now = coarse;
        wire unused_bits = &{{low[32], high[31:16]}};
        always @(posedge clk) begin
            left <= a;
            right <= b;
            what <= op_1;

            total <= {{left[31], left}} + ({{right[31], right}} ^ {{33{{minus}}}}) + {{32'd0, minus}};
            coarse <= $signed(left) >>> {{right[4:3], 3'd0}};
            fine <= right[2:0];
            {{left_1, right_1, what_1}} <= {{left, right, what}};

            case (what_1)
                {picks[Op.ADD]}, {picks[Op.SUB]}: found <= total[31:0];
                {picks[Op.MUL]}: found <= product;
                {picks[Op.SHR]}: found <= coarse_now >>> fine;
                default: found <= take_right ? right_1 : left_1;
            endcase
        end
        """)
