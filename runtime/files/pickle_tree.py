"""What a file of torch.save holds: a tree of plain values and references to tensors."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from lorikeet.protocol.shorten import shorten
from runtime.files.safetensors_file import WeightFileError

_MAX_DEPTH = 16
_MAX_VALUES = 1 << 17
_MAX_NAMES = 32 << 20  # characters of all names together
_STATE_DICT = "state_dict"  # a training checkpoint's weights
_EMBEDDINGS = "string_to_param"  # the vectors of a textual-inversion embedding of A1111, beside plain values


@dataclass(frozen=True)
class StorageRef:
    """A file `data/<key>` of the archive, the safetensors name of its dtype, and the bytes of an item."""

    key: str
    dtype: str
    itemsize: int


@dataclass(frozen=True)
class TensorRef:
    """A view of a storage. Offset and strides count items."""

    storage: StorageRef
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.storage.itemsize

    @property
    def span(self) -> int:
        """Bytes of the storage from the first item to the last."""
        last = sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))
        return (last + 1) * self.storage.itemsize if self.nbytes else 0

    @property
    def is_contiguous(self) -> bool:
        expected = 1
        for size, stride in zip(reversed(self.shape), reversed(self.strides), strict=True):
            if size != 1 and stride != expected:
                return False
            expected *= size
        return True


@dataclass
class ParameterDict:
    """A torch.nn.ParameterDict. It refers to its content: a pickle could name one large dictionary 100,000 times."""

    content: dict[str, Any] = field(default_factory=dict)


Tree: TypeAlias = "dict[str, Tree] | list[Tree] | str | int | float | TensorRef | None"


def to_tree(value: object) -> Tree:
    """A copy of what a pickle describes; a tuple becomes a list. Its depth and the number of its values are bounded.

    A pickle can refer to one value many times, or to a value within itself: the bounds end such a copy.
    Raises WeightFileError.
    """
    return _Copy().copy(value, _MAX_DEPTH)


class _Copy:
    def __init__(self) -> None:
        self._left = _MAX_VALUES

    def copy(self, value: object, depth: int) -> Tree:
        self._left -= 1
        if self._left < 0:
            raise WeightFileError(f"its pickle holds more than {_MAX_VALUES} values")
        if value is None or isinstance(value, str | int | float | TensorRef):
            return value
        if depth == 0:
            raise WeightFileError(f"its pickle is nested deeper than {_MAX_DEPTH} levels")
        if isinstance(value, ParameterDict):
            value = value.content
        if isinstance(value, dict):
            return {key: self.copy(item, depth - 1) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.copy(item, depth - 1) for item in value]
        raise WeightFileError("its pickle holds a class or a storage where a value is expected")


def named_tensors(tree: Tree) -> dict[str, TensorRef]:
    """The tensors of a state dict, or of nested ones, by their names joined with ".".

    A training checkpoint gives its `state_dict`, which may be in another one, an embedding of A1111 its
    `string_to_param`. Every other value must be a tensor. Raises WeightFileError.
    """
    while isinstance(tree, dict) and isinstance(tree.get(_STATE_DICT), dict):
        tree = tree[_STATE_DICT]
    if isinstance(tree, dict) and isinstance(tree.get(_EMBEDDINGS), dict):
        tree = {_EMBEDDINGS: tree[_EMBEDDINGS]}
    if not isinstance(tree, dict):
        raise WeightFileError("it holds no dictionary of tensors")
    tensors: dict[str, TensorRef] = {}
    characters = 0
    for name, value in _flat(tree, ""):
        characters += len(name)
        if characters > _MAX_NAMES:
            raise WeightFileError(f"the names of its tensors have more than {_MAX_NAMES} characters")
        if isinstance(value, TensorRef):
            if name in tensors or name == "__metadata__":
                raise WeightFileError(f"its entry {shorten(name)} is there twice or has a reserved name")
            tensors[name] = value
        elif not isinstance(value, dict):
            raise WeightFileError(f"its entry {shorten(name)} is {type(value).__name__}; expected a tensor")
    if not tensors:
        raise WeightFileError("it holds no tensors")
    return tensors


def _flat(tree: dict[str, Tree], prefix: str) -> Iterator[tuple[str, Tree]]:
    """Every entry of the dictionary and of those within it, before what is within it."""
    for key, value in tree.items():
        yield prefix + key, value
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
