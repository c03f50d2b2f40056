"""Offsets: a change of weights that is stored as the difference itself, as IC-Light's files are."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runtime.files.safetensors_file import NotFiniteError, SafetensorsFile, WeightFileError
from runtime.files.stored_file import FileChangedError, StoredFile, check_unchanged
from runtime.weights.change import Change
from runtime.weights.reshaped import reshaped

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Offset:
    """A Change that does not depend on the weight. It may have more input channels than the weight."""

    tensor: torch.Tensor

    def delta(self, base: torch.Tensor) -> torch.Tensor:
        return reshaped(self.tensor.to(base.device).float(), base.shape)


class OffsetChanges:
    """A ChangeSource. `parameters`: parameter's name -> stored name; `shapes`: by parameter's name.

    `read` and `check_unchanged` raise `refused` of a message: a number is not finite, or the file has changed.
    """

    def __init__(
        self,
        stored: StoredFile,
        parameters: Mapping[str, str],
        shapes: Mapping[str, Sequence[int]],
        refused: Callable[[str], Exception],
    ) -> None:
        self._stored, self._parameters, self._shapes, self._refused = stored, parameters, shapes, refused
        self._file = SafetensorsFile(stored.path, stored.fingerprint, list(parameters.values()), finite=True)

    @property
    def names(self) -> Collection[str]:
        return self._parameters.keys()

    @property
    def digest(self) -> str:
        return f"{self._stored.digest}*offset"

    def rank(self, name: str) -> int | None:
        return None

    def shape(self, name: str) -> Sequence[int]:
        return self._shapes[name]

    def read(self, name: str) -> Change:
        try:
            return Offset(self._file.read(self._parameters[name]))
        except (NotFiniteError, WeightFileError, FileChangedError) as error:
            raise self._refused(str(error)) from error

    def check_unchanged(self) -> None:
        try:
            check_unchanged(self._stored.path, self._stored.fingerprint)
        except FileChangedError as error:
            raise self._refused(str(error)) from error
