"""Single files with anything in their headers: a checkpoint or a clear refusal, never another error."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from runtime.checkpoints.checkpoint import Checkpoint
from runtime.checkpoints.checks import CheckpointError
from runtime.checkpoints.read_checkpoint import with_unet
from runtime.checkpoints.single_file import read_single_file
from runtime.engines.engine import WeightsError, never_cancelled
from runtime.files.located import SingleFile
from runtime.files.safetensors_file import WeightFileError, read_header
from runtime.files.stored_file import StoredFile
from runtime.networks.architecture import ArchitectureError, NetworkKind
from runtime.weights.weight_set import WeightSet
from tests.unit.runtime.engines import make_engine
from tests.unit.runtime.tiny_checkpoints import digest

NAMES = ("sd15", "sd2", "sdxl", "sd15-diffusers")
BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I8": 1, "BOOL": 1, "F8_E4M3": 1}
SIZES = st.sampled_from([0, 1, 2, 3, 4, 7, 9, 16, 32, 64, 77, 101, 1000])
SHAPES = st.lists(SIZES, max_size=5).filter(lambda shape: math.prod(shape) < 1 << 24)
KINDS: list[tuple[str, NetworkKind]] = [
    ("unet", "unet"),
    ("vae", "vae_encoder"),
    ("vae", "vae_decoder"),
    ("text_encoder", "text_encoder"),
    ("text_encoder_2", "text_encoder"),
]
Header = dict[str, tuple[str, list[int]]]
fuzzed = examples(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])


def _header(path: Path) -> Header:
    return {name: (info.dtype, list(info.shape)) for name, info in read_header(path).tensors.items()}


def _write(path: Path, header: Header) -> SingleFile:
    """A file with this header and zeros behind it, which take no room on disk."""
    entries, end = dict[str, Any](), 0
    for name, (dtype, shape) in header.items():
        begin, end = end, end + BYTES[dtype] * math.prod(shape)
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(entries).encode()
    path.unlink(missing_ok=True)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    return SingleFile(StoredFile(path, hashlib.sha256(text).hexdigest()), path.parent)


@st.composite
def _changes(draw: st.DrawFn, header: Header) -> Header:
    """A few tensors of a header dropped, renamed, or of another shape or dtype; or a few that nobody knows."""
    changed = dict(header)
    for _ in range(draw(st.integers(1, 4))):
        name = draw(st.sampled_from(sorted(changed)))
        dtype, shape = changed.pop(name)
        what = draw(st.sampled_from(["drop", "shape", "dtype", "rename", "digits", "prefix"]))
        if what == "shape":
            changed[name] = (dtype, draw(SHAPES))
        elif what == "dtype":
            changed[name] = (draw(st.sampled_from(sorted(BYTES))), shape)
        elif what == "rename":
            cut = draw(st.integers(0, len(name)))
            changed[name[:cut] + draw(st.text(max_size=9)) + name[cut:]] = (dtype, shape)
        elif what == "digits":
            changed[name.replace("0", draw(st.sampled_from(["99", "1" * 30, "-1", "٣"])))] = (dtype, shape)
        elif what == "prefix":
            prefix = name.rpartition(".")[0] or name
            changed = {key: value for key, value in changed.items() if not key.startswith(prefix)}
    return changed


def _bind_all(checkpoint: Checkpoint) -> None:
    parts = {str(part.role): part for part in checkpoint.components}
    for name, kind in KINDS:
        if name in parts:
            make_engine(kind, parts[name])[0].bind(WeightSet(parts[name]), never_cancelled).release()


@pytest.mark.parametrize("name", NAMES)
@fuzzed
@given(data=st.data())
def test_any_header_is_a_checkpoint_or_is_refused(tiny: Path, tmp_path: Path, name: str, data: st.DataObject) -> None:
    header = data.draw(_changes(_header(tiny / f"single/{name}.safetensors")))
    sidecar = json.loads((tiny / f"single/{name}.config.json").read_text())
    for index, tokenizer in enumerate([key for key in sidecar if key.startswith("tokenizer")]):
        sidecar[tokenizer] = f"tokenizer{index}"
        (tmp_path / f"tokenizer{index}").mkdir(exist_ok=True)
        for file in ("vocab.json", "merges.txt"):
            (tmp_path / f"tokenizer{index}" / file).touch()
    (tmp_path / "a.config.json").write_text(json.dumps(sidecar))
    try:
        _bind_all(read_single_file(_write(tmp_path / "a.safetensors", header)))
    except (ArchitectureError, CheckpointError, WeightsError, WeightFileError) as error:
        assert 0 < len(str(error)) < 2000


@fuzzed
@given(data=st.data())
def test_any_header_is_a_unet_or_is_refused(tiny: Path, tmp_path: Path, sd15: Checkpoint, data: st.DataObject) -> None:
    source = data.draw(st.sampled_from(["lcm/unet/diffusion_pytorch_model", "single/sd15", "single/sdxl"]))
    header = data.draw(_changes(_header(tiny / f"{source}.safetensors")))
    try:
        unet = with_unet(sd15, _write(tmp_path / "unet.safetensors", header), digest).unet
        make_engine("unet", unet)[0].bind(WeightSet(unet), never_cancelled)
    except (ArchitectureError, CheckpointError, WeightsError, WeightFileError) as error:
        assert 0 < len(str(error)) < 2000
