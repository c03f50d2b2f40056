"""The reader of .safetensors files."""

from __future__ import annotations

import gc
import os
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from runtime.checkpoints.checkpoint import Component, WeightFile
from runtime.engines.engine import never_cancelled
from runtime.files.safetensors_file import NotFiniteError, SafetensorsFile, WeightFileError
from runtime.files.stored_file import FileChangedError, file_fingerprint
from runtime.weights.read_base import read_base
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
    tensors["bool"] = torch.tensor([True, False, True])
    save_file(tensors, path, {"note": "metadata is no tensor"})
    file = SafetensorsFile(path)
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
    file = SafetensorsFile(path, finite=True, names=names)
    for name in asked:
        assert torch.equal(file.read(name), tensors[name])


def test_threads_read_side_by_side(path: Path) -> None:
    tensors = {str(number): noise(512, 512, seed=number) for number in range(64)}
    save_file(tensors, path)
    file = SafetensorsFile(path, finite=True, names=tensors.keys())
    with ThreadPoolExecutor(8) as pool:
        for name, found in zip(tensors, pool.map(file.read, tensors), strict=True):
            assert torch.equal(found, tensors[name])


def test_what_nobody_asked_for_is_not_read(path: Path) -> None:
    save_file({"a": torch.full((4,), float("nan")), "b": noise(4)}, path)
    assert torch.equal(SafetensorsFile(path, finite=True, names=["b"]).read("b"), noise(4))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", FLOATS)
def test_one_number_that_is_not_finite_is_found_wherever_it_is(path: Path, dtype: torch.dtype, value: float) -> None:
    for place in (0, 1, 37, 255, 4095, 4097, 9998, 9999):
        tensors = {name: noise(10_000).to(dtype) for name in "abc"}
        tensors["b"][place] = value
        save_file(tensors, path)
        with pytest.raises(NotFiniteError, match="b has a value that is not finite in float32"):
            SafetensorsFile(path, finite=True, names=tensors.keys()).read("b")


def test_what_float32_does_not_hold_is_not_finite(path: Path) -> None:
    save_file({"a": torch.tensor([1.0, 1e39, 1.0], dtype=torch.float64)}, path)
    with pytest.raises(NotFiniteError):
        SafetensorsFile(path, finite=True, names=["a"]).read("a")


def test_a_file_that_is_cut_short_while_it_is_open_ends_nothing(path: Path) -> None:
    tensors = {"a": noise(4), "b": noise(2 << 20)}
    save_file(tensors, path)
    file = SafetensorsFile(path, finite=True, names=tensors.keys())
    os.truncate(path, path.stat().st_size // 2)
    assert torch.equal(file.read("a"), noise(4))
    with pytest.raises(FileChangedError):
        file.read("b")


@pytest.mark.parametrize("dtype", FLOATS)
def test_base_weights_may_hold_numbers_that_are_not_finite(path: Path, dtype: torch.dtype) -> None:
    save_file({"a": torch.tensor([float("inf"), 1.0]).to(dtype)}, path)
    assert SafetensorsFile(path).read("a")[0] == float("inf")


def test_a_file_that_was_changed_since_its_fingerprint_is_refused(path: Path) -> None:
    save_file({"a": noise(4)}, path)
    fingerprint = file_fingerprint(path)
    assert torch.equal(SafetensorsFile(path, fingerprint).read("a"), noise(4))
    with pytest.raises(FileChangedError):
        SafetensorsFile(path, "another")
    file = SafetensorsFile(path, fingerprint)
    os.utime(path, ns=(0, 0))
    with pytest.raises(FileChangedError):
        file.read("a")
    with pytest.raises(FileChangedError):
        SafetensorsFile(path, fingerprint)


@pytest.mark.parametrize("dtype", FLOATS[1:])
def test_floats_are_read_without_torch(path: Path, dtype: torch.dtype) -> None:
    save_file({"a": noise(3), "b": noise(4, 5).to(dtype)}, path)
    found = SafetensorsFile(path).read_floats("b")
    assert np.array_equal(found, noise(4, 5).to(dtype).float().flatten().numpy())


def test_a_dtype_that_torch_has_not_is_refused(path: Path) -> None:
    header = b'{"a":{"dtype":"F8_E8M0","shape":[4],"data_offsets":[0,4]}}'
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(WeightFileError, match="a has dtype F8_E8M0; expected one of F64"):
        SafetensorsFile(path).read("a")


def test_a_base_is_read_one_tensor_at_a_time_and_never_mapped(path: Path) -> None:
    """The whole file has 128 MB. A generator that kept what it has read would hold all of them at its end."""
    names = [f"down_blocks.{number}.resnets.0.conv1.weight" for number in range(16)]
    save_file({name: torch.ones(2 << 20) for name in names}, path)
    component = Component(role="unet", config={}, files=(WeightFile(path=path, digest="0"),))
    before, most, count = _resident(), 0, 0
    for _, tensor in read_base(component, names, never_cancelled):
        assert tensor[-1] == 1
        most, count = max(most, _resident()), count + 1
        assert str(path) not in Path("/proc/self/maps").read_text()
    assert count == 16
    assert most - before < 48 << 20


def test_views_of_one_stored_tensor_share_one_read(path: Path) -> None:
    name = "conditioner.embedders.1.model.transformer.resblocks.0.attn.in_proj_bias"
    save_file({name: noise(12)}, path)
    files = (WeightFile(path=path, digest="0"),)
    component = Component(role="text_encoder_2", config={}, files=files, layout="original")
    found = dict(read_base(component, component.shapes.keys(), never_cancelled))
    assert len(found) == 3
    assert len({tensor.untyped_storage().data_ptr() for tensor in found.values()}) == 1


def test_what_is_no_such_file_is_refused(path: Path) -> None:
    with pytest.raises(WeightFileError):
        SafetensorsFile(path, finite=True, names=[])
    path.write_bytes(b"no tensors")
    with pytest.raises(WeightFileError):
        SafetensorsFile(path, finite=True, names=[])


def test_a_file_that_has_lost_a_tensor_was_changed(path: Path) -> None:
    save_file({"a": noise(4)}, path)
    with pytest.raises(FileChangedError):
        SafetensorsFile(path, finite=True, names=["a", "b"])


def test_it_is_closed_when_nobody_holds_it(path: Path) -> None:
    save_file({"a": noise(4)}, path)
    files = [SafetensorsFile(path, finite=True, names=["a"]) for _ in range(10)]
    assert _times_open(path) == 10
    del files
    gc.collect()
    assert _times_open(path) == 0


def _resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _times_open(path: Path) -> int:
    """How many of this process's descriptors are of the file; others come and go meanwhile."""
    descriptors = Path("/proc/self/fd").iterdir()
    return sum(os.path.realpath(descriptor) == str(path.resolve()) for descriptor in descriptors)
