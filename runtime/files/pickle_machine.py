"""Reads the pickles of torch.save as plain data. Nothing that a pickle names is imported or called.

The machine carries out the instructions that tensors, dictionaries, lists, strings and numbers need. It refuses every
other instruction, class and function.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lorikeet.protocol.shorten import shorten
from runtime.files.pickle_tree import ParameterDict, StorageRef, TensorRef
from runtime.files.safetensors_file import WeightFileError

_MAX_INTEGER = 1 << 62
_MAX_AXES = 8
_MAX_INSTRUCTIONS = 1 << 18  # torch.save writes about 40 for a tensor
# torch's storage class -> dtype in .safetensors, bytes of an item
_STORAGES = {
    "DoubleStorage": ("F64", 8),
    "FloatStorage": ("F32", 4),
    "HalfStorage": ("F16", 2),
    "BFloat16Storage": ("BF16", 2),
    "LongStorage": ("I64", 8),
    "IntStorage": ("I32", 4),
    "ShortStorage": ("I16", 2),
    "CharStorage": ("I8", 1),
    "ByteStorage": ("U8", 1),
    "BoolStorage": ("BOOL", 1),
}
_CALLS = {
    ("collections", "OrderedDict"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"),
    ("torch.nn.modules.container", "ParameterDict"),  # of the authors' textual inversions
    ("__builtin__", "set"),  # an attribute of a ParameterDict
}
# torch's functions for tensors of devices without storages. They carry the numbers as numpy or CPU tensors.
_DEVICE_CALLS = {
    ("torch._utils", "_rebuild_device_tensor_from_numpy"),
    ("torch._utils", "_rebuild_device_tensor_from_cpu_tensor"),
}


@dataclass(frozen=True)
class _Name:
    """A class or function that a pickle names."""

    module: str
    name: str


def load_pickle(pickle: bytes) -> object:
    """What a pickle describes: plain values, tuples and references. One value may be referred to from many places.

    Raises WeightFileError for anything else, and ValueError where the pickle ends too early.
    """
    machine = _Machine()
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(pickle)):
            if count == _MAX_INSTRUCTIONS:
                raise WeightFileError(
                    f"its pickle has more than {_MAX_INSTRUCTIONS} instructions, too many for weights"
                )
            if opcode.name == "STOP":
                return machine.stack.pop()
            step = _STEPS.get(opcode.name)
            if step is None:
                raise WeightFileError(f"its pickle has the instruction {opcode.name}, which weights do not need")
            step(machine, argument)
    except (IndexError, KeyError, TypeError, AttributeError) as error:
        raise WeightFileError("its pickle is damaged") from error
    raise WeightFileError("its pickle has no end")


class _Machine:
    """The stack that a pickle's instructions work on, the stacks below its marks, and its memo.

    Every value is hostile: a tuple may be 100,000 deep, and one value may be in 2 ** 60 places. So no instruction
    hashes, compares or copies a value before it checked the type and the length: one instruction takes constant time,
    or time in proportion to the instructions that made its own operands.
    """

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def mark(self, _: object) -> None:
        self.below.append(self.stack)
        self.stack = []

    def since_mark(self) -> list[Any]:
        found, self.stack = self.stack, self.below.pop()
        return found

    def push(self, value: object) -> None:
        self.stack.append(value)

    def take(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise IndexError
        taken = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return taken

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise TypeError
        target.update(zip(map(_key, items[::2]), items[1::2], strict=True))

    def append(self, items: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise TypeError
        self.stack[-1].extend(items)

    def name(self, module: object, name: object) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise TypeError
        if (module, name) in _DEVICE_CALLS:
            raise WeightFileError(
                "it was saved on an Apple GPU, or with DirectML or XLA: load it and save it again on the CPU"
            )
        if (module, name) not in _CALLS and not (module == "torch" and name in _STORAGES):
            raise WeightFileError(
                f"its pickle names {shorten(f'{module}.{name}', 100)}, which weights do not need: a pickle that runs "
                "code is refused; save the tensors alone"
            )
        self.push(_Name(module, name))

    def storage(self) -> None:
        """`("storage", class, key, device, items)` refers to a file of the archive."""
        reference = self.stack.pop()
        if not isinstance(reference, tuple) or len(reference) != 5:
            raise TypeError
        tag, storage_class, key, _, _ = reference
        if tag != "storage" or not isinstance(storage_class, _Name) or not isinstance(key, str):
            raise TypeError
        dtype, itemsize = _STORAGES[storage_class.name]
        self.push(StorageRef(key, dtype, itemsize))

    def call(self) -> None:
        function, arguments = self.take(2)
        if not isinstance(function, _Name) or not isinstance(arguments, tuple):
            raise TypeError
        if function.name == "OrderedDict" and not arguments:
            self.push({})
        elif function.name == "set" and arguments == ([],):
            self.push([])
        elif function.name == "_rebuild_tensor_v2":
            self.push(_tensor(*arguments))
        elif function.name == "_rebuild_parameter" and isinstance(arguments[0], TensorRef):
            self.push(arguments[0])
        else:
            raise TypeError

    def new(self) -> None:
        kind, arguments = self.take(2)
        if not isinstance(kind, _Name) or kind.name != "ParameterDict" or arguments != ():
            raise TypeError
        self.push(ParameterDict())

    def build(self) -> None:
        """Drop the attributes of a dictionary: torch keeps version numbers there. A ParameterDict keeps its content."""
        attributes, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, ParameterDict):
            content = attributes["_parameters"]
            if not isinstance(content, dict):  # a list of pairs could have keys of any type
                raise TypeError
            target.content = content
        elif not isinstance(target, dict):
            raise TypeError


def _key(key: object) -> str:
    """A dictionary's key. Of other types, a key of nested tuples could take hours to hash, and integers could collide.

    Integers, which are keys in the states of optimizers, become text.
    """
    if not isinstance(key, str | int):
        raise WeightFileError("a dictionary of its pickle has a key that is not a string")
    return str(key)


def _tensor(
    storage: object, offset: object, shape: object, strides: object, _grad: object, _hooks: object, marks: object = None
) -> TensorRef:
    """The arguments of torch's _rebuild_tensor_v2. `marks`: a dictionary of what the view does to each number."""
    if not isinstance(storage, StorageRef) or not isinstance(shape, tuple) or not isinstance(strides, tuple):
        raise TypeError
    if marks:
        raise WeightFileError(
            "a tensor is stored with the opposite sign (a view that torch negates lazily): save it after resolve_neg()"
        )
    for number in (offset, *shape, *strides):
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < _MAX_INTEGER:
            raise WeightFileError(
                "a tensor's shape, strides or offset has a value that is not an integer from 0 to 2**62"
            )
    if len(shape) != len(strides) or len(shape) > _MAX_AXES:
        raise WeightFileError(f"a tensor has more than {_MAX_AXES} axes, or not one stride for each")
    assert isinstance(offset, int)
    return TensorRef(storage, offset, shape, strides)


def _nothing(machine: _Machine, _: Any) -> None:
    """An instruction about the pickle itself."""


_Step = Callable[[_Machine, Any], None]
_STEPS: dict[str, _Step] = {
    **dict.fromkeys(("PROTO", "FRAME"), _nothing),
    **dict.fromkeys(
        ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
        _Machine.push,
    ),
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "MARK": _Machine.mark,
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_SET": lambda machine, _: machine.push([]),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.since_mark())),
    "TUPLE1": lambda machine, _: machine.push(tuple(machine.take(1))),
    "TUPLE2": lambda machine, _: machine.push(tuple(machine.take(2))),
    "TUPLE3": lambda machine, _: machine.push(tuple(machine.take(3))),
    "SETITEM": lambda machine, _: machine.set_items(machine.take(2)),
    "SETITEMS": lambda machine, _: machine.set_items(machine.since_mark()),
    "APPEND": lambda machine, _: machine.append(machine.take(1)),
    "APPENDS": lambda machine, _: machine.append(machine.since_mark()),
    "BINPUT": lambda machine, index: machine.memo.__setitem__(index, machine.stack[-1]),
    "LONG_BINPUT": lambda machine, index: machine.memo.__setitem__(index, machine.stack[-1]),
    "MEMOIZE": lambda machine, _: machine.memo.__setitem__(len(machine.memo), machine.stack[-1]),
    "BINGET": lambda machine, index: machine.push(machine.memo[index]),
    "LONG_BINGET": lambda machine, index: machine.push(machine.memo[index]),
    "GLOBAL": lambda machine, names: machine.name(*names.split(" ", 1)),
    "STACK_GLOBAL": lambda machine, _: machine.name(*machine.take(2)),
    "BINPERSID": lambda machine, _: machine.storage(),
    "REDUCE": lambda machine, _: machine.call(),
    "NEWOBJ": lambda machine, _: machine.new(),
    "BUILD": lambda machine, _: machine.build(),
}
