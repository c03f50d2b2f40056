"""What a hostile weight file costs before it is refused or used: less than half a second of a processor."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runtime.checkpoints.checkpoint import Checkpoint
from runtime.files import safetensors_file
from runtime.files.header_cache import HeaderCache
from runtime.files.safetensors_file import WeightFileError
from runtime.files.safetensors_header import MAX_HEADER, MAX_TENSORS
from runtime.files.stored_file import StoredFile
from runtime.files.weight_check import check_checkpoint, check_lora
from runtime.lora.known_loras import LoraSummary, lora_layers, lora_summary
from runtime.lora.lora_error import LoraError
from tests.unit.runtime.cpu_time import least_cpu_seconds
from tests.unit.runtime.lora_files import LAYER

KOHYA = "lora_" + LAYER.replace(".", "_")
WRAPPERS = ("lora_", "model_", "module_", "transformer_", "lycoris_", "base_model_")


def _wrappers(number: int) -> str:
    """Seven prefixes that name no component, others for each number."""
    return "".join(WRAPPERS[number // 6**place % 6] for place in range(7))


# The key of each number, by kind.
KEYS: dict[str, Callable[[int], str]] = {
    "short": lambda n: f"k{n}",
    "of unknown layers": lambda n: f"unet.nowhere.{n}.lora_A.weight",
    "alphas of unknown layers": lambda n: f"unet.nowhere.{n}.alpha",
    "near a layer": lambda n: f"{KOHYA}{n}.lora_down.weight",
    "of a layer, unsupported": lambda n: f"{LAYER}.{n}.oft_blocks",
    "of a layer, repeated": lambda n: f"{LAYER}.lora_A.{n}.weight",
    "of a layer, under many prefixes": lambda n: f"{_wrappers(n)}{LAYER}.lora_A.weight",
    "many dots": lambda n: "unet" + ".a" * 100 + f".{n}.b.c.d.weight",
    "many prefixes": lambda n: "lora_unet_model_" * 12 + f"{n}.lora_up.weight",
    "many adapters": lambda n: "unet" + ".lora_A" * 30 + f".{n}.weight",
    "many wrappers": lambda n: "unet." + "processor._orig_mod." * 10 + f"{n}.weight",
    "key projections": lambda n: f"unet.{n}.attn2.to_k.lora_A.weight",
    "whole weights": lambda n: f"unet.nowhere.{n}.weight",
    "of another component": lambda n: f"vae.decoder.{n}.lora_A.weight",
    "embeddings": lambda n: f"bundle_emb.{n}.clip_l",
    "output embeddings": lambda n: f"bundle_emb.{n}.clip_l_out",
    "embeddings under any key": lambda n: f"bundle_emb.{n}.<{n}>",
    "other alphabets": lambda n: f"unet.青禅.{n}.lora_A.weight",
    "as long as a layer's key may be": lambda n: f"unet.{n}.".ljust(490, "x") + ".lora_A.weight",
    "longer than a layer's key may be": lambda n: f"unet.{n}.".ljust(900, ".") + ".lora_A.weight",
}
REPEATED = ("of a layer, repeated", "of a layer, under many prefixes")
LAYER_KEYS = [f"{LAYER}.lora_A.weight", f"{LAYER}.lora_B.weight"]


def _write(path: Path, keys: Iterator[str] | list[str]) -> StoredFile:
    """A LoRA file of these keys. That of the layer has its shapes, each other tensor one number."""
    shapes = {LAYER_KEYS[0]: [2, 16], LAYER_KEYS[1]: [16, 2]}
    header, end = {}, 0
    for key in keys:
        shape = shapes.get(key, [1, 1])
        begin, end = end, end + 4 * shape[0] * shape[1]
        header[key] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}
    return _write_header(path, json.dumps(header, ensure_ascii=False).encode(), end)


def _write_header(path: Path, text: bytes, size: int = 0) -> StoredFile:
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + size)
    return StoredFile(path, path.name)


def _forget() -> None:
    """Make this process one that has read no file."""
    lora_summary.cache_clear()
    lora_layers.cache_clear()
    safetensors_file._headers = HeaderCache()


def _prepare(stored: StoredFile, checkpoint: Checkpoint) -> LoraSummary | str:
    """What `prepare` does with a LoRA file that was sent or downloaded: the summary, or the message of the refusal."""
    _forget()
    try:
        check_lora(stored.path)
        return lora_summary(stored, checkpoint.adaptable)
    except (LoraError, WeightFileError) as error:
        return str(error)


@pytest.mark.parametrize("count", [MAX_TENSORS, 65_000])
@pytest.mark.parametrize("kind", KEYS)
def test_keys_that_match_nothing_are_refused_in_short(tmp_path: Path, sd15: Checkpoint, kind: str, count: int) -> None:
    stored = _write(tmp_path / "a.safetensors", map(KEYS[kind], range(count)))
    message = _prepare(stored, sd15)
    assert isinstance(message, str) and len(message) < 2000
    assert ("not a readable .safetensors file" in message) == (
        stored.path.stat().st_size > MAX_HEADER or count == 65_000
    )
    assert least_cpu_seconds(lambda: _prepare(stored, sd15)) < 1


@pytest.mark.parametrize("kind", [kind for kind in KEYS if kind not in REPEATED])
def test_a_layer_among_as_many_unknown_keys_as_the_bound_is_applied(
    tmp_path: Path, sd15: Checkpoint, kind: str
) -> None:
    count = MAX_TENSORS - len(LAYER_KEYS)
    stored = _write(tmp_path / "a.safetensors", [*LAYER_KEYS, *map(KEYS[kind], range(count))])
    if stored.path.stat().st_size > MAX_HEADER:
        assert "claims more than" in str(_prepare(stored, sd15))
        return
    summary = _prepare(stored, sd15)
    assert isinstance(summary, LoraSummary)
    assert (summary.receipt.tensors, summary.receipt.matched) == (MAX_TENSORS, 2)
    assert sum(part.count for part in summary.receipt.unmatched) == count
    assert len(summary.receipt.model_dump_json()) < 3000
    assert least_cpu_seconds(lambda: _prepare(stored, sd15)) < 1

    def bind() -> None:
        """What each later stage does with it."""
        _forget()
        assert len(lora_layers(stored, sd15.adaptable).layers) == 1

    assert least_cpu_seconds(bind) < 1
    assert least_cpu_seconds(lambda: lora_layers(stored, sd15.adaptable)) < 0.001  # it is read once


def _filled(head: bytes, piece: bytes, tail: bytes) -> bytes:
    """The piece as often as it fits into a header."""
    return head + piece * ((MAX_HEADER - len(head) - len(tail)) // len(piece)) + tail


ENTRY = b'{"dtype":"F32","shape":[1],"data_offsets":[0,4]'
HEADERS: dict[str, Callable[[], bytes]] = {
    "a million metadata entries": lambda: json.dumps({"__metadata__": {str(n): "" for n in range(10**6)}}).encode(),
    "equal metadata entries": lambda: _filled(b'{"__metadata__":{', b'"":"",', b'"":""}}'),
    "a long text": lambda: _filled(b'{"__metadata__":{"a":"', b"a", b'"},"b":' + ENTRY + b"}}"),
    "a long text of escapes": lambda: _filled(b'{"__metadata__":{"a":"', b'\\"', b'"},"b":' + ENTRY + b"}}"),
    "a long text of commas": lambda: _filled(b'{"__metadata__":{"a":"', b",", b'"},"b":' + ENTRY + b"}}"),
    "a long text of emoji": lambda: _filled(b'{"__metadata__":{"a":"', "🦜".encode(), b'"},"b":' + ENTRY + b"}}"),
    "a long name": lambda: _filled(b'{"', b"a", b'":' + ENTRY + b"}}"),
    "empty lists in an unknown field": lambda: _filled(b'{"b":' + ENTRY + b',"x":[', b"[],", b"[]]}}"),
    "deep lists": lambda: _filled(b'{"b":' + ENTRY + b',"x":', b"[", b"}}"),
    "many axes": lambda: _filled(b'{"b":{"dtype":"F32","data_offsets":[0,4],"shape":[', b"1,", b"1]}}"),
    "large numbers": lambda: _filled(
        b'{"b":{"dtype":"F32","data_offsets":[0,4],"shape":[', b"9" * 4000 + b",", b"1]}}"
    ),
    "a long number": lambda: _filled(b'{"b":{"dtype":"F32","data_offsets":[0,4],"shape":[', b"9", b"]}}"),
    "spaces": lambda: _filled(b'{"b":' + ENTRY + b"}", b" ", b"}"),
    "quotes": lambda: _filled(b"{", b'"', b"}"),
    "backslashes": lambda: _filled(b'{"', b"\\", b'":1}'),
    "100,000 tensors": lambda: (
        b"{" + b",".join(b'"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' % n for n in range(100_000)) + b"}"
    ),
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_large_header_is_read_or_refused_in_bounded_time(tmp_path: Path, sd15: Checkpoint, name: str) -> None:
    path = tmp_path / "a.safetensors"
    stored = _write_header(path, HEADERS[name](), 4)
    assert len(str(_prepare(stored, sd15))) < 2000
    assert least_cpu_seconds(lambda: _prepare(stored, sd15)) < 1
    with pytest.raises(WeightFileError):
        path.write_bytes(path.read_bytes()[:-1])
        check_checkpoint(path)


@pytest.mark.parametrize("megabytes", [17, 100, 1 << 40])
def test_a_header_that_is_too_large_is_not_read(tmp_path: Path, megabytes: int) -> None:
    path = tmp_path / "a.safetensors"
    with path.open("wb") as file:
        file.write((megabytes << 20).to_bytes(8, "little") + b"{")
        file.truncate(min(megabytes, 100) << 20)

    def refuse() -> None:
        with pytest.raises(WeightFileError, match=f"claims more than {MAX_HEADER} bytes"):
            check_lora(path)

    assert least_cpu_seconds(refuse) < 0.01


@pytest.mark.parametrize("instructions", [b"]", b"N", b"}]", b"(l", b")\x85", b"]q\x00", b"K\x01"])
def test_a_pickle_of_many_instructions_is_refused(tmp_path: Path, instructions: bytes) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02" + instructions * ((4 << 20) // len(instructions) - 8) + b".")
    path = tmp_path / "a.pt"
    path.write_bytes(content.getvalue())

    def refuse() -> None:
        with pytest.raises(WeightFileError, match="instruction"):
            check_lora(path)

    assert least_cpu_seconds(refuse) < 1
