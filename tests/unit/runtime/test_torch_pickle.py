"""Weights that torch.save wrote are read as torch reads them, and kept as safetensors."""

from __future__ import annotations

import time
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, load_file

from runtime.files.pickle_tree import TensorRef
from runtime.files.resolve import FileResolver, ResolveContext
from runtime.files.store import Store
from runtime.files.stored_file import FileChangedError
from runtime.files.torch_pickle import is_pickled, read_torch_pickle, to_safetensors
from runtime.settings import Settings
from tests.unit.runtime.torch_files import assert_equal, converted, saved, some_tensors


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize(
    "wrap",
    [
        dict,
        OrderedDict,
        lambda tensors: {"state_dict": tensors},
        lambda tensors: {n: torch.nn.Parameter(t, False) for n, t in tensors.items()},
    ],
)
def test_what_torch_saved_is_read(tmp_path: Path, wrap: Any, protocol: int) -> None:
    tensors = some_tensors()
    found = converted(tmp_path / "a.pt", saved(wrap(tensors), pickle_protocol=protocol))
    assert_equal(found, tensors)


def test_a_state_dict_of_a_module_is_read(tmp_path: Path) -> None:
    """It has attributes (`_metadata`), which are no tensors."""
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4))
    assert_equal(converted(tmp_path / "a.bin", saved(module.state_dict())), module.state_dict())


def test_an_integer_is_a_key_as_text(tmp_path: Path) -> None:
    assert_equal(converted(tmp_path / "a.pt", saved({768: torch.ones(1)})), {"768": torch.ones(1)})


def test_an_ip_adapter_keeps_its_names_joined_by_dots(tmp_path: Path) -> None:
    image_proj = {"proj.weight": torch.randn(8, 4), "norm.bias": torch.randn(4)}
    ip_adapter = OrderedDict({"1.to_k_ip.weight": torch.randn(3, 4).half()})
    found = converted(tmp_path / "a.bin", saved({"image_proj": image_proj, "ip_adapter": ip_adapter}))
    expected = {f"image_proj.{name}": tensor for name, tensor in image_proj.items()}
    assert_equal(found, expected | {f"ip_adapter.{name}": tensor for name, tensor in ip_adapter.items()})


@pytest.mark.parametrize("protocol", [2, 5])
@pytest.mark.parametrize("wrap", [lambda vectors: vectors, lambda vectors: torch.nn.Parameter(vectors, False)])
def test_a_textual_inversion_embedding_of_a1111_is_a_tree(tmp_path: Path, wrap: Any, protocol: int) -> None:
    vectors = torch.randn(2, 768)
    path = tmp_path / "a.pt"
    content = {
        "string_to_token": {"*": 265},
        "string_to_param": {"*": wrap(vectors)},
        "name": "style",
        "step": 500,
        "loss": 0.25,
        "sd_checkpoint": None,
        "is_final": True,
        "sizes": [64, (1, 2)],
    }
    assert_equal(converted(path, saved(content, pickle_protocol=protocol)), {"string_to_param.*": vectors})
    tree = read_torch_pickle(path)
    assert isinstance(tree, dict)
    (reference,) = tree.pop("string_to_param").values()  # type: ignore[union-attr]
    assert isinstance(reference, TensorRef)
    assert (reference.storage.dtype, reference.shape) == ("F32", (2, 768))
    assert tree == {
        "string_to_token": {"*": 265},
        "name": "style",
        "step": 500,
        "loss": 0.25,
        "sd_checkpoint": None,
        "is_final": True,
        "sizes": [64, [1, 2]],
    }


def test_tensors_that_share_their_data_are_each_whole(tmp_path: Path) -> None:
    tensor = torch.randn(50)
    assert_equal(converted(tmp_path / "a.pt", saved({"a": tensor, "b": tensor})), {"a": tensor, "b": tensor})


@pytest.mark.parametrize(
    ("start", "expected"),
    [(b"PK\x03\x04", True), (b"\x80\x02}q\x00.", True), (b"\x80\x02" + bytes(6) + b"{", False), (b"", False)],
)
def test_the_format_is_told_from_the_content(tmp_path: Path, start: bytes, expected: bool) -> None:
    (tmp_path / "a").write_bytes(start)
    assert is_pickled(tmp_path / "a") is expected


def test_a_pickled_file_is_kept_as_safetensors_under_its_own_digest(settings: Settings, store: Store) -> None:
    tensors = some_tensors()
    sources, request = FileResolver(settings, store), ResolveContext([saved(tensors)], store.pins(), lambda: None)
    path = settings.local_paths[0] / "lora.pt"
    path.write_bytes(request.files[0])
    first, second, local = (sources.lora("f", value, request) for value in ("tensor:0", "tensor:0", "lora.pt"))
    assert first == second == local
    assert first.digest == store.digest_local(path).digest
    assert first.path.is_relative_to(settings.store)
    assert_equal(load_file(first.path), tensors)


def test_a_file_that_changes_before_it_is_converted_is_not_remembered(
    settings: Settings, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = settings.local_paths[0] / "lora.pt"
    path.write_bytes(saved({"a": torch.ones(5)}))
    hashed = store.digest_local(path)
    time.sleep(0.05)  # a clock tick is milliseconds long
    path.write_bytes(saved({"a": torch.zeros(5)}))
    sources, request = (
        FileResolver(settings, store),
        ResolveContext([saved({"a": torch.ones(5)})], store.pins(), lambda: None),
    )
    with monkeypatch.context() as patch:
        patch.setattr(store, "digest_local", lambda *_: hashed)
        with pytest.raises(FileChangedError):
            sources.lora("f", "lora.pt", request)
    assert_equal(load_file(sources.lora("f", "tensor:0", request).path), {"a": torch.ones(5)})


def test_a_large_tensor_that_is_no_block_is_read_piece_by_piece(tmp_path: Path) -> None:
    tensor = torch.arange(3_000_000, dtype=torch.float32).reshape(1500, 2000)
    path = tmp_path / "a"
    path.write_bytes(saved({"a": tensor.T}))
    chunks = list(to_safetensors(path))
    assert max(map(len, chunks)) <= 1 << 20
    assert_equal(load(b"".join(chunks)), {"a": tensor.T.contiguous()})
