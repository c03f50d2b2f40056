"""Prompts: weights and tags that are plain text, and ends that the text encoder does not read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorikeet.schema import ImageToImageInput
from runtime.checkpoints.checkpoint import Checkpoint, Tokenizer
from runtime.jobs.job_table import JobRef, JobTable
from runtime.prompts.cut_prompt import cut_prompt
from runtime.prompts.prompt_tokenizer import PromptTokenizer
from runtime.settings import Settings
from runtime.stages.prepare import prompts
from runtime.stages.report import Report
from runtime.stages.text_encoder import TextEncoderStage
from tests.unit.runtime.cpu_time import least_cpu_seconds
from tests.unit.runtime.plans import make_plan, run_stage
from tests.unit.runtime.token_ids import token_ids

CLIP = Tokenizer(pad_token="!")


def _warnings(**fields: Any) -> list[str]:
    return prompts.warnings(ImageToImageInput.model_validate({"model_name": "m", "prompt": "a bird"} | fields))


@pytest.mark.parametrize(
    ("prompt", "shown"),
    [
        ("a (red fish:1.4) in the sea", "'(red fish:1.4)' is"),
        ("(fish:.5)", "'(fish:.5)' is"),
        ("(fish : 2)", "'(fish : 2)' is"),
        ("(fish:-1)", "'(fish:-1)' is"),
        ("[sea]", "'[sea]' is"),
        ("[a cat:a dog:0.5]", "'[a cat:a dog:0.5]' is"),
        ("[cat|dog]", "'[cat|dog]' is"),
        ("((masterpiece)), best", "'((masterpiece))' is"),
        ("(a:1.1), (b:1.2)", "'(a:1.1)', '(b:1.2)' are"),
        ("(a:1), (b:1), (c:1), [d], [e]", "'(a:1)', '(b:1)', '(c:1)' and 2 more are"),
        ("(" + "a" * 100 + ":1.4)", "'(" + "a" * 36 + "...' is"),
        ("(日本:1.2)", "'(日本:1.2)' is"),
    ],
)
def test_weights_are_plain_text_unless_they_are_asked_for(prompt: str, shown: str) -> None:
    for field in ("prompt", "negative_prompt"):
        warning = f"{field}: {shown} read as plain text, because prompt_weighting is off"
        assert _warnings(**{field: prompt}) == [warning]
    assert not any("plain text" in warning for warning in _warnings(prompt=prompt, prompt_weighting=True))


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "a bird (from Paris)",
        r"a \(bird:1.2\)",
        r"\[sea\]",
        "at 12:30, 16:9",
        "<3",
        ":)",
        "()",
        "[]",
        "(:1)",
        "a [ b",
    ],
)
def test_usual_punctuation_is_no_weight(prompt: str) -> None:
    assert _warnings(prompt=prompt) == []


@pytest.mark.parametrize("weighting", [False, True])
@pytest.mark.parametrize("tag", ["<lora:style:0.8>", "<lora:style>", "<LORA:a b:1>", "<lyco:x:1>", "<hypernet:x:0.5>"])
def test_a_lora_tag_loads_nothing(tag: str, weighting: bool) -> None:
    warning = f"prompt: '{tag}' is read as plain text; name LoRAs in the field loras"
    assert _warnings(prompt=f"a bird {tag}", prompt_weighting=weighting) == [warning]


def test_both_kinds_in_both_prompts_are_four_warnings() -> None:
    text = "(fish:1.4) <lora:a:1>"
    found = _warnings(prompt=text, negative_prompt=text)
    assert [warning.partition(":")[0] for warning in found] == ["prompt"] * 2 + ["negative_prompt"] * 2


@given(st.text("()[]<>:.\\1a lora|", max_size=300), st.booleans())
def test_any_prompt_gives_short_warnings(prompt: str, weighting: bool) -> None:
    found = _warnings(prompt=prompt, prompt_weighting=weighting)
    assert len(found) <= 2 and all(len(warning) < 300 for warning in found)


@pytest.mark.parametrize("piece", ["(", "((", "[", "<lora:", "(a:", "(a:1", "\\(", "[a", "(:1", "[|", "[:", "|"])
def test_a_long_prompt_is_searched_in_linear_time(piece: str) -> None:
    prompt = (piece * 10_000)[:10_000]
    for weighting in (False, True):
        assert least_cpu_seconds(lambda: _warnings(prompt=prompt, prompt_weighting=weighting)) < 0.5  # noqa: B023


@pytest.mark.parametrize(
    "prompt",
    [
        ", ".join(["a red fish"] * 30) + ", a large blue bird in the sky",
        "Ünïcode naïve café " * 20,
        "日本 の 風景 " * 30,
        " \n a\t" * 200,
        "🌸 " * 200,
    ],
)
def test_the_encoder_reads_all_but_the_cut_end(prompt: str) -> None:
    cut = cut_prompt(PromptTokenizer(CLIP), prompt)
    assert cut is not None and cut.limit == 75
    assert cut.text and prompt.endswith(cut.text)
    assert token_ids(CLIP, prompt.removesuffix(cut.text))[:75].equal(token_ids(CLIP, prompt)[:75])


@pytest.mark.parametrize("prompt", ["x" * 2000, "日本の風景" * 30, "🌸" * 400, "!" * 10_000])
def test_a_single_word_may_be_cut(prompt: str) -> None:
    cut = cut_prompt(PromptTokenizer(CLIP), prompt)
    assert cut is not None and cut.tokens > 0
    assert cut.text and prompt.endswith(cut.text)


@pytest.mark.parametrize("words", [0, 1, 74, 75])
def test_a_prompt_that_fits_is_not_cut(words: int) -> None:
    assert cut_prompt(PromptTokenizer(CLIP), "fish " * words) is None


@pytest.mark.parametrize("words", [76, 100, 500])
def test_the_tokens_that_are_cut_are_counted(words: int) -> None:
    cut = cut_prompt(PromptTokenizer(CLIP), ("fish " * words).strip())
    assert cut is not None
    assert (cut.tokens, cut.text) == (words - 75, ("fish " * (words - 75)).strip())


@pytest.mark.parametrize(("guidance_scale", "fields"), [(7.5, ["prompt", "negative_prompt"]), (0.0, ["prompt"])])
def test_the_text_encoder_warns_of_a_cut_prompt(
    settings: Settings,
    job_table: JobTable,
    sd15: Checkpoint,
    job: JobRef,
    guidance_scale: float,
    fields: list[str],
) -> None:
    prompt = ", ".join(["a red fish"] * 60) + ", a large blue bird in the sky"
    plan = make_plan(sd15, job, prompt=prompt, negative_prompt=prompt, guidance_scale=guidance_scale)
    before = Report(warnings=["of an earlier stage"])
    outputs = run_stage(TextEncoderStage(settings, job_table), plan, report=before).tensors
    warnings = json.loads(outputs["REPORT"][0])["warnings"]
    assert warnings[0] == "of an earlier stage"
    assert [warning.partition(":")[0] for warning in warnings[1:]] == fields
    for warning in warnings[1:]:
        assert "the text encoder reads " in warning and " are ignored: '" in warning and len(warning) < 200


def test_a_prompt_that_fits_gives_no_warning(
    settings: Settings, job_table: JobTable, sdxl: Checkpoint, job: JobRef
) -> None:
    outputs = run_stage(TextEncoderStage(settings, job_table), make_plan(sdxl, job, prompt="a red fish")).tensors
    assert json.loads(outputs["REPORT"][0])["warnings"] == []
