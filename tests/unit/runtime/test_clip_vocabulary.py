"""CLIP's vocabulary, compared with OpenAI's own tokenizer."""

from __future__ import annotations

import importlib.util
from importlib.metadata import distribution
from typing import Any

import pytest
import torch

from runtime.checkpoints.checkpoint import Tokenizer
from tests.unit.runtime.token_ids import token_ids

PROMPTS = [
    "a photo of an astronaut riding a horse on mars",
    "Ünïcode, naïve café; it's 1920s Tokyo... (masterpiece:1.2), <lora:x:1> &c. _under_scores_",
    "日本の風景 🌸 harbour",
    "",
]


@pytest.fixture(scope="module")
def original() -> Any:
    """OpenAI's tokenizer alone: its package imports what is not installed."""
    path = str(distribution("openai-clip").locate_file("clip/simple_tokenizer.py"))
    spec = importlib.util.spec_from_file_location("simple_tokenizer", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.SimpleTokenizer()


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize(("pad", "number"), [("!", 0), ("<|endoftext|>", 49407)])
def test_prompts_are_told_apart_as_by_clip(original: Any, prompt: str, pad: str, number: int) -> None:
    tokens = [49406, *original.encode(prompt), 49407]
    expected = torch.tensor(tokens + [number] * (77 - len(tokens)))
    assert torch.equal(token_ids(Tokenizer(pad_token=pad), prompt), expected)


def test_a_long_prompt_is_cut_before_the_end(original: Any) -> None:
    prompt = "a very long prompt " * 40
    expected = torch.tensor([49406, *original.encode(prompt)[:75], 49407])
    assert torch.equal(token_ids(Tokenizer(pad_token="!"), prompt), expected)
