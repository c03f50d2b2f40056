"""Tensors of a file, read by their names."""

from __future__ import annotations

import gc
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from runtime.files.store import FileChangedError
from runtime.files.tensor_file import TensorFile
from runtime.files.tensors import WeightFileError
from tests.unit.runtime.engines import noise

INTEGERS = [torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.uint16, torch.uint32, torch.uint64]
FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.safetensors"


def test_every_tensor_is_the_one_that_the_library_reads(path: Path) -> None:
    tensors = {str(dtype): noise(3, 5, 7).to(dtype) for dtype in FLOATS}
    tensors |= {str(dtype): torch.arange(6).reshape(2, 3).to(dtype) for dtype in INTEGERS}
    tensors |= {"number": torch.tensor(2.5), "nothing": torch.zeros(0, 4), "odd": torch.ones(3, dtype=torch.int8)}
    save_file(tensors, path, {"note": "metadata is no tensor"})
    file = TensorFile(path)
    for name, expected in load_file(path).items():
        found = file.read(name)
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        assert torch.equal(found, expected)


def test_threads_read_side_by_side(path: Path) -> None:
    tensors = {str(number): noise(64, 64, seed=number) for number in range(64)}
    save_file(tensors, path)
    file = TensorFile(path)
    with ThreadPoolExecutor(8) as pool:
        for name, found in zip(tensors, pool.map(file.read, tensors), strict=True):
            assert torch.equal(found, tensors[name])


def test_a_file_that_is_cut_short_while_it_is_open_ends_nothing(path: Path) -> None:
    save_file({"a": noise(4), "b": noise(1 << 16)}, path)
    file = TensorFile(path)
    os.truncate(path, path.stat().st_size // 2)
    assert torch.equal(file.read("a"), noise(4))
    with pytest.raises(FileChangedError):
        file.read("b")


def test_what_is_no_such_file_is_refused(path: Path) -> None:
    with pytest.raises(WeightFileError):
        TensorFile(path)
    path.write_bytes(b"no tensors")
    with pytest.raises(WeightFileError):
        TensorFile(path)


def test_it_is_closed_when_nobody_holds_it(path: Path) -> None:
    save_file({"a": noise(4)}, path)
    files = [TensorFile(path) for _ in range(10)]
    assert _times_open(path) == 10
    del files
    gc.collect()
    assert _times_open(path) == 0


def _times_open(path: Path) -> int:
    """How many of this process's descriptors are of the file; others come and go meanwhile."""
    descriptors = Path("/proc/self/fd").iterdir()
    return sum(os.path.realpath(descriptor) == str(path.resolve()) for descriptor in descriptors)
