"""Checks the files of an untrusted tokenizer before transformers reads them.

transformers takes the vocabulary, the merges and the added tokens from `tokenizer.json`; the steps of the tokenizer are
those of its class `CLIPTokenizer`, whatever the file names.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from runtime.checkpoints.checks import CheckpointError
from runtime.checkpoints.json_file import read_json
from runtime.files.stored_file import file_fingerprint

FAST_TOKENIZER = "tokenizer.json"
_CONFIG = "tokenizer_config.json"
# Fields with which transformers reads another file, or takes the vocabulary from the configuration.
_REDIRECTIONS = ("fast_tokenizer_files", "gguf_file", "merges", "tokenizer_object", "vocab")
_WORD_END = "</w>"
_MAX_ID = 1 << 31


def check_tokenizer(folder: Path, name: str) -> None:
    """`name`: that of the folder, for messages. Raises CheckpointError."""
    if (config := folder / _CONFIG).is_file():
        _check_config(config, f"{name}/{_CONFIG}")
    if (fast := folder / FAST_TOKENIZER).is_file():
        _check_fast(fast, file_fingerprint(fast), f"{name}/{FAST_TOKENIZER}")


def _check_config(path: Path, name: str) -> None:
    config = read_json(path, name)
    if found := [field for field in _REDIRECTIONS if field in config]:
        raise CheckpointError(f"{name} has the field {found[0]}: expected a tokenizer whose files are all its own")


@lru_cache(maxsize=64)
def _check_fast(path: Path, _fingerprint: str, name: str) -> None:
    """Cached, because a file of CLIP's size takes 0.1 s."""
    content = read_json(path, name)
    model = content.get("model")
    if not isinstance(model, dict) or model.get("type", "BPE") != "BPE":  # early versions wrote no type
        raise CheckpointError(f"{name} is not CLIP's tokenizer: expected a model of type BPE")
    if model.get("end_of_word_suffix", _WORD_END) != _WORD_END:
        raise CheckpointError(f"{name} is not CLIP's tokenizer: expected the end_of_word_suffix {_WORD_END}")
    if not _is_vocabulary(model.get("vocab")):
        raise CheckpointError(f"{name}: model.vocab is invalid: expected an object of tokens and their ids")
    if not _are_merges(model.get("merges")):
        raise CheckpointError(f"{name}: model.merges is invalid: expected a list of pairs of tokens")
    if not _are_added(content.get("added_tokens")):
        raise CheckpointError(f"{name}: added_tokens is invalid: expected a list of objects with id and content")


def _is_vocabulary(value: Any) -> bool:
    return isinstance(value, dict) and bool(value) and all(map(_is_id, value.values()))


def _is_id(value: Any) -> bool:
    return type(value) is int and 0 <= value < _MAX_ID


def _are_merges(value: Any) -> bool:
    """transformers 5 writes pairs, earlier versions one text with a space."""
    return isinstance(value, list) and all(
        merge.count(" ") == 1
        if isinstance(merge, str)
        else isinstance(merge, list) and len(merge) == 2 and all(isinstance(part, str) for part in merge)
        for merge in value
    )


def _are_added(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(token, dict) and _is_id(token.get("id")) and isinstance(token.get("content"), str) for token in value
    )
