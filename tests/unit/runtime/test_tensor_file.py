"""Tensors of a file, read by their names."""

from __future__ import annotations

import gc
import os
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from runtime.files.safetensors_file import WeightFileError
from runtime.files.store import FileChangedError
from runtime.files.tensor_file import NotFiniteError, TensorFile
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
    file = TensorFile(path, tensors.keys())
    for name, expected in load_file(path).items():
        found = file.read(name)
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        assert torch.equal(found, expected)


@pytest.mark.parametrize("seed", range(4))
def test_they_may_be_asked_for_in_any_order_and_again(path: Path, seed: int) -> None:
    """Some of them, of several dtypes, some of which lie apart, on both sides of where a portion ends."""
    tensors = {
        f"{number:03}": noise(1 << (9 + number % 12), seed=number).to(FLOATS[number % 2 + 1]) for number in range(48)
    }
    save_file(tensors, path)
    names = [name for number, name in enumerate(tensors) if number % 7]
    asked = names + names[:5]
    random.Random(seed).shuffle(asked)
    file = TensorFile(path, names)
    for name in asked:
        assert torch.equal(file.read(name), tensors[name])


def test_threads_read_side_by_side(path: Path) -> None:
    tensors = {str(number): noise(512, 512, seed=number) for number in range(64)}
    save_file(tensors, path)
    file = TensorFile(path, tensors.keys())
    with ThreadPoolExecutor(8) as pool:
        for name, found in zip(tensors, pool.map(file.read, tensors), strict=True):
            assert torch.equal(found, tensors[name])


def test_what_nobody_asked_for_is_not_read(path: Path) -> None:
    save_file({"a": torch.full((4,), float("nan")), "b": noise(4)}, path)
    assert torch.equal(TensorFile(path, ["b"]).read("b"), noise(4))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", FLOATS)
def test_one_number_that_is_not_finite_is_found_wherever_it_is(path: Path, dtype: torch.dtype, value: float) -> None:
    for place in (0, 1, 37, 255, 4095, 4097, 9998, 9999):
        tensors = {name: noise(10_000).to(dtype) for name in "abc"}
        tensors["b"][place] = value
        save_file(tensors, path)
        with pytest.raises(NotFiniteError, match="b is not finite in float32"):
            TensorFile(path, tensors.keys()).read("b")


def test_what_float32_does_not_hold_is_not_finite(path: Path) -> None:
    save_file({"a": torch.tensor([1.0, 1e39, 1.0], dtype=torch.float64)}, path)
    with pytest.raises(NotFiniteError):
        TensorFile(path, ["a"]).read("a")


def test_a_file_that_is_cut_short_while_it_is_open_ends_nothing(path: Path) -> None:
    tensors = {"a": noise(4), "b": noise(2 << 20)}
    save_file(tensors, path)
    file = TensorFile(path, tensors.keys())
    os.truncate(path, path.stat().st_size // 2)
    assert torch.equal(file.read("a"), noise(4))
    with pytest.raises(FileChangedError):
        file.read("b")


def test_what_is_no_such_file_is_refused(path: Path) -> None:
    with pytest.raises(WeightFileError):
        TensorFile(path, [])
    path.write_bytes(b"no tensors")
    with pytest.raises(WeightFileError):
        TensorFile(path, [])


def test_a_file_that_has_lost_a_tensor_was_changed(path: Path) -> None:
    save_file({"a": noise(4)}, path)
    with pytest.raises(FileChangedError):
        TensorFile(path, ["a", "b"])


def test_it_is_closed_when_nobody_holds_it(path: Path) -> None:
    save_file({"a": noise(4)}, path)
    files = [TensorFile(path, ["a"]) for _ in range(10)]
    assert _times_open(path) == 10
    del files
    gc.collect()
    assert _times_open(path) == 0


def _times_open(path: Path) -> int:
    """How many of this process's descriptors are of the file; others come and go meanwhile."""
    descriptors = Path("/proc/self/fd").iterdir()
    return sum(os.path.realpath(descriptor) == str(path.resolve()) for descriptor in descriptors)
