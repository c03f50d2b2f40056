"""The header of a weight file is parsed once, and never served for another file."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from runtime.files.header_cache import HeaderCache
from runtime.files.safetensors_file import WeightFileError, read_header
from runtime.files.safetensors_header import MAX_HEADER, MAX_TENSORS, Header, HeaderText, parse_header
from runtime.stages.prepare.stage import PrepareStage
from tests.unit.runtime.lora_files import linear
from tests.unit.runtime.prepare_requests import ask
from tests.unit.runtime.web import Web, reply

_LENGTH = 8  # bytes before the header


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> Counter[HeaderText]:
    """How often each header is parsed from now on; no header is known."""
    counts: Counter[HeaderText] = Counter()

    def count(text: HeaderText) -> Header:
        counts[text] += 1
        return parse_header(text)

    monkeypatch.setattr("runtime.files.header_cache.parse_header", count)
    monkeypatch.setattr("runtime.files.safetensors_file._headers", HeaderCache())
    return counts


def _header_of(content: bytes) -> HeaderText:
    length = int.from_bytes(content[:_LENGTH], "little")
    return HeaderText(content[_LENGTH : _LENGTH + length], len(content))


def _text(json: bytes) -> HeaderText:
    """The header of a file without data."""
    return HeaderText(json, _LENGTH + len(json))


def _largest_lora() -> bytes:
    """A LoRA of as many tensors as a file may have."""
    tensors = {name: tensor.numpy() for name, tensor in linear().items()}
    more = range(MAX_TENSORS - len(tensors))
    return save(tensors | {f"bundle_emb.{number}.clip_l": np.zeros(1, np.float32) for number in more})


@pytest.mark.parametrize("place", ["tensor:0", "URL"])
def test_the_header_of_a_lora_is_parsed_once(
    stage: PrepareStage, web: Web, parsed: Counter[HeaderText], place: str
) -> None:
    """Its check, its layers and the next request read it."""
    content = _largest_lora()
    web.answers["/a"] = reply(content)
    for _ in range(2):
        assert ask(stage, [content], loras=[{"path": web.url("/a") if place == "URL" else place}]).plan
    assert parsed[_header_of(content)] == 1


@pytest.mark.parametrize("place", ["tensor:0", "lcm/unet/diffusion_pytorch_model.safetensors"])
def test_the_header_of_a_unet_is_parsed_once(
    stage: PrepareStage, tiny: Path, parsed: Counter[HeaderText], place: str
) -> None:
    content = (tiny / "lcm/unet/diffusion_pytorch_model.safetensors").read_bytes()
    assert ask(stage, [content], unet_name=place).plan
    assert parsed[_header_of(content)] == 1


@pytest.mark.parametrize("bounds", [{"max_headers": 2}, {"max_bytes": 2 * len(b'{"__metadata__":{"n":"a"}}')}])
def test_the_least_recently_used_header_is_evicted(parsed: Counter[HeaderText], bounds: dict[str, int]) -> None:
    cache = HeaderCache(**bounds)
    a, b, c = (_text(b'{"__metadata__":{"n":"%b"}}' % name) for name in (b"a", b"b", b"c"))
    for text in (a, b, a, c, a, b):
        assert cache.parse(text) == parse_header(text)
    assert parsed == {a: 1, b: 2, c: 1}


def test_a_header_of_the_largest_size_is_kept() -> None:
    cache, text = HeaderCache(), _text(b"{}".ljust(MAX_HEADER))
    assert cache.parse(text) is cache.parse(text)


def test_a_file_that_changes_has_another_header(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    for name in ("a", "b"):
        path.write_bytes(save({name: np.zeros(3, np.float32)}))
        os.utime(path, ns=(0, 0))
        assert list(read_header(path).tensors) == [name]


def test_a_truncated_file_is_refused_though_its_header_is_known(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(save({"a": np.zeros(3, np.float32)}))
    read_header(path)
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(WeightFileError):
        read_header(path)
