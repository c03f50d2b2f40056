"""The changes that a LoRA file makes to one component of a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from runtime.files.safetensors_file import NotFiniteError, SafetensorsFile, WeightFileError
from runtime.files.safetensors_header import TensorInfo
from runtime.files.stored_file import FileChangedError, StoredFile, check_unchanged
from runtime.float32 import is_finite_in_float32
from runtime.lora.kinds import dora
from runtime.lora.kinds.lora_kind import Shape
from runtime.lora.lora_error import LoraError
from runtime.lora.lora_layer import LoraLayer
from runtime.weights.change import Change


class LoraChanges:
    """A ChangeSource: `scale * alpha / rank` times what the file's tensors make, for the layers given.

    Nothing is read before `read`, so weights that are in memory already need no reading. The tensors are float32.
    `read` and `check_unchanged` raise `refused` of a message: a number is not finite in float32, or the file has
    changed. `tensors`: those of the file's header, if it was read for the fingerprint of `stored`.
    """

    def __init__(
        self,
        stored: StoredFile,
        layers: Sequence[LoraLayer],
        scale: float,
        refused: Callable[[str], Exception] = LoraError,
        tensors: Mapping[str, TensorInfo] | None = None,
    ) -> None:
        self._stored, self._scale, self._refused = stored, scale, refused
        self._layers = {layer.target.parameter: layer for layer in layers}
        names = [name for layer in layers for name in layer.tensor_names]
        self._file = SafetensorsFile(stored.path, stored.fingerprint, names, finite=True, tensors=tensors)

    @property
    def names(self) -> Collection[str]:
        return self._layers.keys()

    @property
    def digest(self) -> str:
        return f"{self._stored.digest}*{self._scale!r}"

    def rank(self, name: str) -> int | None:
        return self._layers[name].low_rank

    def shape(self, name: str) -> Shape:
        return self._layers[name].shape

    def read(self, name: str) -> Change:
        layer = self._layers[name]
        try:
            tensors = {tensor: self._file.read(tensor) for tensor in layer.tensor_names}
        except (NotFiniteError, WeightFileError, FileChangedError) as error:
            raise self._refused(str(error)) from error
        alpha = float(tensors[layer.alpha]) if isinstance(layer.alpha, str) else layer.alpha
        scaling = layer.scaling(alpha)
        if not is_finite_in_float32(scaling * self._scale):
            place = f"{layer.target.component}.{name}"
            raise self._refused(f"{place}: the scale {self._scale:g} times alpha / rank is not finite in float32")
        factors = {role: tensors[key].float() for role, key in layer.keys.items()}
        if layer.magnitude is None:
            return layer.kind.change(factors, scaling * self._scale)
        role, key = layer.magnitude
        return dora.decomposed(layer.kind, factors, tensors[key].float(), role, scaling, self._scale)

    def check_unchanged(self) -> None:
        try:
            check_unchanged(self._stored.path, self._stored.fingerprint)
        except FileChangedError as error:
            raise self._refused(str(error)) from error
