"""The text encoder stage: weighted prompts, prompts of several chunks, and vectors of textual inversions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from runtime.checkpoints.checkpoint import Checkpoint
from runtime.engines.engine import CallSizes, never_cancelled
from runtime.jobs.job_table import JobRef, JobTable
from runtime.plan import EmbeddingPlan, Plan
from runtime.prompts.emphasis import emphasize
from runtime.prompts.weighting import PromptError
from runtime.settings import Settings
from runtime.stage_errors import InvalidArgument
from runtime.stages import text_encoder
from runtime.stages.bind_component import bind_component
from runtime.stages.text_encoder import TextEncoderStage
from runtime.stages.text_size import prompt_embeds_bytes
from tests.unit.runtime.plans import make_plan, run_stage
from tests.unit.runtime.tiny_checkpoints import base_tensors, digest

LONG = "a red fish under the sun, " * 20  # three chunks of the tiny vocabulary
Encode = Any


@pytest.fixture
def encode(settings: Settings, job_table: JobTable, job: JobRef) -> Encode:
    """The embeddings and pooled embeddings that the stage makes of a request's prompts."""

    def encode(checkpoint: Checkpoint, **fields: Any) -> tuple[torch.Tensor, torch.Tensor]:
        answer = run_stage(TextEncoderStage(settings, job_table), make_plan(checkpoint, job, **fields)).tensors
        return torch.from_numpy(answer["PROMPT_EMBEDS"]), torch.from_numpy(answer["POOLED_EMBEDS"])

    return encode


@pytest.fixture(params=["sd15", "sdxl"])
def checkpoint(request: pytest.FixtureRequest) -> Checkpoint:
    found: Checkpoint = request.getfixturevalue(request.param)
    return found


def test_without_weights_a_short_prompt_has_the_same_bytes(encode: Encode, checkpoint: Checkpoint) -> None:
    plain = encode(checkpoint, prompt="a red fish", negative_prompt="a boat")
    weighted = encode(checkpoint, prompt="a red fish", negative_prompt="a boat", prompt_weighting=True)
    assert all(map(torch.equal, plain, weighted))


def test_the_shorter_prompt_has_chunks_of_the_empty_prompt(encode: Encode, checkpoint: Checkpoint) -> None:
    options = {"prompt_weighting": True, "negative_prompt": "a boat"}
    text, pooled = encode(checkpoint, prompt=LONG, **options)
    short, _ = encode(checkpoint, prompt="", **options)
    chunks = text.shape[1] // 77
    assert chunks >= 3 and text.shape[1] % 77 == 0
    assert torch.equal(text[0, :77], short[0])
    empty, _ = encode(checkpoint, prompt="", negative_prompt="", prompt_weighting=True)
    assert all(torch.equal(chunk, empty[0]) for chunk in text[0, 77:].split(77))
    # The prompt's own chunks differ from each other, and the first is that of the cut prompt.
    cut, cut_pooled = encode(checkpoint, prompt=LONG, negative_prompt="a boat")
    assert torch.equal(text[:, :77], cut) and torch.equal(pooled, cut_pooled)
    assert not torch.equal(text[1, :77], text[1, 77:154])


def test_break_begins_a_chunk(encode: Encode, checkpoint: Checkpoint) -> None:
    text, pooled = encode(checkpoint, prompt="a fish BREAK a boat", prompt_weighting=True, guidance_scale=1.0)
    fish, of_fish = encode(checkpoint, prompt="a fish", guidance_scale=1.0)
    boat, _ = encode(checkpoint, prompt="a boat", guidance_scale=1.0)
    assert torch.equal(text, torch.cat([fish, boat], dim=1)) and torch.equal(pooled, of_fish)


def test_a_weight_multiplies_its_token_and_the_mean_is_restored(encode: Encode, sd15: Checkpoint) -> None:
    plain, _ = encode(sd15, prompt="a red sun", guidance_scale=1.0)
    found, _ = encode(sd15, prompt="a (red:1.5) sun", prompt_weighting=True, guidance_scale=1.0)
    expected = plain[0].clone()
    expected[2] *= 1.5
    torch.testing.assert_close(found[0], expected * plain.mean() / expected.mean(), rtol=1e-5, atol=1e-6)


def test_weights_of_sdxl_restore_the_mean_of_each_text_encoder(encode: Encode, sdxl: Checkpoint) -> None:
    found, pooled = encode(sdxl, prompt="a (red:0.2) sun", prompt_weighting=True, guidance_scale=1.0)
    plain, plain_pooled = encode(sdxl, prompt="a red sun", guidance_scale=1.0)
    assert not torch.equal(found, plain) and torch.equal(pooled, plain_pooled)
    for of_encoder, before in zip(found.split([32, 48], dim=-1), plain.split([32, 48], dim=-1), strict=True):
        torch.testing.assert_close(of_encoder.mean(), before.mean(), rtol=1e-4, atol=1e-7)


def test_weights_that_leave_no_mean_are_refused() -> None:
    states = torch.tensor([[1.0], [1.0], [1.0]])
    assert emphasize(states, [1.0]) is states
    torch.testing.assert_close(emphasize(states, [4.0]), torch.tensor([[0.5], [2.0], [0.5]]))
    with pytest.raises(PromptError, match="cancel each other"):
        emphasize(states, [-2.0])
    assert not emphasize(states * torch.inf, [4.0]).isfinite().any()  # a LoRA's fault, not that of the weights


def test_the_clip_skip_and_a_weight_apply_together(encode: Encode, checkpoint: Checkpoint) -> None:
    options = {"prompt": "a (red:1.5) sun", "prompt_weighting": True, "negative_prompt": "(a:2) boat"}
    first, second = (encode(checkpoint, clip_skip=skip, **options)[0] for skip in (0, 1))
    assert torch.equal(first[0], second[0]) and not torch.allclose(first[1], second[1], atol=0.01)


@pytest.mark.parametrize("fields", [{}, {"guidance_scale": 1.0}, {"prompt": "fish"}, {"prompt": "a BREAK (b) BREAK c"}])
def test_the_size_of_the_embeddings_is_estimated_above(
    settings: Settings, job_table: JobTable, job: JobRef, checkpoint: Checkpoint, fields: dict[str, Any]
) -> None:
    defaults: dict[str, Any] = {"prompt": LONG, "prompt_weighting": True, "negative_prompt": "x"}
    plan = make_plan(checkpoint, job, **defaults | fields)
    found = run_stage(TextEncoderStage(settings, job_table), plan).tensors["PROMPT_EMBEDS"].nbytes
    assert found <= prompt_embeds_bytes(plan) <= 4 * found
    plain = make_plan(checkpoint, job, prompt=LONG)
    assert prompt_embeds_bytes(plain) == 4 * 2 * 77 * checkpoint.unet.config["cross_attention_dim"]


def _embedding(path: Path, tensors: dict[str, torch.Tensor], tokens: tuple[str, ...]) -> EmbeddingPlan:
    save_file(tensors, path)
    vectors = len(next(iter(tensors.values())))
    return EmbeddingPlan(
        field="embeddings[0].path",
        path=path,
        digest=digest(path).digest,
        tokens=tokens,
        vectors=vectors,
        tensors=tuple(tensors),
    )


def test_a_vector_of_a_known_token_is_that_token(encode: Encode, tmp_path: Path, checkpoint: Checkpoint) -> None:
    tables = [
        base_tensors(encoder)["text_model.embeddings.token_embedding.weight"] for encoder in checkpoint.text_encoders
    ]
    number = 300  # a merged token, no special one
    tensors = {f"vectors {index}": table[[number, number + 1]] for index, table in enumerate(tables)}
    embedding = _embedding(tmp_path / "known.safetensors", tensors, ("<thing>",))
    with_vectors, _ = encode(checkpoint, prompt="a <thing>", embeddings=(embedding,), guidance_scale=1.0)
    without, _ = encode(checkpoint, prompt="a <thing>", guidance_scale=1.0)
    other = EmbeddingPlan.model_validate(embedding.model_dump() | {"tokens": ("<one>", "<two>")})
    by_two, _ = encode(checkpoint, prompt="a <one><two>", embeddings=(other,), guidance_scale=1.0)
    assert torch.equal(with_vectors, by_two) and not torch.allclose(with_vectors, without, atol=0.01)
    # The states before the token are those of the prompt without it: attention is causal.
    assert torch.equal(with_vectors[0, :2], encode(checkpoint, prompt="a red", guidance_scale=1.0)[0][0, :2])


def test_an_embedding_that_no_prompt_uses_changes_no_byte(encode: Encode, tmp_path: Path, sd15: Checkpoint) -> None:
    embedding = _embedding(tmp_path / "unused.safetensors", {"x": torch.randn(2, 32)}, ("<thing>",))
    for weighting in (False, True):
        fields = {"prompt": "a red fish", "prompt_weighting": weighting}
        assert torch.equal(encode(sd15, embeddings=(embedding,), **fields)[0], encode(sd15, **fields)[0])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e39])
def test_vectors_that_are_not_finite_name_the_field(
    settings: Settings, job_table: JobTable, job: JobRef, sd15: Checkpoint, tmp_path: Path, value: float
) -> None:
    vectors = torch.zeros(2, 32, dtype=torch.float64)
    vectors[1, 3] = value
    embedding = _embedding(tmp_path / "bad.safetensors", {"emb_params": vectors}, ("<thing>",))
    error = run_stage(TextEncoderStage(settings, job_table), make_plan(sd15, job, embeddings=(embedding,))).error
    assert isinstance(error, InvalidArgument)
    assert str(error) == "embeddings[0].path: emb_params has a value that is not finite in float32"


def test_more_chunks_than_memory_was_reserved_for_are_refused(
    settings: Settings, job_table: JobTable, job: JobRef, sd15: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a checkpoint's own tokenizer, which may have other tokens than CLIP's."""
    monkeypatch.setattr(text_encoder, "most_chunks", lambda _: 2)
    plan = make_plan(sd15, job, prompt=LONG, prompt_weighting=True)
    error = run_stage(TextEncoderStage(settings, job_table), plan).error
    assert isinstance(error, InvalidArgument)
    assert str(error) == "model_name: its tokenizer makes 3 chunks of a prompt that has at most 2"


def test_a_file_that_changed_names_the_field(
    settings: Settings, job_table: JobTable, job: JobRef, sd15: Checkpoint, tmp_path: Path
) -> None:
    embedding = _embedding(tmp_path / "gone.safetensors", {"emb_params": torch.zeros(2, 32)}, ("<thing>",))
    (tmp_path / "gone.safetensors").unlink()
    error = run_stage(TextEncoderStage(settings, job_table), make_plan(sd15, job, embeddings=(embedding,))).error
    assert isinstance(error, InvalidArgument)
    assert str(error).startswith("embeddings[0].path: ")


@pytest.mark.parametrize(
    ("kind", "tokens", "known"),
    [("unet", 77, True), ("unet", 154, False), ("unet", 40, False), ("text_encoder", 77, False)],
)
def test_only_a_text_of_one_chunk_has_a_size_that_settings_name(
    sd15: Checkpoint, job: JobRef, kind: Any, tokens: int, known: bool
) -> None:
    sizes = CallSizes(2, 8, 8)
    seen: list[CallSizes | None] = []

    class Engines:
        def of(self, *_: object) -> Any:
            return self

        def sizes(self, _: Plan, rows: int) -> CallSizes:
            return sizes

        def bind(self, _weights: object, _check: object, found: CallSizes | None) -> None:
            seen.append(found)

    component = sd15.unet if kind == "unet" else sd15.text_encoders[0]
    bind_component(Engines(), kind, make_plan(sd15, job, prompt_weighting=True), component, never_cancelled, 2, tokens)  # type: ignore[arg-type]
    assert seen == [sizes if known else None]


def test_all_embeddings_are_finite(encode: Encode, checkpoint: Checkpoint) -> None:
    text, pooled = encode(checkpoint, prompt="(a:100) [b] (c:0) (d:-3)", negative_prompt="(x:0)", prompt_weighting=True)
    assert np.isfinite(text.numpy()).all() and np.isfinite(pooled.numpy()).all()
