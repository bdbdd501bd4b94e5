"""What a compiled program moves: its collectives and its memory traffic, read from its HLO text.

XLA's own cost analysis counts the body of a loop once, and a model's layers are a loop. This module weights every
computation by how often it runs. It counts floating-point operations in the traced program, where matrix products are
not yet rewritten.
"""

import collections
import dataclasses
import functools
import math
import re
from collections.abc import Iterable, Iterator
from typing import Any

import jax.extend

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")

_BYTES = {"pred": 1, "s4": 0.5, "u4": 0.5, "bf16": 2, "f16": 2, "s16": 2, "u16": 2}
_BYTES |= {"s8": 1, "u8": 1, "f8e4m3fn": 1, "f8e5m2": 1, "s64": 8, "u64": 8, "f64": 8, "c64": 8}  # others: 4
_ARRAY = re.compile(r"\b([a-z]+\d*(?:e\dm\d\w*)?)\[([\d,]*)\](\{[^}]*\})?")
_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional", "call"}
_FREE |= {"after-all", "partition-id", "replica-id", "iota"}
_SLICES = {"dynamic-slice", "gather"}


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective operation of a program."""

    kind: str  # one of KINDS
    arrays: tuple[tuple[int, ...], ...]  # the shapes, on one device, of the larger of its inputs and outputs
    size: float  # bytes of those
    devices: int  # how many exchange with one another
    count: int  # how often it runs
    source: str  # the operation of the model that it serves


@dataclasses.dataclass(frozen=True)
class _Instruction:
    name: str
    type: str
    opcode: str
    operands: tuple[str, ...]
    rest: str  # attributes
    root: bool


def collectives(text: str) -> list[Collective]:
    """Every collective of the compiled program `text` (`Compiled.as_text()`), each counted over the loops around it."""
    module = _Module(text)
    found: dict[str, Collective] = {}
    for computation, runs in module.runs.items():
        if computation in module.going_on:
            continue
        for one in module.computations[computation]:
            kind = one.opcode.removesuffix("-start")
            if kind not in KINDS:
                continue
            if kind == "all-reduce" and "all-reduce-scatter" in computation:
                kind = "reduce-scatter"  # what a TPU does with an all-reduce of which a part is kept
            inputs = [array for name in one.operands for array in _arrays(module.types[name])]
            outputs = _arrays(one.type)
            if one.opcode in ("all-gather-start", "collective-permute-start"):
                outputs = outputs[len(inputs) :]  # a pair of inputs and outputs
            arrays = max(inputs, outputs, key=lambda arrays: sum(array.bytes for array in arrays))
            source = re.search(r'op_name="([^"]*)"', one.rest)
            # A collective that is written several times, as before a loop and in it, has one channel.
            channel = re.search(r"channel_id=(\d+)", one.rest)
            key = channel[1] if channel else one.name
            collective = Collective(
                kind,
                tuple(array.shape for array in arrays),
                sum(array.bytes for array in arrays),
                _group_size(one.rest, module.devices),
                max(runs, found[key].count if key in found else 0),
                source[1] if source else "",
            )
            found[key] = collective
    return [one for one in found.values() if one.devices > 1]


def memory_traffic(text: str) -> float:
    """Bytes that one device reads from and writes to its main memory, each operation taken by itself.

    What stays in a TPU's vector memory (space 1) is free; of an array that is only sliced, the slices count.
    """
    module = _Module(text)
    total = 0.0
    for computation, runs in module.runs.items():
        if computation in module.fused:
            continue
        for one in module.computations[computation]:
            if one.opcode not in _FREE and not one.opcode.endswith(("-done", "-update")):
                total += runs * _traffic(module, one)
    return total


def matmul_flops(jaxpr: Any) -> float:
    """Floating-point operations of all matrix products in a traced program (`Traced.jaxpr`), over all devices."""
    total = 0.0
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            total += 2.0 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[axis] for axis in contracted)
        inside = [matmul_flops(sub) for value in equation.params.values() for sub in _jaxprs(value)]
        if inside:
            repeats = equation.params["length"] if equation.primitive.name == "scan" else 1
            total += repeats * (max(inside) if equation.primitive.name == "cond" else sum(inside))
    return total


def _jaxprs(value: Any) -> Iterator[Any]:
    if isinstance(value, jax.extend.core.ClosedJaxpr | jax.extend.core.Jaxpr):
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _jaxprs(item)


@dataclasses.dataclass(frozen=True)
class _Array:
    shape: tuple[int, ...]
    bytes: float
    on_chip: bool  # in vector memory


class _Module:
    """The computations of a program, and how often each runs."""

    def __init__(self, text: str) -> None:
        self.computations: dict[str, list[_Instruction]] = {}
        self.fused: set[str] = set()
        self.entry = ""
        header = text.partition("\n")[0]
        partitions = re.search(r"num_partitions=(\d+)", header)
        self.devices = int(partitions[1]) if partitions else 1
        body: list[_Instruction] = []
        for line in text.splitlines():
            start = re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\{$", line)
            if start:
                body = self.computations[start[2]] = []
                self.entry = start[2] if start[1] else self.entry
            elif instruction := _instruction(line):
                body.append(instruction)
        # A TPU may split a collective into a start, work beside which it goes on, be it a loop's, and an end.
        self.going_on = {name for name, body in self.computations.items() if _goes_on(name, body)}
        self.types = {one.name: one.type for body in self.computations.values() for one in body}
        self.runs: dict[str, int] = collections.Counter()
        self._count(self.entry, 1)

    def _count(self, computation: str, runs: int) -> None:
        self.runs[computation] += runs
        for one in self.computations[computation]:
            times = runs * (self._trips(one) if one.opcode == "while" else 1)
            for called in self._called(one):
                if one.opcode == "fusion":
                    self.fused.add(called)
                self._count(called, times)

    def _called(self, one: _Instruction) -> Iterable[str]:
        """Computations that an instruction runs; what combines two numbers (`to_apply` of a reduction) is no such."""
        names = re.findall(r"(?:calls|body|condition|true_computation|false_computation)=%?([\w.\-]+)", one.rest)
        for branches in re.findall(r"branch_computations=\{([^}]*)\}", one.rest):
            names += [name.strip().lstrip("%") for name in branches.split(",")]
        if one.opcode == "call":
            names += re.findall(r"to_apply=%?([\w.\-]+)", one.rest)
        return names

    def _trips(self, one: _Instruction) -> int:
        """How often a loop runs: as XLA notes it, or the number that its counter, from 0 on, stays below."""
        known = re.search(r'"known_trip_count":\{"n":"(\d+)"', one.rest)
        if known:
            return int(known[1])
        condition = re.search(r"condition=%?([\w.\-]+)", one.rest)
        limits = [
            int(constant.operands[0])
            for constant in (self.computations[condition[1]] if condition else [])
            if constant.opcode == "constant" and constant.operands and constant.operands[0].isdigit()
        ]
        return max(limits, default=1)


def _goes_on(name: str, body: list[_Instruction]) -> bool:
    return name.startswith("async_collective_fusion") or any("AsyncCollectiveDone" in one.rest for one in body)


def _instruction(line: str) -> _Instruction | None:
    match = re.match(r"\s+(ROOT )?%?([\w.\-]+) = ", line)
    if not match:
        return None
    end = _closing(line, match.end()) if line[match.end()] == "(" else line.index(" ", match.end())
    opcode = re.match(r"\s*([\w\-]+)\(", line[end:])
    if not opcode:
        return None
    start = end + opcode.end() - 1
    stop = _closing(line, start)
    inside = line[start + 1 : stop - 1]
    operands = re.findall(r"%([\w.\-]+)", inside) or [part.strip() for part in inside.split(",") if part.strip()]
    return _Instruction(match[2], line[match.end() : end], opcode[1], tuple(operands), line[stop:], root=bool(match[1]))


def _closing(line: str, start: int) -> int:
    """The place behind the bracket that closes the one at `start`."""
    depth = 0
    for place in range(start, len(line)):
        depth += (line[place] == "(") - (line[place] == ")")
        if not depth:
            return place + 1
    raise ValueError(f"unbalanced brackets in {line[:200]!r}")


@functools.lru_cache(maxsize=100_000)
def _arrays(type_text: str) -> list[_Array]:
    found = []
    for kind, dims, layout in _ARRAY.findall(type_text):
        shape = tuple(int(size) for size in dims.split(",") if size)
        found.append(_Array(shape, math.prod(shape) * _BYTES.get(kind, 4), "S(1)" in layout))
    return found


def _main_bytes(type_text: str) -> float:
    return sum(array.bytes for array in _arrays(type_text) if not array.on_chip)


def _traffic(module: _Module, one: _Instruction) -> float:
    """Bytes of one operation's inputs and outputs in main memory."""
    inputs = [name for name in one.operands if name in module.types]
    if one.opcode in _SLICES:
        return 2 * _main_bytes(one.type)
    if one.opcode == "dynamic-update-slice":
        return 2 * _main_bytes(module.types[inputs[1]])
    written = one.type
    if one.opcode.endswith("-start"):  # a copy or collective that goes on in the background: a tuple, result first
        written = written[1:].partition("}")[0] + "}"
    fused = _fused(one)
    if not fused:
        return _main_bytes(written) + sum(_main_bytes(module.types[name]) for name in inputs)
    body = module.computations[fused]
    total = _fused_reads(module, body, inputs) + _fused_writes(module, body, written)
    if fused in module.going_on:
        total -= _passing_by(module, body, inputs, written)
    return total


def _fused(one: _Instruction) -> str | None:
    """The computation that a fusion runs; None for anything else."""
    called = re.search(r"calls=%?([\w.\-]+)", one.rest) if one.opcode == "fusion" else None
    return called[1] if called else None


def _fused_reads(module: _Module, body: list[_Instruction], inputs: list[str]) -> float:
    total = 0.0
    for parameter in (one for one in body if one.opcode == "parameter"):
        whole = _main_bytes(module.types[inputs[int(parameter.operands[0])]])
        total += min(whole, _read(module, body, parameter.name, whole))
    return total


def _read(module: _Module, body: list[_Instruction], name: str, whole: float) -> float:
    """Bytes that a fusion's instructions read of one parameter of `whole` bytes; slices count as what they are."""
    total = 0.0
    for user in (one for one in body if name in one.operands):
        if user.opcode in _SLICES and user.operands[0] == name:
            total += sum(array.bytes for array in _arrays(user.type))
        elif fused := _fused(user):
            inner = module.computations[fused]
            places = [str(place) for place, operand in enumerate(user.operands) if operand == name]
            parameters = [one.name for one in inner if one.opcode == "parameter" and one.operands[0] in places]
            total += sum(_read(module, inner, parameter, whole) for parameter in parameters)
        elif not (user.opcode == "dynamic-update-slice" and user.operands[0] == name):
            total += whole
    return total


def _passing_by(module: _Module, body: list[_Instruction], inputs: list[str], written: str) -> float:
    """Bytes of the arrays of a collective that goes on beside a fusion: its start counts them."""
    moved = [kind for one in body if one.opcode in KINDS for kind in (one.type, *map(module.types.get, one.operands))]
    shapes = {array.shape for kind in moved for array in _arrays(kind)}
    types = [module.types[name] for name in inputs] + [written]
    return sum(a.bytes for kind in types for a in _arrays(kind) if a.shape in shapes and not a.on_chip)


def _fused_writes(module: _Module, body: list[_Instruction], written: str) -> float:
    """A result that is an update of an input in place costs its slice."""
    updates = [one for one in body if one.opcode == "dynamic-update-slice"]
    whole = sum(sum(array.bytes for array in _arrays(one.type)) for one in updates)
    slices = sum(sum(array.bytes for array in _arrays(module.types[one.operands[1]])) for one in updates)
    return max(_main_bytes(written) - whole, 0.0) + (slices if _main_bytes(written) >= whole else 0.0)


def _group_size(attributes: str, devices: int) -> int:
    """How many devices exchange with one another, in any of the three ways that HLO writes it."""
    if iota := re.search(r"replica_groups=\[(\d+),(\d+)\]<=", attributes):
        return int(iota[2])
    if named := re.search(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}", attributes):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", named[1]))
        # An axis, or a part of one, as in 'b':(2)4, which is four devices of it.
        axes = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", named[2])
        return math.prod(int(part or sizes[axis]) for axis, part in axes)
    if listed := re.search(r"replica_groups=\{\{([\d,]*)\}", attributes):
        return len(listed[1].split(","))
    if re.search(r"source_target_pairs=\{\{", attributes):
        return 2
    return devices
