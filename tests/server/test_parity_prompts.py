"""Weighted and long prompts, and textual inversions. `parity` says what is compared.

diffusers has no weights: `tests/reference/prompts.py` evaluates A1111's formula.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lorikeet import Client
from lorikeet.client.result import Result
from tests.reference import Parts, ReferenceEmbedding
from tests.server.parity import Answers, Case, Change, Report, Row, base, check, fields, loras, rows, submit
from tests.tiny.embeddings import BUNDLED

PROMPT, NEGATIVE = "a red fish under the sun", "a boat"
LONG = ", ".join(["a red fish under the old sun by night"] * 12)  # two chunks
THING = "a <thing> under the sun"


def plain(text: str) -> Parts:
    """A prompt without weights."""
    return (((text, 1.0),),)


def weighted(prompt: str, parts: Parts, negative: str = NEGATIVE, negative_parts: Parts | None = None) -> Change:
    """Weighted prompts: the texts of the request, and their parts for the reference."""
    of_negative = negative_parts or plain(negative)
    return fields(prompt=prompt, parts=parts, negative_prompt=negative, negative_parts=of_negative)


def embeddings(**tokens: str | tuple[str, ...]) -> Change:
    """Files by name, and their tokens. The request omits tokens that equal those of an unset field."""

    def change(case: Case) -> Case:
        folder = case.request.model.parent / "embeddings" / case.request.model.name
        found = [
            ReferenceEmbedding(next(folder.glob(f"{name}.*")), (own,) if isinstance(own, str) else own)
            for name, own in tokens.items()
        ]
        return replace(case, request=replace(case.request, embeddings=tuple(found)))

    return change


def bundled(case: Case) -> Case:
    """The server finds the embedding in the LoRA."""
    model = case.request.model
    case = loras("kohya")(embeddings(two=BUNDLED)(case))
    lora = {
        "path": str(model.parent / "loras" / model.name / "bundled.safetensors"),
        "scale": case.request.loras[0].scale,
    }
    return replace(case, served={"loras": [lora], "embeddings": []})


WEIGHTS: Parts = ((("a ", 1.0), ("red", 1.6), (" fish ", 1.0), ("under", 1 / 1.1), (" ", 1.0), ("the sun", 1.1**2)),)
WEIGHTED = "a (red:1.6) fish [under] ((the sun))"
BROKEN: Parts = ((("a red fish ", 1.0),), ((" under the sun", 1.0),))
PROMPTS: dict[str, tuple[Change, ...]] = {
    "weights": (weighted(WEIGHTED, WEIGHTS),),
    "weights_negative": (weighted(PROMPT, plain(PROMPT), "a (boat:1.7)", ((("a ", 1.0), ("boat", 1.7)),)),),
    "weights_nested": (
        weighted(
            r"a ([red] fish:1.5) \(under\) the sun",
            ((("a ", 1.0), ("red", 1.5 / 1.1), (" fish", 1.5), (" (under) the sun", 1.0)),),
        ),
    ),
    "long": (fields(prompt=LONG), weighted(LONG, plain(LONG))),
    "break": (weighted(PROMPT, plain(PROMPT)), weighted("a red fish BREAK under the sun", BROKEN)),
    "long_negative": (fields(negative_prompt=LONG), weighted(PROMPT, plain(PROMPT), LONG)),
    "long_weights": (
        weighted(LONG, plain(LONG)),
        weighted(f"{LONG}, (green house:1.5)", (((f"{LONG}, ", 1.0), ("green house", 1.5)),)),
    ),
    "weights_clip_skip": (fields(clip_skip=1), weighted(WEIGHTED, WEIGHTS)),
    "long_clip_skip": (fields(clip_skip=2, prompt=LONG), weighted(LONG, plain(LONG))),
    "weights_lora": (loras("peft"), weighted(WEIGHTED, WEIGHTS)),
    "weights_num_images_2": (fields(num_images=2), weighted(WEIGHTED, WEIGHTS)),
    "long_guidance_off": (fields(guidance_scale=1.0, prompt=LONG), weighted(LONG, plain(LONG))),
}
EMBEDDINGS: dict[str, tuple[Change, ...]] = {
    "embedding_one_vector": (fields(prompt=THING), embeddings(one="<thing>")),
    "embedding_one_token_of_three_vectors": (fields(prompt=THING), embeddings(three="<thing>")),
    "embedding_unset_tokens": (fields(prompt="a <s1> by <s0>"), embeddings(two=("<s0>", "<s1>"))),
    "embedding_a_token_for_each_vector": (
        fields(prompt="a red cat, dog by <B>"),
        embeddings(three=("Cat", "dog", "<b>")),
    ),
    "embedding_several": (
        fields(prompt="a <thing> and <two>"),
        embeddings(one="<thing>"),
        embeddings(one="<thing>", two="<two>"),
    ),
    "embedding_negative": (fields(negative_prompt=THING), embeddings(three="<thing>")),
    "embedding_cut": (fields(prompt="sun " * 74 + "<thing>"), embeddings(three="<thing>")),
    "embedding_clip_skip": (fields(clip_skip=1, prompt=THING), embeddings(three="<thing>")),
    "embedding_two_loras": (fields(prompt=THING), loras("peft", "kohya"), embeddings(two="<thing>")),
    "embedding_bundled": (fields(prompt=f"a {BUNDLED} under the sun"), bundled),
    "embedding_weighted": (
        embeddings(two="<thing>"),
        weighted(THING, plain(THING)),
        weighted("a (<thing>:1.6) under the sun", ((("a ", 1.0), ("<thing>", 1.6), (" under the sun", 1.0)),)),
    ),
}


@pytest.mark.parametrize("row", rows(PROMPTS, on_all=["long"]))
def test_weighted_prompts_are_those_of_the_formula(answers: Answers, row: Row, record_property: Report) -> None:
    check(answers, row, record_property)


@pytest.mark.parametrize("row", rows(EMBEDDINGS, on_all=["embedding_one_token_of_three_vectors"]))
def test_embeddings_are_those_of_diffusers(answers: Answers, row: Row, record_property: Report) -> None:
    check(answers, row, record_property)


@pytest.mark.parametrize("kind", ["sd15", pytest.param("sdxl", marks=pytest.mark.verify)])
def test_a_long_prompt_gives_the_same_bytes_alone_and_among_others(client: Client, tiny: Path, kind: str) -> None:
    mine = _changed(base(tiny, kind), weighted(LONG, plain(LONG)), embeddings(one="<thing>"))
    alone = submit(client, mine).result()
    others = [
        _changed(mine, weighted(WEIGHTED, WEIGHTS)),
        _changed(mine, weighted(f"{LONG} {LONG}", plain(""))),
        _changed(mine, fields(parts=(), prompt=THING, num_images=2)),
        _changed(mine, weighted(f"{LONG} <thing>", plain("")), loras("peft")),
    ]
    running = [submit(client, other) for other in others]
    assert submit(client, mine).result().files == alone.files
    assert len({job.result().files[0] for job in running} | {alone.files[0]}) == len(others) + 1


def _changed(case: Case, *changes: Change) -> Case:
    for change in changes:
        case = change(case)
    return case


def test_the_response_names_an_embedding_and_its_tokens(client: Client, tiny: Path) -> None:
    case = _changed(base(tiny, "sdxl"), fields(prompt="<s0>"), embeddings(two=("<s0>", "<s1>")), bundled)
    used = submit(client, replace(case, served=case.served | {"embeddings": [_served(case, "one")]})).result()
    assert _files(used) == {"embeddings[0].path", "loras[0].path"}
    assert used.response.receipt.loras[0].embeddings == [BUNDLED]
    (unused,) = used.response.warnings
    assert (
        unused
        == f"loras[0].path: no prompt that is read has '{BUNDLED}': without its token, an embedding has no effect"
    )


def _served(case: Case, name: str) -> dict[str, str]:
    folder = case.request.model.parent / "embeddings" / case.request.model.name
    return {"path": str(next(folder.glob(f"{name}.*")))}


def _files(result: Result) -> set[str]:
    return {field for field in result.response.receipt.files if not field.startswith("model_name")}
