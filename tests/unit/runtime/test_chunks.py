"""Tokens of prompts, their chunks, and how many chunks a prompt has at most."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from hypothesis import given
from hypothesis import strategies as st
from transformers.models.clip.tokenization_clip import CLIPTokenizer

from runtime.checkpoints.checkpoint import Tokenizer
from runtime.checkpoints.clip_vocabulary import clip_vocabulary
from runtime.prompts.chunk_bound import MAX_CHUNKS, chunk_bound
from runtime.prompts.chunks import Chunk, first_chunk, split_chunks
from runtime.prompts.inversion import InvertedToken
from runtime.prompts.prompt_tokenizer import PromptTokenizer, Token, TokenizerError
from runtime.prompts.weighting import PromptError, parse_weights
from tests.unit.runtime.cpu_time import least_cpu_seconds
from tests.unit.runtime.token_ids import token_ids

CLIP = Tokenizer(pad_token="!")
VOCABULARY = 49408
START, END = 49406, 49407
Inversions = dict[str, int]  # token -> how many vectors it stands for


def _tokens(*counts: int) -> list[Token]:
    """Tokens of so many ids each: 0, 1, 2 and so on."""
    found, first = [], 0
    for count in counts:
        found.append(Token(tuple(range(first, first + count)), first))
        first += count
    return found


def _chunk(begin: int, end: int, weight: float = 1.0) -> Chunk:
    return Chunk(list(range(begin, end)), [weight] * (end - begin))


ONES = _tokens(*[1] * 200)


@pytest.mark.parametrize(
    ("parts", "chunks"),
    [
        ([[]], [_chunk(0, 0)]),
        ([[(ONES[:75], 1.0)]], [_chunk(0, 75)]),
        ([[(ONES[:76], 1.0)]], [_chunk(0, 75), _chunk(75, 76)]),
        ([[(ONES, 1.0)]], [_chunk(0, 75), _chunk(75, 150), _chunk(150, 200)]),
        ([[(ONES[:3], 1.5)], [(ONES[3:5], 1.0)]], [_chunk(0, 3, 1.5), _chunk(3, 5)]),
        ([[(ONES[:3], 1.0)], [], [(ONES[3:5], 1.0)]], [_chunk(0, 3), _chunk(0, 0), _chunk(3, 5)]),
        ([[(ONES[:3], 1.0)], []], [_chunk(0, 3)]),
        ([[(ONES[:75], 1.0)], []], [_chunk(0, 75)]),
        ([[], [(ONES[:3], 1.0)]], [_chunk(0, 0), _chunk(0, 3)]),
        ([[(_tokens(74, 3), 1.0)]], [_chunk(0, 74), _chunk(74, 77)]),
        ([[(_tokens(72, 3), 1.0)]], [_chunk(0, 75)]),
        ([[(_tokens(75, 75), 2.0)]], [_chunk(0, 75, 2.0), _chunk(75, 150, 2.0)]),
    ],
)
def test_chunks_have_75_tokens_and_begin_where_a_part_does(parts: Any, chunks: list[Chunk]) -> None:
    assert split_chunks(parts, 75) == chunks


def test_a_chunk_has_the_weight_of_each_token() -> None:
    (chunk,) = split_chunks([[(_tokens(1, 2), 1.5), (_tokens(1), 0.5)]], 75)
    assert chunk == Chunk([0, 1, 2, 0], [1.5, 1.5, 1.5, 0.5])


def test_more_chunks_than_the_limit_are_refused() -> None:
    most = _tokens(*[1] * 75 * MAX_CHUNKS)
    assert len(split_chunks([[(most, 1.0)]], 75)) == MAX_CHUNKS
    with pytest.raises(PromptError, match=f"more than {MAX_CHUNKS} chunks of 75 tokens .*: shorten the prompt"):
        split_chunks([[(most, 1.0), (_tokens(1), 1.0)]], 75)
    with pytest.raises(PromptError, match=f"more than {MAX_CHUNKS} chunks"):
        split_chunks([[]] * MAX_CHUNKS + [[(_tokens(1), 1.0)]], 75)
    with pytest.raises(PromptError, match="stands for 19 vectors; the text encoder reads 18"):
        split_chunks([[(_tokens(19), 1.0)]], 18)


def test_without_weighting_the_first_ids_are_read() -> None:
    assert first_chunk(_tokens(74, 3), 75) == _chunk(0, 75)
    assert first_chunk([], 75) == Chunk([], [])


TEXTS = st.text(max_size=120) | st.text("abc <>|endoftx'lls1.,!?日é\n\t🌸", max_size=300)


@given(TEXTS)
def test_a_row_has_the_ids_of_transformers(text: str) -> None:
    expected = _clip()(text, padding="max_length", truncation=True, max_length=77, return_tensors="pt").input_ids[0]
    assert torch.equal(token_ids(CLIP, text), expected)


@cache
def _clip(*added: str) -> Any:
    """A tokenizer of transformers, to which tokens were added."""
    vocabulary, merges = clip_vocabulary()
    made = CLIPTokenizer(vocabulary, merges, pad_token="!")
    for token in added:
        made.add_tokens(token)
    return made


ADDED = ("<s0>", "<s1>", "<s10>", "<Cat-Toy>", "my fish", "a1", "é1", "日本", "<|end", "b  c")


@given(
    st.lists(
        st.sampled_from(
            [*ADDED, "<S0>", "MY  FISH", " ", "x", "1", "a", "<s", "fish", "e\u03011", "<|endoftext|>", ",", "B c"]
        )
    )
)
def test_inverted_tokens_are_found_as_transformers_finds_added_ones(pieces: list[str]) -> None:
    text = "".join(pieces)
    expected = _clip(*ADDED)(text, add_special_tokens=False).input_ids
    inverted = [InvertedToken(token, (VOCABULARY + i,)) for i, token in enumerate(ADDED)]
    assert [_clip(*ADDED).convert_tokens_to_ids(token) for token in ADDED] == [token.ids[0] for token in inverted]
    found = PromptTokenizer(CLIP, inverted).tokenize(text)
    assert [number for token in found for number in token.ids] == expected
    assert [token.begin for token in found] == sorted(token.begin for token in found)


@pytest.mark.parametrize(
    "text", ["a <thing> here", "<thing><thing>", "<thing>", "thing", "<THING>", "sun " * 73 + "<thing>"]
)
def test_a_token_of_several_vectors_is_as_in_diffusers(tiny: Path, text: str) -> None:
    pipe = StableDiffusionPipeline.from_pretrained(tiny / "sd15")
    size = len(pipe.tokenizer)
    pipe.load_textual_inversion({"<thing>": torch.zeros(3, 32)}, token="<thing>")
    converted = pipe.maybe_convert_prompt(text.lower(), pipe.tokenizer)
    expected = pipe.tokenizer(converted, padding="max_length", max_length=77, truncation=True).input_ids
    files = Tokenizer(folder=tiny / "sd15/tokenizer")
    tokenizer = PromptTokenizer(files, [InvertedToken("<thing>", (size, size + 1, size + 2))], size)
    assert tokenizer.row(first_chunk(tokenizer.tokenize(text), tokenizer.limit).ids) == expected


@pytest.mark.parametrize(
    ("text", "found"),
    [("my art here", True), ("an Art, here", True), ("art", True), ("party art-deco", True), ("party", False)],
)
def test_a_token_of_whole_words_is_no_part_of_a_word(text: str, found: bool) -> None:
    tokenizer = PromptTokenizer(CLIP, [InvertedToken("art", (VOCABULARY,), whole_words=True)])
    assert any(token.ids == (VOCABULARY,) for token in tokenizer.tokenize(text)) == found


def test_ids_that_the_text_encoder_lacks_are_refused() -> None:
    with pytest.raises(TokenizerError, match="lacks tokens"):
        PromptTokenizer(CLIP, vocabulary=END)
    tokenizer = PromptTokenizer(CLIP, [InvertedToken("<s0>", (VOCABULARY,))])
    assert tokenizer.row((VOCABULARY,)) == [START, VOCABULARY, END, *[0] * 74]


@pytest.mark.parametrize("text", ["a" * 10_000, "a " * 5000, "🌸" * 10_000, "<s0>" * 2500, "(a)b" * 2500])
def test_a_long_prompt_is_tokenized_quickly(text: str) -> None:
    tokenizer = PromptTokenizer(CLIP, [InvertedToken("<s0>", (VOCABULARY,)), InvertedToken("a", (VOCABULARY + 1,))])

    def tokenize() -> None:
        for part in parse_weights(text):
            for piece, _ in part:
                tokenizer.tokenize(piece)

    assert least_cpu_seconds(tokenize) < 1.0


# Separators of which the tokenizer makes tokens; a sigma that `str.lower` writes in another way at the end of a word.
SPECIAL = ("\x1c" * 80, "\x1f", "\x85", "ΔΣ ", "δσ" * 30, "δς", "İ" * 40)


@pytest.mark.parametrize("text", [text * 40 for text in SPECIAL])
def test_the_bound_holds_for_what_python_and_the_tokenizer_see_differently(text: str) -> None:
    tokenizer = PromptTokenizer(CLIP, [InvertedToken("ΔΣ", tuple(range(VOCABULARY, VOCABULARY + 75)))])
    parts = parse_weights(text)
    chunks = [[(tokenizer.tokenize(text), weight) for text, weight in part] for part in parts]
    try:
        count = len(split_chunks(chunks, 75))
    except PromptError:
        count = MAX_CHUNKS
    assert count <= chunk_bound(parts, [("ΔΣ", 75)])


@given(
    TEXTS
    | st.lists(st.sampled_from(["<s0>", "<S1>", " BREAK ", "fish ", "(", ")", "x" * 40, "🌸" * 30, *SPECIAL])).map(
        "".join
    ),
    st.dictionaries(st.sampled_from(["<s0>", "<s1>", "fish", "ΔΣ"]), st.integers(1, 75)),
)
def test_no_prompt_has_more_chunks_than_its_bound(prompt: str, inversions: Inversions) -> None:
    tokenizer = PromptTokenizer(
        CLIP, [InvertedToken(token, tuple(range(VOCABULARY, VOCABULARY + n))) for token, n in inversions.items()]
    )
    try:
        parts = parse_weights(prompt)
    except PromptError:
        return
    bound = chunk_bound(parts, inversions.items())
    try:
        chunks = split_chunks([[(tokenizer.tokenize(text), weight) for text, weight in part] for part in parts], 75)
    except PromptError:
        assert bound == MAX_CHUNKS
        return
    assert len(chunks) <= bound <= MAX_CHUNKS


@pytest.mark.parametrize(("words", "most"), [(1, 1), (50, 5), (120, 12), (700, MAX_CHUNKS)])
def test_the_bound_of_usual_prompts_is_small(words: int, most: int) -> None:
    assert chunk_bound(parse_weights("(harbour:1.2) " * words)) <= most
