"""Reads the alphas of a LoRA file, one number a layer, without torch and without the other tensors."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np

from runtime.files.safetensors_file import NotFiniteError
from runtime.files.safetensors_header import TensorInfo
from runtime.files.stored_file import FileChangedError, StoredFile, file_fingerprint
from runtime.float32 import is_finite_in_float32
from runtime.lora.lora_error import LoraError
from runtime.lora.lora_file import LoraContents

_NUMPY = {"F64": "<f8", "F32": "<f4", "F16": "<f2"} | {
    f"{sign}{bits}": f"<{sign.lower()}{bits // 8}" for sign in "IU" for bits in (8, 16, 32, 64)
}


def read_alphas(stored: StoredFile, contents: LoraContents) -> dict[str, float]:
    """Tensor name -> its number, for each alpha that is a tensor of the file `stored` with these contents.

    Raises LoraError when a number is not finite in float32, and FileChangedError.
    """
    infos = {
        layer.alpha: contents.header.tensors[layer.alpha] for layer in contents.layers if isinstance(layer.alpha, str)
    }
    data = _read(stored, infos) if infos else {}
    alphas = {name: _number(data[name], info.dtype) for name, info in infos.items()}
    for name, alpha in alphas.items():
        if not is_finite_in_float32(alpha):
            raise LoraError(str(NotFiniteError(name)))
    return alphas


def _read(stored: StoredFile, infos: Mapping[str, TensorInfo]) -> dict[str, bytes]:
    try:
        with stored.path.open("rb", buffering=0) as file:
            descriptor = file.fileno()
            data = {name: os.pread(descriptor, info.end - info.begin, info.begin) for name, info in infos.items()}
            is_changed = bool(stored.fingerprint) and stored.fingerprint != file_fingerprint(descriptor)
    except OSError as error:
        raise FileChangedError(stored.path) from error
    if is_changed or any(len(data[name]) != info.end - info.begin for name, info in infos.items()):
        raise FileChangedError(stored.path)
    return data


def _number(data: bytes, dtype: str) -> float:
    if dtype == "BF16":  # unknown to numpy: the upper half of a float32
        data, dtype = b"\0\0" + data, "F32"
    return float(np.frombuffer(data, _NUMPY[dtype])[0])
