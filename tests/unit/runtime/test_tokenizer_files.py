"""Tokenizers as transformers 5 saves them: the same token ids as in diffusers; hostile files are refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from transformers.models.clip.tokenization_clip import CLIPTokenizer

from runtime.checkpoints.checks import CheckpointError
from runtime.checkpoints.read_checkpoint import read_checkpoint
from runtime.files.located import Folder, SingleFile
from runtime.prompts.prompt_tokenizer import TokenizerError
from tests.unit.runtime.tiny_checkpoints import digest
from tests.unit.runtime.token_ids import token_ids

PIPELINES = {"sd15": StableDiffusionPipeline, "sdxl": StableDiffusionXLPipeline}
PROMPTS = ["a red fish", "", "Ünïcode, naïve café; it's <cat-toy> & <Dog>! 日本", "a very long prompt " * 40]
Json = dict[str, Any]


def _saved(tiny: Path, target: Path, name: str, tokens: tuple[str, ...] = ()) -> Path:
    """The tiny checkpoint, loaded and saved by diffusers, after `tokens` were added to its tokenizers."""
    pipe = PIPELINES[name].from_pretrained(tiny / name, local_files_only=True)
    for tokenizer in (pipe.tokenizer, getattr(pipe, "tokenizer_2", None)):
        if tokenizer is not None and tokens:
            tokenizer.add_tokens(list(tokens))
    pipe.save_pretrained(target)
    return target


def _ids(folder: Path) -> list[torch.Tensor]:
    """All token ids of the prompts, by each tokenizer of the checkpoint."""
    found = read_checkpoint(Folder(folder.resolve(), folder.resolve().parent), digest)
    return [token_ids(tokenizer, prompt) for tokenizer in found.tokenizers for prompt in PROMPTS]


def _expected(folder: Path) -> list[torch.Tensor]:
    """As diffusers' pipelines."""
    names = [name for name in ("tokenizer", "tokenizer_2") if (folder / name).is_dir()]
    found = (CLIPTokenizer.from_pretrained(folder / name, local_files_only=True) for name in names)
    options = {"padding": "max_length", "max_length": 77, "truncation": True, "return_tensors": "pt"}
    return [tokenizer(prompt, **options).input_ids[0] for tokenizer in found for prompt in PROMPTS]


def _equal(found: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    assert len(found) == len(expected)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize("name", PIPELINES)
@pytest.mark.parametrize("tokens", [(), ("<cat-toy>", "<dog>")])
def test_a_folder_that_diffusers_saved_has_its_token_ids(
    tiny: Path, tmp_path: Path, name: str, tokens: tuple[str, ...]
) -> None:
    folder = _saved(tiny, tmp_path / "saved", name, tokens)
    assert not list(folder.glob("tokenizer*/vocab.json"))
    _equal(_ids(folder), _expected(folder))
    if tokens:
        assert any(not torch.equal(*pair) for pair in zip(_ids(folder), _ids(tiny / name), strict=True))
    else:
        _equal(_ids(folder), _ids(tiny / name))


@pytest.mark.parametrize("fast", ["tokenizer", "tokenizer_2"])
def test_each_tokenizer_may_have_its_own_form(tiny: Path, tmp_path: Path, fast: str) -> None:
    saved = _saved(tiny, tmp_path / "saved", "sdxl")
    other = "tokenizer_2" if fast == "tokenizer" else "tokenizer"
    shutil.rmtree(saved / other)
    shutil.copytree(tiny / "sdxl" / other, saved / other)
    _equal(_ids(saved), _ids(tiny / "sdxl"))


def test_of_both_forms_transformers_reads_tokenizer_json(tiny: Path, tmp_path: Path) -> None:
    folder = _saved(tiny, tmp_path / "saved", "sd15", ("<cat-toy>",))
    for name in ("vocab.json", "merges.txt"):
        shutil.copyfile(tiny / "sd15/tokenizer" / name, folder / "tokenizer" / name)
    _equal(_ids(folder), _expected(folder))


def test_a_sidecar_may_name_such_a_tokenizer(tiny: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(tiny, tmp_path / "allowed"))
    _saved(tiny, root / "saved", "sd15")
    sidecar = root / "single/sd15.config.json"
    content = json.loads(sidecar.read_text()) | {"tokenizer": "../saved/tokenizer"}
    sidecar.unlink()
    sidecar.write_text(json.dumps(content))
    found = read_checkpoint(SingleFile(digest(root / "single/sd15.safetensors"), root), digest)
    _equal([token_ids(found.tokenizers[0], prompt) for prompt in PROMPTS], _ids(tiny / "sd15"))


@pytest.fixture
def saved(tiny: Path, tmp_path: Path) -> Path:
    """An SD 1.5 checkpoint to spoil, with a tokenizer.json."""
    return _saved(tiny, tmp_path / "saved", "sd15")


def test_the_truncation_and_padding_of_a_file_are_not_used(tiny: Path, saved: Path) -> None:
    path = saved / "tokenizer/tokenizer.json"
    truncation = {"direction": "Right", "max_length": 5, "strategy": "LongestFirst", "stride": 0}
    padding: Json = {"strategy": {"Fixed": 9}, "direction": "Left", "pad_to_multiple_of": None}
    padding |= {"pad_id": 7, "pad_type_id": 0, "pad_token": "x"}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"truncation": truncation, "padding": padding}))
    _equal(_ids(saved), _ids(tiny / "sd15"))


def _without(content: Json, *names: str) -> Json:
    return {name: value for name, value in content.items() if name not in names}


def _model(**values: Any) -> Callable[[Json], Json]:
    return lambda content: content | {"model": content["model"] | values}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda content: _without(content, "model"), "expected a model of type BPE"),
        (lambda content: content | {"model": []}, "expected a model of type BPE"),
        (_model(type="Unigram", vocab=[["a", 0.5]]), "expected a model of type BPE"),
        (_model(type="WordPiece"), "expected a model of type BPE"),
        (_model(type=None), "expected a model of type BPE"),
        (_model(end_of_word_suffix=None), "expected the end_of_word_suffix </w>"),
        (_model(end_of_word_suffix="▁"), "expected the end_of_word_suffix </w>"),
        (_model(vocab={}), r"model\.vocab is invalid"),
        (_model(vocab="/etc/passwd"), r"model\.vocab is invalid"),
        (_model(vocab=[["a", 0]]), r"model\.vocab is invalid"),
        (_model(vocab={"a": -1}), r"model\.vocab is invalid"),
        (_model(vocab={"a": 1.0}), r"model\.vocab is invalid"),
        (_model(vocab={"a": True}), r"model\.vocab is invalid"),
        (_model(vocab={"a": 1 << 40}), r"model\.vocab is invalid"),
        (_model(merges="/etc/passwd"), r"model\.merges is invalid"),
        (_model(merges=["ab"]), r"model\.merges is invalid"),
        (_model(merges=[["a", "b", "c"]]), r"model\.merges is invalid"),
        (_model(merges=[["a", 1]]), r"model\.merges is invalid"),
        (_model(merges=[5]), r"model\.merges is invalid"),
        (lambda content: _without(content, "added_tokens"), "added_tokens is invalid"),
        (lambda content: content | {"added_tokens": [{"id": "x", "content": "a"}]}, "added_tokens is invalid"),
        (lambda content: content | {"added_tokens": [{"id": 5}]}, "added_tokens is invalid"),
        (lambda content: content | {"added_tokens": {"a": 5}}, "added_tokens is invalid"),
    ],
)
def test_a_tokenizer_json_of_another_kind_is_refused(saved: Path, change: Callable[[Json], Json], reason: str) -> None:
    path = saved / "tokenizer/tokenizer.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(CheckpointError, match=f"^tokenizer/tokenizer.json.*{reason}"):
        _ids(saved)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is not JSON"),
        (b"\xff\xfe{}", "is not JSON"),
        (b"[]", "is not a JSON object"),
        (b'{"a": ' * 100_000, "is not JSON"),
        (b'{"a": ' * 300 + b"1" + b"}" * 300, "is nested deeper"),
        (b"{" + b" " * (8 << 20) + b"}", "is too large"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is not JSON"),
    ],
)
@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_a_tokenizer_file_that_is_no_json_is_refused(saved: Path, name: str, content: bytes, reason: str) -> None:
    (saved / "tokenizer" / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=f"^tokenizer/{name} {reason}"):
        _ids(saved)


@pytest.mark.parametrize("field", ["fast_tokenizer_files", "gguf_file", "merges", "tokenizer_object", "vocab"])
def test_a_configuration_that_names_other_files_is_refused(saved: Path, tmp_path: Path, field: str) -> None:
    path = saved / "tokenizer/tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: ["../tokenizer.4.0.0.json"]}))
    with pytest.raises(CheckpointError, match=f"tokenizer_config.json has the field {field}"):
        _ids(saved)


@pytest.mark.parametrize(
    "values",
    [
        {"tokenizer_class": "EvilTokenizer", "auto_map": {"AutoTokenizer": ["evil.EvilTokenizer", None]}},
        {"vocab_file": "/etc/passwd", "merges_file": "/etc/passwd", "tokenizer_file": "/etc/passwd"},
    ],
)
def test_a_configuration_does_not_choose_the_class_or_the_files(saved: Path, values: Json) -> None:
    expected = _ids(saved)
    path = saved / "tokenizer/tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    (saved / "tokenizer/evil.py").write_text("raise SystemExit")
    _equal(_ids(saved), expected)


def test_the_steps_that_a_tokenizer_json_names_are_not_its_steps(saved: Path) -> None:
    expected = _ids(saved)
    path = saved / "tokenizer/tokenizer.json"
    content = json.loads(path.read_text())
    steps = {"normalizer": {"type": "Prepend", "prepend": "x"}, "pre_tokenizer": {"type": "WhitespaceSplit"}}
    path.write_text(json.dumps(content | steps))
    _equal(_ids(saved), expected)


def test_a_tokenizer_json_of_an_early_version_is_read(saved: Path) -> None:
    """It names no type of its model, and each merge is one text."""
    expected = _ids(saved)
    path = saved / "tokenizer/tokenizer.json"
    content = json.loads(path.read_text())
    content["model"] = _without(content["model"], "type") | {
        "merges": [" ".join(m) for m in content["model"]["merges"]]
    }
    path.write_text(json.dumps(content))
    _equal(_ids(saved), expected)


def test_a_damaged_vocabulary_names_the_tokenizer(saved: Path) -> None:
    path = saved / "tokenizer/tokenizer.json"
    content = json.loads(path.read_text())
    content["model"]["merges"] = [["no", "such"]]
    path.write_text(json.dumps(content))
    with pytest.raises(TokenizerError, match="its tokenizer cannot be used"):
        _ids(saved)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_a_link_that_leads_out_is_refused(saved: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "outside").write_text("{}")
    (saved / "tokenizer" / name).unlink()
    (saved / "tokenizer" / name).symlink_to(tmp_path / "outside")
    with pytest.raises(CheckpointError, match="is outside the folder"):
        read_checkpoint(Folder(saved, saved), digest)


def test_a_folder_in_the_place_of_tokenizer_json_is_refused(saved: Path) -> None:
    (saved / "tokenizer/tokenizer.json").unlink()
    (saved / "tokenizer/tokenizer.json").mkdir()
    with pytest.raises(CheckpointError, match=r"its file tokenizer/tokenizer\.json is missing"):
        _ids(saved)
