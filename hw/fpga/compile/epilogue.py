"""What follows a sum, or stands alone: an integer expression as steps of the ALU and the numbers of the store.

What holds here: the steps give what NumPy gives, for every input that the dtypes allow; an expression for which that is
not so is refused, with the reason. Requantisation, clipping and the ReLU cost nothing where the store can do them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from tracedsl.hw.fpga.compile.ranges import INT32, Range, Values, of_dtype, values, within
from tracedsl.hw.fpga.compile.work import Epilogue, Operand, Region, Step
from tracedsl.hw.fpga.isa import MAX_SHIFT, Op
from tracedsl.ir.expr import Call, Cast, Const, Expr, Load, Reduced

INT16: Range = (-(1 << 15), (1 << 15) - 1)
INT8: Range = (-128, 127)
MAX_MULTIPLIER = (1 << 15) - 1
_BINARY = {"add": Op.ADD, "sub": Op.SUB, "mul": Op.MUL, "maximum": Op.MAX, "minimum": Op.MIN, "fmax": Op.MAX,
           "fmin": Op.MIN, "shr": Op.SHR}
_COMMUTES = frozenset((Op.ADD, Op.MUL, Op.MAX, Op.MIN))


class Refused(Exception):
    """The accelerator cannot do it; the text says why."""


@dataclass(frozen=True, eq=False)
class Node:
    """A value in a region: the sum, if there is no `op`, or op of a left side and a right one."""

    op: Op | None = None
    left: Value = 0
    right: Value = 0


Value = Node | Operand | int
OperandOf = Callable[[Load], Operand]


def epilogue(root: Expr, dtype: str, operand_of: OperandOf, reduced: Range | None = None) -> Epilogue:
    """The epilogue that leaves `root` (its dtype is `dtype`) in memory; `reduced` bounds the sum, if there is one.
    Raises Refused."""
    known = values((root,), reduced)
    low, high = INT8
    multiplier = shift = 0
    if dtype == "int8":
        root, low, high = _clipped(root, known)
        root, multiplier, shift = _scaled(root, known)
    converted = _Converter(known, operand_of)(root)
    made = _Allocator().run(converted)
    return replace(made, multiplier=multiplier or 1, shift=shift, low=low, high=high)


# -- what the store does -------------------------------------------------------------------------------------------


def _clipped(expr: Expr, known: Mapping[int, Values]) -> tuple[Expr, int, int]:
    """The expression below the outermost casts, minima and maxima, and the limits that these make together."""
    low, high = INT8
    while True:
        match expr:
            case Cast(arg=arg) if _fits(arg, known, expr.dtype):
                expr = arg
            case Call(op="maximum" | "fmax", args=(arg, Const(value=int(bound))) | (Const(value=int(bound)), arg)):
                low, expr = min(max(bound, low), high), arg
            case Call(op="minimum" | "fmin", args=(arg, Const(value=int(bound))) | (Const(value=int(bound)), arg)):
                high, expr = max(min(bound, high), low), arg
            case _:
                return expr, low, high


def _scaled(expr: Expr, known: Mapping[int, Values]) -> tuple[Expr, int, int]:
    """(y * multiplier + half) >> shift, if the expression is of this kind: y, multiplier, shift."""
    below, shift = expr, 0
    if (shifted := _shifted(expr)) is not None:
        below, shift = shifted
        half = 1 << shift - 1
        match _bare(below, known):
            case Call(op="add", args=(arg, Const(value=added)) | (Const(value=added), arg)) as found \
                    if added == half and shift <= MAX_SHIFT and not _wraps(found, known):
                below = arg
            case _:
                return expr, 1, 0
    match _bare(below, known):
        case Call(op="mul", args=(arg, Const(value=int(by))) | (Const(value=int(by)), arg)) as found \
                if 1 <= by <= MAX_MULTIPLIER and not _wraps(found, known):
            return arg, by, shift
    return below, 1, shift


def _shifted(expr: Expr) -> tuple[Expr, int] | None:
    """The operand and the number of bits of a shift to the right, or of a division by a power of two."""
    match expr:
        case Call(op="shr", args=(arg, Const(value=int(bits)))) if bits >= 1:
            return arg, bits
        case Call(op="floordiv", args=(arg, Const(value=int(by)))) if by > 1 and by & (by - 1) == 0:
            return arg, by.bit_length() - 1
    return None


def _bare(expr: Expr, known: Mapping[int, Values]) -> Expr:
    while isinstance(expr, Cast) and _fits(expr.arg, known, expr.dtype):
        expr = expr.arg
    return expr


def _fits(expr: Expr, known: Mapping[int, Values], dtype: str) -> bool:
    limits = of_dtype(dtype)
    return limits is not None and id(expr) in known and within(known[id(expr)].wrapped, limits)


def _wraps(expr: Expr, known: Mapping[int, Values]) -> bool:
    return id(expr) not in known or known[id(expr)].wraps


# -- what the ALU does ---------------------------------------------------------------------------------------------


class _Converter:
    """Expressions to nodes, each once."""

    def __init__(self, known: Mapping[int, Values], operand_of: OperandOf) -> None:
        self.known, self.operand_of = known, operand_of
        self.made: dict[int, Value] = {}
        self.sum = Node()

    def __call__(self, expr: Expr) -> Value:
        if id(expr) not in self.made:
            self.made[id(expr)] = self._convert(expr)
        return self.made[id(expr)]

    def _convert(self, expr: Expr) -> Value:
        if id(expr) not in self.known:
            raise Refused(f"{_named(expr)} is not done by the ALU, which works on integers")
        value = self.known[id(expr)]
        if not within(value.wrapped, INT32):
            raise Refused(f"{_named(expr)} needs more than 32 bits")
        match expr:
            case Const(value=number):
                return int(number)
            case Reduced():
                return self.sum if not value.wraps else self._wrapped(self.sum, expr.dtype)
            case Load():
                return self.operand_of(expr)
            case Cast(arg=arg):
                inner = self(arg)
                return inner if not value.wraps else self._wrapped(inner, expr.dtype)
            case Call(op=op, args=args):
                made = self._call(op, [*args])
                return made if not value.wraps else self._wrapped(made, expr.dtype)
        raise Refused(f"{_named(expr)} is not done by the ALU")

    def _wrapped(self, value: Value, dtype: str) -> Value:
        """The value as the dtype keeps it."""
        if dtype == "int32":
            return value     # as the ALU's own 32 bits do
        if dtype not in ("int8", "int16"):
            raise Refused(f"a value that {dtype} does not hold is not wrapped by the ALU")
        bits = 24 if dtype == "int8" else 16
        up = 1 << bits // 2
        return Node(Op.SHR, Node(Op.MUL, Node(Op.MUL, value, up), up), bits)

    def _call(self, op: str, args: list[Expr]) -> Value:
        if op == "neg":
            return Node(Op.MUL, self(args[0]), -1)
        if op == "abs":
            inner = self(args[0])
            return Node(Op.MAX, inner, Node(Op.MUL, inner, -1))
        if op == "floordiv":
            return self._divided(args[0], args[1])
        if op == "shl" and isinstance(args[1], Const):
            return _times_power(self(args[0]), int(args[1].value))
        if op not in _BINARY:
            raise Refused(f"{op} is not done by the ALU")
        return self._binary(_BINARY[op], args)

    def _binary(self, op: Op, args: list[Expr]) -> Value:
        left, right = self(args[0]), self(args[1])
        if op is Op.MUL:
            small = [within(self.known[id(arg)].wrapped, INT16) for arg in args]
            if not any(small):
                raise Refused("a product of two factors of more than 16 bits is not done by the ALU")
            if not small[1] or (small[0] and isinstance(right, Node) and not isinstance(left, Node)):
                left, right = right, left
        elif op in _COMMUTES and not isinstance(left, Node):
            left, right = right, left
        elif op is Op.SUB and not isinstance(left, Node) and isinstance(right, Node):
            return Node(Op.ADD, Node(Op.MUL, right, -1), left)
        elif op is Op.SHR and not within(self.known[id(args[1])].wrapped, (0, 31)):
            raise Refused("a shift by 32 bits or more is not done by the ALU")
        return Node(op, left, right)

    def _divided(self, arg: Expr, by: Expr) -> Value:
        """floor(a / d) as (a * m) >> s with m about 2^s / d, exact for every a of the range (Granlund and Montgomery,
        1994); negative ones are moved up by a multiple of d before and back afterwards."""
        if not isinstance(by, Const) or int(by.value) < 1:
            raise Refused("a division by what is not a positive constant is not done by the ALU")
        divisor, (low, high) = int(by.value), self.known[id(arg)].wrapped
        value = self(arg)
        if divisor & (divisor - 1) == 0:
            return Node(Op.SHR, value, divisor.bit_length() - 1)
        moved = -(low // divisor) if low < 0 else 0
        most = high + moved * divisor
        for bits in range(31):
            factor = -(-(1 << bits) // divisor)
            exact = most * (factor * divisor - (1 << bits)) < 1 << bits
            if exact and factor <= MAX_MULTIPLIER and most * factor < 1 << 31:
                raised = Node(Op.ADD, value, moved * divisor)
                return Node(Op.ADD, Node(Op.SHR, Node(Op.MUL, raised, factor), bits), -moved)
        raise Refused(f"a division of up to {most} by {divisor} is not exact in 32 bits")


def _times_power(value: Value, bits: int) -> Value:
    while bits > 0:
        value, bits = Node(Op.MUL, value, 1 << min(bits, 14)), bits - min(bits, 14)
    return value


def _named(expr: Expr) -> str:
    match expr:
        case Call():
            return f"{expr.op} of {expr.dtype}"
        case Load():
            return f"{expr.buffer.name} of {expr.dtype}"
        case Cast():
            return f"a conversion to {expr.dtype}"
    return f"a value of {expr.dtype}"


class _Allocator:
    """Nodes to steps; a region is used again when nobody reads it any more."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.left: dict[Node, int] = {}
        self.region: dict[Node, int] = {}
        self.free: list[int] = []
        self.regions = 1

    def run(self, root: Value) -> Epilogue:
        self._count(root)
        if isinstance(root, Node):
            start = self._start(root)
            result = self._emit(root)
        else:
            start, result = None, 0
            self.steps.append(Step(Op.MOV, 0, root))
        return Epilogue(tuple(self.steps), result, self.regions, start)

    def _count(self, root: Value) -> None:
        stack = [root]
        while stack:
            node = stack.pop()
            if isinstance(node, Node):
                self.left[node] = self.left.get(node, 0) + 1
                if self.left[node] == 1 and node.op is not None:
                    stack += [node.left, node.right]
        self.has_sum = any(node.op is None for node in self.left)
        self.free = [] if self.has_sum else [0]

    def _start(self, root: Node) -> Operand | None:
        """What is added to the sum first, the same for every row: GEMM starts with it, and no addition is left."""
        for node in self.left:
            match node:
                case Node(op=Op.ADD, left=Node(op=None) as total, right=Operand() as bias):
                    for_all_rows = not any(place.terms for place in bias.index)
                    if self.left[total] == 1 and bias.form.format == "wide" and for_all_rows:
                        self.region[node] = 0
                        return bias
        return None

    def _emit(self, node: Node) -> int:
        if node.op is None:
            return 0
        if node not in self.region:
            self.region[node] = -1
            target = self._taken(node.left)
            source: int | Region | Operand
            if isinstance(node.right, Node):
                source = Region(self._emit(node.right))
                self.left[node.right] -= 1
                spent = self.left[node.right] == 0
            else:
                source, spent = node.right, False
            self.steps.append(Step(node.op, target, source))
            if spent and isinstance(source, Region):
                self.free.append(source.number)
            self.region[node] = target
        return self.region[node]

    def _taken(self, value: Value) -> int:
        """A region with the value, which may be overwritten."""
        if isinstance(value, Node):
            number = self._emit(value)
            self.left[value] -= 1
            if self.left[value] == 0:
                return number
            source: int | Region | Operand = Region(number)
        else:
            source = value
        number = self.free.pop() if self.free else self._new()
        self.steps.append(Step(Op.MOV, number, source))
        return number

    def _new(self) -> int:
        self.regions += 1
        return self.regions - 1
