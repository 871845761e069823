"""The inner loop of the CPU lookup, in explicit vector instructions.

The compiler does not vectorise a loop with a running minimum, so this module generates LLVM code:
it compares a tile of vectors, one per lane, with all entries of a codebook, with as many
accumulators as the machine has registers for.
"""

from typing import Any, NamedTuple

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic


class Shape(NamedTuple):
    """Size of the tile: `lanes` floats per register, `blocks` registers by `entries` entries."""

    lanes: int
    blocks: int
    entries: int

    @property
    def vectors(self) -> int:
        """Number of vectors of a tile, one per lane."""
        return self.lanes * self.blocks


def _shape() -> Shape:
    """Return the tile that fills the vector registers of this machine, except for temporaries.

    Few entries with many vectors are fastest: each entry costs one more load, which the vectors
    share.
    """
    features = binding.get_host_cpu_features()
    if features.get("avx512f"):  # 32 registers of 16
        return Shape(16, 3, 8)
    if features.get("avx2"):  # 16 registers of 8
        return Shape(8, 3, 4)
    return Shape(4, 3, 8)  # 32 registers of 4 on ARM


TILE = _shape()

_F32, _I32, _I64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)


class Emitter:
    """Builder of the instructions of one tile."""

    def __init__(self, builder: Any, shape: Shape) -> None:
        self.b = builder
        self.shape = shape
        self.floats = ir.VectorType(_F32, shape.lanes)
        self.ints = ir.VectorType(_I32, shape.lanes)
        kind = ir.FunctionType(self.floats, [self.floats] * 3)
        name = f"llvm.fma.v{shape.lanes}f32"
        self.fma = cgutils.get_or_insert_function(builder.module, kind, name)

    def splat(self, value: Any, kind: Any) -> Any:
        """Return a value in all lanes."""
        one = self.b.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(_I32, 0))
        zeros = ir.Constant(ir.VectorType(_I32, self.shape.lanes), [0] * self.shape.lanes)
        return self.b.shuffle_vector(one, ir.Constant(kind, ir.Undefined), zeros)

    def load(self, base: Any, offset: Any) -> Any:
        """Load an element of an array."""
        return self.b.load(self.b.gep(base, [offset]))

    def load_lanes(self, base: Any, offset: Any, kind: Any) -> Any:
        """Load as many elements as there are lanes."""
        place = self.b.bitcast(self.b.gep(base, [offset]), kind.as_pointer())
        return self.b.load(place, align=4)

    def store_lanes(self, base: Any, offset: Any, value: Any) -> None:
        """Store all lanes."""
        place = self.b.bitcast(self.b.gep(base, [offset]), value.type.as_pointer())
        self.b.store(value, place, align=4)

    def at(self, value: int) -> Any:
        """Return a constant index."""
        return ir.Constant(_I64, value)

    def loop(self, count: Any, state: list[Any], body: Any) -> list[Any]:
        """Emit `body(index, state) -> state` for index 0..count-1; count must be at least 1."""
        b, before = self.b, self.b.block
        block = b.append_basic_block()
        b.branch(block)
        b.position_at_end(block)
        index = b.phi(_I64)
        index.add_incoming(self.at(0), before)
        phis = [b.phi(value.type) for value in state]
        for phi, value in zip(phis, state, strict=True):
            phi.add_incoming(value, before)
        after = body(index, phis)
        following = b.add(index, self.at(1))
        index.add_incoming(following, b.block)
        for phi, value in zip(phis, after, strict=True):
            phi.add_incoming(value, b.block)
        done = b.append_basic_block()
        b.cbranch(b.icmp_signed("<", following, count), block, done)
        b.position_at_end(done)
        return list(after)

    def level(self, book: Any, bias: Any, level: Any, groups: Any, dim: Any) -> tuple[Any, Any]:
        """Return pointers to one level of the codebooks and of their biases."""
        b = self.b
        size = b.mul(b.mul(level, groups), self.at(self.shape.entries))
        return b.gep(book, [b.mul(size, dim)]), b.gep(bias, [size])

    def biases(self, bias: Any, group: Any) -> list[Any]:
        """Load the bias of each entry of a group, broadcast to all lanes."""
        first = self.b.mul(group, self.at(self.shape.entries))
        places = [self.b.add(first, self.at(e)) for e in range(self.shape.entries)]
        return [self.splat(self.load(bias, place), self.floats) for place in places]

    def scores(self, x: Any, book: Any, group: Any, dim: Any, start: list[Any]) -> list[Any]:
        """Add the products of a group of entries and the vectors to `start`, entry by entry."""
        b, (lanes, blocks, entries) = self.b, self.shape
        rows = b.mul(group, b.mul(dim, self.at(entries)))

        def step(d: Any, sums: list[Any]) -> list[Any]:
            row = b.mul(d, self.at(lanes * blocks))
            xs = [
                self.load_lanes(x, b.add(row, self.at(lanes * i)), self.floats)
                for i in range(blocks)
            ]
            column = b.add(rows, b.mul(d, self.at(entries)))
            out = []
            for e in range(entries):
                value = self.splat(self.load(book, b.add(column, self.at(e))), self.floats)
                out += [
                    b.call(self.fma, [xs[i], value, sums[e * blocks + i]]) for i in range(blocks)
                ]
            return out

        return self.loop(dim, start, step)


def pointers(context: Any, builder: Any, signature: Any, args: Any) -> list[Any]:
    """Return array arguments as pointers to their first element, and the others unchanged."""
    return [
        context.make_array(kind)(context, builder, arg).data
        if isinstance(kind, types.Array)
        else arg
        for kind, arg in zip(signature.args, args, strict=True)
    ]


@intrinsic
def nearest_of_tile(  # type: ignore[no-untyped-def]
    typingctx, x, book, bias, at, first, count, groups, dim, least, codes
):
    """Search some groups of a codebook for nearer entries, for each vector of a tile.

    Args of the compiled function, all arrays flat: x `[dim, vectors]` float32, the vectors, one per
    column; book `[K, groups, dim, entries]` float32, the negated targets; bias `[K, groups,
    entries]` float32; at, the level; first and count, the groups to search, at least one; groups
    and dim, the sizes; least `[vectors]` float32 and codes `[vectors]` int32, the best score so far
    and its entry, updated in place.
    """
    signature = types.void(x, book, bias, *[types.intp] * 5, least, codes)

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        x, book, bias, level, first, count, groups, dim, least, codes = pointers(
            context, builder, signature, args
        )
        emit = Emitter(builder, TILE)
        lanes, blocks, entries = TILE
        book, bias = emit.level(book, bias, level, groups, dim)
        ends = [emit.at(lanes * i) for i in range(blocks)]
        state = [emit.load_lanes(least, end, emit.floats) for end in ends]
        state += [emit.load_lanes(codes, end, emit.ints) for end in ends]

        def scan(index, state):  # type: ignore[no-untyped-def]
            group = builder.add(first, index)
            least, where = list(state[:blocks]), list(state[blocks:])
            start = emit.biases(bias, group)
            scores = emit.scores(x, book, group, dim, [s for s in start for _ in range(blocks)])
            base = builder.trunc(builder.mul(group, emit.at(entries)), _I32)
            for e in range(entries):
                code = emit.splat(builder.add(base, ir.Constant(_I32, e)), emit.ints)
                for i in range(blocks):
                    score = scores[e * blocks + i]
                    # Strictly less: ties are broken towards the first entry.
                    less = builder.fcmp_ordered("<", score, least[i])
                    least[i] = builder.select(less, score, least[i])
                    where[i] = builder.select(less, code, where[i])
            return least + where

        state = emit.loop(count, state, scan)
        for i, end in enumerate(ends):
            emit.store_lanes(least, end, state[i])
            emit.store_lanes(codes, end, state[blocks + i])
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def scores_of_group(  # type: ignore[no-untyped-def]
    typingctx, x, book, bias, at, group, groups, dim, start, limits, scores, hits
):
    """Compare each vector of a tile with one group of entries.

    Args of the compiled function: those of `nearest_of_tile`, and group, the number of the group;
    start `[vectors]` float32, added to the scores of each vector; limits `[vectors]` float32;
    scores `[entries, vectors]` float32, written; hits `[entries]` uint64, written: bit j is set if
    the score of vector j is at most its limit. Returns whether any bit is set.
    """
    signature = types.boolean(x, book, bias, *[types.intp] * 4, start, limits, scores, hits)

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        x, book, bias, level, group, groups, dim, start, limits, scores, hits = pointers(
            context, builder, signature, args
        )
        emit = Emitter(builder, TILE)
        lanes, blocks, entries = TILE
        book, bias = emit.level(book, bias, level, groups, dim)
        starts = [emit.load_lanes(start, emit.at(lanes * i), emit.floats) for i in range(blocks)]
        sums = [builder.fadd(s, first) for s in emit.biases(bias, group) for first in starts]
        sums = emit.scores(x, book, group, dim, sums)
        bounds = [emit.load_lanes(limits, emit.at(lanes * i), emit.floats) for i in range(blocks)]
        found = ir.Constant(_I64, 0)
        for e in range(entries):
            bits = ir.Constant(_I64, 0)
            for i in range(blocks):
                score = sums[e * blocks + i]
                emit.store_lanes(scores, emit.at(lanes * (e * blocks + i)), score)
                less = builder.fcmp_ordered("<=", score, bounds[i])
                part = builder.zext(builder.bitcast(less, ir.IntType(lanes)), _I64)
                bits = builder.or_(bits, builder.shl(part, emit.at(lanes * i)))
            builder.store(bits, builder.gep(hits, [emit.at(e)]))
            found = builder.or_(found, bits)
        return builder.icmp_unsigned("!=", found, emit.at(0))

    return signature, generate


@intrinsic
def trailing_zeros(typingctx, bits):  # type: ignore[no-untyped-def]
    """Return the number of zeros below the lowest set bit of a non-zero uint64."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.intp(types.uint64), generate
