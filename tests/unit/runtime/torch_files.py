"""Files that torch.save writes, as the runtime reads them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load

from runtime.files.torch_pickle import to_safetensors

Tensors = dict[str, torch.Tensor]


class DeviceTensor:
    """As torch pickles a tensor of a device without storages, by one of the functions of `torch._utils`."""

    def __init__(self, function: str) -> None:
        self._function = function

    def __reduce__(self) -> Any:
        return getattr(torch._utils, self._function), (torch.ones(3, 32), torch.float32, "mps", False)


def saved(content: object, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


def converted(path: Path, content: bytes) -> Tensors:
    path.write_bytes(content)
    return load(b"".join(to_safetensors(path)))


def some_tensors() -> Tensors:
    whole = torch.arange(24.0).reshape(4, 6)
    return {
        "a.lora_down.weight": torch.randn(3, 5),
        "half": torch.randn(7).half(),
        "bfloat16": torch.randn(2, 3, 1, 1).bfloat16(),
        "double": torch.randn(1).double(),
        "a.alpha": torch.tensor(4.0),
        "integer": torch.tensor(4),
        "one byte": torch.arange(3, dtype=torch.uint8),
        "empty": torch.zeros(0, 4),
        "part": whole[1:3, 2:4],
        "transposed": whole.T,
        "umlaut ü": torch.ones(1),
    }


def assert_equal(found: Tensors, expected: Tensors) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name
