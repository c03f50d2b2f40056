from itertools import islice
from pathlib import Path
from random import Random

import pytest
from transformers import CLIPTokenizer

from deploy.demo_model.pipeline.tokenizer import (
    END,
    MAX_TOKENS,
    START,
    make_tokenizer,
    save_tokenizer,
    token_ids,
    words,
)
from deploy.demo_model.world.captions import caption
from deploy.demo_model.world.random_scenes import training_scenes


@pytest.mark.parametrize("word", words())
def test_a_known_word_is_one_token(word: str) -> None:
    assert len(make_tokenizer()(word).input_ids) == 3


def test_captions_come_back_from_their_tokens() -> None:
    tokenizer, random = make_tokenizer(), Random(0)
    for scene in islice(training_scenes(0), 50):
        text = caption(scene, random)
        ids = tokenizer(text).input_ids
        assert ids[0] == token_ids().start and ids[-1] == token_ids().end
        assert tokenizer.decode(ids, skip_special_tokens=True).replace(" ,", ",").strip() == text


def test_an_unknown_word_falls_apart_and_comes_back() -> None:
    tokenizer = make_tokenizer()
    ids = tokenizer("zeppelin").input_ids

    assert len(ids) > 3
    assert tokenizer.decode(ids, skip_special_tokens=True).strip() == "zeppelin"


def test_the_saved_tokenizer_is_the_same(tmp_path: Path) -> None:
    save_tokenizer(tmp_path)
    again = CLIPTokenizer.from_pretrained(tmp_path)

    assert {"vocab.json", "merges.txt"} <= {path.name for path in tmp_path.iterdir()}
    assert again.model_max_length == MAX_TOKENS
    assert (again.bos_token, again.eos_token, again.pad_token) == (START, END, END)
    assert again("a red fish, zeppelin").input_ids == make_tokenizer()("a red fish, zeppelin").input_ids
