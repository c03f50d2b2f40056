"""A LoRA's changes for one component of a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch

from runtime.files.tensor_file import NotFiniteError, TensorFile
from runtime.lora.kinds import dora
from runtime.lora.lora_error import LoraError
from runtime.lora.lora_file import LoraLayer
from runtime.weights.change import Change

_MAX = torch.finfo(torch.float32).max


class LoraChanges(Mapping[str, Change]):
    """Parameter name -> its change: `scale * alpha / rank` times what the file's tensors make.

    A change is read when it is asked for, by any thread: weights that are there already need none. Its tensors are
    float32. Asking raises `refused` of a message when one is not finite, and FileChangedError.
    """

    def __init__(
        self,
        path: Path,
        layers: Sequence[LoraLayer],
        scale: float,
        refused: Callable[[str], Exception] = LoraError,
    ) -> None:
        self._scale, self._refused = scale, refused
        self._layers = {layer.target.parameter: layer for layer in layers}
        self._file = TensorFile(path, [name for layer in layers for name in layer.tensor_names])

    def __iter__(self) -> Iterator[str]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)

    def __contains__(self, parameter: object) -> bool:
        return parameter in self._layers

    def __getitem__(self, parameter: str) -> Change:
        layer = self._layers[parameter]
        try:
            tensors = {name: self._file.read(name) for name in layer.tensor_names}
        except NotFiniteError as error:
            raise self._refused(str(error)) from error
        alpha = float(tensors[layer.alpha]) if isinstance(layer.alpha, str) else layer.alpha
        scaling = layer.scaling(alpha)
        if not abs(scaling * self._scale) <= _MAX:
            name = f"{layer.target.component}.{parameter}"
            raise self._refused(f"{name}: its scale, {self._scale:g} times alpha / rank, is not finite in float32")
        factors = {role: tensors[name].float() for role, name in layer.keys.items()}
        if layer.magnitude is None:
            return layer.kind.change(factors, scaling * self._scale)
        role, name = layer.magnitude
        return dora.decomposed(layer.kind, factors, tensors[name].float(), role, scaling, self._scale)
