"""Files of textual inversions: every layout of the published ones, and files that do not fit."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save, save_file

from runtime.checkpoints.checkpoint import Checkpoint
from runtime.files.resolve import FileResolver, ResolveContext
from runtime.files.safetensors_file import WeightFileError
from runtime.files.safetensors_header import TensorInfo
from runtime.lora.lora_error import LoraError
from runtime.lora.lora_file import read_lora
from runtime.lora.unmatched import UnmatchedKind
from runtime.prompts.embedding_file import EmbeddingError, EmbeddingTensors, find_vectors, read_embedding
from tests.unit.runtime import lora_files
from tests.unit.runtime.torch_files import saved

WIDTHS = {"clip_l": 32, "clip_g": 48}


def _a1111(vectors: torch.Tensor) -> dict[str, Any]:
    """What A1111 saves beside the vectors."""
    return {
        "string_to_token": {"*": 265},
        "string_to_param": {"*": vectors},
        "name": "thing",
        "step": 1500,
        "sd_checkpoint": None,
        "sd_checkpoint_name": None,
    }


ONE, THREE = torch.randn(32), torch.randn(3, 32)
SD: dict[str, tuple[Any, EmbeddingTensors]] = {
    "diffusers": ({"<thing>": ONE}, EmbeddingTensors(("<thing>",), 1)),
    "diffusers, three vectors": ({"<thing>": THREE}, EmbeddingTensors(("<thing>",), 3)),
    "kohya": ({"emb_params": THREE}, EmbeddingTensors(("emb_params",), 3)),
    "A1111": (_a1111(THREE), EmbeddingTensors(("string_to_param.*",), 3)),
    "A1111, trained": (_a1111(torch.nn.Parameter(THREE)), EmbeddingTensors(("string_to_param.*",), 3)),
    "fal": ({"text_encoder": THREE}, EmbeddingTensors(("text_encoder",), 3)),
    "diffusers, a token like an output": ({"knocked_out": THREE}, EmbeddingTensors(("knocked_out",), 3)),
    "OneTrainer, one text encoder": ({"emp_params": THREE}, EmbeddingTensors(("emp_params",), 3)),
    "OneTrainer": ({"clip_l": THREE.bfloat16()}, EmbeddingTensors(("clip_l",), 3)),
    "half": ({"emb_params": THREE.half()}, EmbeddingTensors(("emb_params",), 3)),
    "double": ({"emb_params": THREE.double()}, EmbeddingTensors(("emb_params",), 3)),
}
XL = {
    ("clip_l", "clip_g"): 2,
    ("text_encoders_0", "text_encoders_1"): 1,
    ("text_encoder", "text_encoder_2"): 75,
}


@pytest.mark.parametrize("name", SD)
@pytest.mark.parametrize("form", ["safetensors", "pickle"])
def test_a_file_for_one_text_encoder(sources: FileResolver, store: Any, sd15: Checkpoint, name: str, form: str) -> None:
    content, expected = SD[name]
    if form == "safetensors":
        if "string_to_param" in content:
            content = {"string_to_param.*": content["string_to_param"]["*"].detach()}
        data = save(content)
    else:
        data = saved(content)
    context = ResolveContext([data], store.pins(), lambda: None)
    stored = sources.embedding("embeddings[0].path", "tensor:0", context)
    assert read_embedding(stored.path, sd15.text_encoders) == expected


@pytest.mark.parametrize("keys", XL)
@pytest.mark.parametrize("form", ["safetensors", "pickle"])
def test_a_file_for_both_text_encoders_of_sdxl(
    sources: FileResolver, store: Any, sdxl: Checkpoint, keys: tuple[str, str], form: str
) -> None:
    tensors = {key: torch.randn(XL[keys], width) for key, width in zip(keys, WIDTHS.values(), strict=True)}
    context = ResolveContext([save(tensors) if form == "safetensors" else saved(tensors)], store.pins(), lambda: None)
    stored = sources.embedding("embeddings[0].path", "tensor:0", context)
    assert read_embedding(stored.path, sdxl.text_encoders) == EmbeddingTensors(keys, XL[keys])


OUTPUT_MESSAGE = "an output embedding of OneTrainer, which is added after the text encoder: not supported"


def _clip(vectors: int = 2, **widths: int) -> dict[str, torch.Tensor]:
    return {key: torch.zeros(vectors, width) for key, width in (WIDTHS | widths).items()}


@pytest.mark.parametrize(
    ("kind", "tensors", "message"),
    [
        ("sd15", _clip(), "made for SDXL's two text encoders (2: clip_g, clip_l), but the checkpoint has one"),
        ("sd15", {"emb_params": torch.zeros(2, 48)}, "emb_params has shape [2, 48]; expected vectors of width 32"),
        ("sd15", {"emb_params": torch.zeros(76, 32)}, "emb_params has 76 vectors; expected 1 to 75"),
        ("sd15", {"emb_params": torch.zeros(0, 32)}, "emb_params has 0 vectors; expected 1 to 75"),
        ("sd15", {"emb_params": torch.zeros(1, 2, 32)}, "emb_params has shape [1, 2, 32]; expected vectors of width"),
        ("sd15", {"emb_params": torch.zeros(())}, "emb_params has shape []; expected vectors of width 32"),
        ("sd15", {"emb_params": torch.zeros(2, 32, dtype=torch.int64)}, "emb_params has dtype I64; expected F64, F32"),
        ("sd15", {"a": torch.zeros(1, 32), "b": torch.zeros(1, 32)}, "expected one tensor, found 2: a, b"),
        ("sd15", {}, "not a textual inversion embedding: expected one tensor, found none"),
        (
            "sd15",
            lora_files.linear(),
            "this file is a LoRA, not a textual inversion embedding: name it in the field loras",
        ),
        ("sd15", {"emp_params": THREE * 0, "emp_params_out": THREE}, OUTPUT_MESSAGE),
        ("sd15", {"emp_params_out": THREE}, OUTPUT_MESSAGE),
        ("sd15", {"clip_l_out": THREE}, OUTPUT_MESSAGE),
        ("sdxl", _clip() | {"clip_l_out": torch.zeros(2, 32)}, OUTPUT_MESSAGE),
        ("sdxl", {"clip_l_out": torch.zeros(2, 32), "clip_g_out": torch.zeros(2, 48)}, OUTPUT_MESSAGE),
        (
            "sdxl",
            _clip() | {"t5": torch.zeros(2, 64)},
            "it has clip_l, clip_g and other tensors, which are not supported: t5",
        ),
        (
            "sdxl",
            {"emb_params": torch.zeros(2, 32)},
            "no vectors for one of SDXL's two text encoders: expected clip_l and",
        ),
        (
            "sdxl",
            {"clip_l": torch.zeros(2, 32)},
            "expected clip_l and clip_g, found 1: clip_l; use an embedding made for",
        ),
        (
            "sdxl",
            _clip(clip_g=32),
            "clip_g has shape [2, 32]; expected vectors of width 48, that of the checkpoint's text_enc",
        ),
        (
            "sdxl",
            _clip() | {"clip_l": torch.zeros(3, 32)},
            "clip_l has 3 and clip_g has 2 vectors: expected equal numbers",
        ),
    ],
)
def test_what_does_not_fit_says_why(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str, tensors: dict[str, torch.Tensor], message: str
) -> None:
    path = tmp_path / "embedding.safetensors"
    save_file(tensors, path)
    with pytest.raises(EmbeddingError) as caught:
        read_embedding(path, request.getfixturevalue(kind).text_encoders)
    assert message in str(caught.value)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, sd15: Checkpoint) -> None:
    path = tmp_path / "embedding.safetensors"
    path.write_bytes(b"<html>")
    with pytest.raises(WeightFileError, match="it is a web page"):
        read_embedding(path, sd15.text_encoders)


class Trap:
    def __reduce__(self) -> Any:
        return (print, ("sprung",))


@pytest.mark.parametrize("content", [Trap(), {"string_to_param": Trap()}, {"string_to_param": {"*": Trap()}}])
def test_a_pickle_with_code_is_refused(sources: FileResolver, store: Any, content: object, capsys: Any) -> None:
    for data in (pickle.dumps(content), saved(content)):
        context = ResolveContext([data], store.pins(), lambda: None)
        with pytest.raises(Exception, match=r"^embeddings\[0\]\.path: tensor:0: "):
            sources.embedding("embeddings[0].path", "tensor:0", context)
    assert "sprung" not in capsys.readouterr().out


_INFOS = st.builds(
    TensorInfo,
    st.lists(st.sampled_from([0, 1, 2, 32, 48, 10**15]), max_size=4).map(tuple),
    st.sampled_from(["F32", "F16", "I64", "F8_E4M3"]),
    st.just(0),
    st.just(0),
)
_NAMES = st.sampled_from(["clip_l", "clip_g", "emb_params", "string_to_param.*", "text_encoders_1", "", "x"])


@given(st.dictionaries(_NAMES, _INFOS, max_size=4), st.sampled_from(["sd15", "sdxl"]))
def test_any_header_is_read_or_refused(sd15: Checkpoint, sdxl: Checkpoint, tensors: Any, kind: str) -> None:
    encoders = {"sd15": sd15, "sdxl": sdxl}[kind].text_encoders
    try:
        found = find_vectors(tensors, encoders)
    except EmbeddingError as error:
        assert len(str(error)) < 500
    else:
        assert 1 <= found.vectors <= 75 and len(found.names) == len(encoders)


# Of the text encoder that SD 1.x and SDXL share.
LAYERS = lora_files.pair("lora_te1_text_model_encoder_layers_0_self_attn_q_proj", 32, 32)


def _bundle(name: str, **shapes: tuple[int, ...]) -> dict[str, torch.Tensor]:
    return {f"bundle_emb.{name}.{key}": torch.zeros(shape) for key, shape in shapes.items()}


@pytest.mark.parametrize(
    ("kind", "keys"),
    [("sd15", ("string_to_param.*",)), ("sd15", ("emb_params",)), ("sdxl", ("clip_l", "clip_g"))],
)
@pytest.mark.parametrize("name", ["thing", "my fish", "v1.5 style", "日本"])
def test_a_lora_s_bundled_embedding_is_read(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str, keys: tuple[str, ...], name: str
) -> None:
    checkpoint = request.getfixturevalue(kind)
    tensors = _bundle(name, **{key: (2, width) for key, width in zip(keys, WIDTHS.values(), strict=False)})
    path = lora_files.write(tmp_path / "lora.safetensors", LAYERS | tensors)
    contents = read_lora(path, checkpoint.adaptable)
    assert contents.embeddings == {name: EmbeddingTensors(tuple(f"bundle_emb.{name}.{key}" for key in keys), 2)}
    assert (contents.unmatched, len(contents.layers)) == ({}, 1)


@pytest.mark.parametrize(
    "tensors",
    [
        _bundle("a", clip_l=(2, 32), clip_g=(2, 48)),
        _bundle("a", emb_params=(2, 33)),
        _bundle(" ", emb_params=(2, 32)),
        _bundle("x" * 101, emb_params=(2, 32)),
        {"bundle_emb.emb_params": torch.zeros(2, 32)},
        {"bundle_emb. .<tok>": torch.zeros(2, 32)},
        {"bundle_emb..<tok>": torch.zeros(2, 32)},
        {"bundle_emb.tok.": torch.zeros(2, 32)},
        {"bundle_emb.tok.<a>": torch.zeros(2, 32), "bundle_emb.tok.<b>": torch.zeros(2, 32)},
        {"bundle_emb.tok.<tok>": torch.zeros(2, 33)},
    ],
)
def test_a_bundled_embedding_that_does_not_fit_is_listed(
    tmp_path: Path, sd15: Checkpoint, tensors: dict[str, torch.Tensor]
) -> None:
    path = lora_files.write(tmp_path / "lora.safetensors", lora_files.linear() | tensors)
    contents = read_lora(path, sd15.adaptable)
    assert contents.embeddings == {}
    assert contents.unmatched == {UnmatchedKind.EMBEDDING: sorted(tensors)}


def test_a_file_of_embeddings_alone_is_accepted_if_they_fit(tmp_path: Path, sd15: Checkpoint) -> None:
    path = tmp_path / "lora.safetensors"
    contents = read_lora(lora_files.write(path, _bundle("a", emb_params=(2, 32))), sd15.adaptable)
    assert list(contents.embeddings) == ["a"] and contents.layers == []
    with pytest.raises(LoraError, match=r"Bundled embeddings that do not fit the checkpoint \(1 of 1\)"):
        read_lora(lora_files.write(path, _bundle("a", emb_params=(2, 33))), sd15.adaptable)


@pytest.mark.parametrize(
    "shapes",
    [
        {"clip_l": (2, 32), "clip_g": (2, 48), "clip_l_out": (2, 32), "clip_g_out": (2, 48)},
        {"clip_l_out": (2, 32)},
        {"emp_params": (2, 32), "emp_params_out": (2, 32)},
    ],
)
@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
@pytest.mark.parametrize("name", ["thing", "v1.5 style"])
def test_a_bundled_output_embedding_is_left_out_by_its_kind(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str, name: str, shapes: dict[str, tuple[int, ...]]
) -> None:
    """OneTrainer writes zeros for the vectors that the text encoder reads: NAME must not stand for them."""
    tensors = _bundle(name, **shapes)
    path = lora_files.write(tmp_path / "lora.safetensors", LAYERS | tensors)
    contents = read_lora(path, request.getfixturevalue(kind).adaptable)
    assert (contents.embeddings, len(contents.layers)) == ({}, 1)
    assert contents.unmatched == {UnmatchedKind.OUTPUT_EMBEDDING: sorted(tensors)}


def test_a_bundled_embedding_beside_an_output_embedding_is_read(tmp_path: Path, sd15: Checkpoint) -> None:
    tensors = _bundle("a", clip_l=(2, 32)) | _bundle("b", clip_l=(2, 32), clip_l_out=(2, 32))
    contents = read_lora(lora_files.write(tmp_path / "lora.safetensors", LAYERS | tensors), sd15.adaptable)
    assert list(contents.embeddings) == ["a"]


def test_a_file_of_output_embeddings_alone_is_refused(tmp_path: Path, sd15: Checkpoint) -> None:
    path = lora_files.write(tmp_path / "lora.safetensors", _bundle("a", clip_l=(2, 32), clip_l_out=(2, 32)))
    with pytest.raises(LoraError, match=r"Output embeddings of OneTrainer.* \(2 of 2\)"):
        read_lora(path, sd15.adaptable)


@pytest.mark.parametrize(
    ("name", "key"), [("tok", "<tok>"), ("tok", "<v1.5>"), ("tok", "emp_params"), ("v1.5 style", "emp_params")]
)
def test_the_only_tensor_of_a_bundled_embedding_may_have_any_key(
    tmp_path: Path, sd15: Checkpoint, name: str, key: str
) -> None:
    """As LyCORIS' packer copies the keys of an embedding's file."""
    tensors = _bundle(name, **{key: (2, 32)})
    contents = read_lora(lora_files.write(tmp_path / "lora.safetensors", LAYERS | tensors), sd15.adaptable)
    assert contents.embeddings == {name: EmbeddingTensors((f"bundle_emb.{name}.{key}",), 2)}
    assert (contents.unmatched, len(contents.layers)) == ({}, 1)


def test_an_unknown_key_beside_a_known_one_is_left_out(tmp_path: Path, sd15: Checkpoint) -> None:
    other = "bundle_emb.tok.string_to_token.*"
    tensors = _bundle("tok", **{"string_to_param.*": (2, 32)}) | {other: torch.tensor([265])}
    contents = read_lora(lora_files.write(tmp_path / "lora.safetensors", LAYERS | tensors), sd15.adaptable)
    assert contents.embeddings == {"tok": EmbeddingTensors(("bundle_emb.tok.string_to_param.*",), 2)}
    assert contents.unmatched == {UnmatchedKind.EMBEDDING: [other]}
