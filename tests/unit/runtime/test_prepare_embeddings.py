"""`prepare`: the textual inversions of a request, their tokens, and those that LoRAs bundle."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save

from runtime.jobs.job_table import JobTable
from runtime.plan import Plan
from runtime.settings import ROOT, Settings
from runtime.stages.call import Array
from runtime.stages.prepare.stage import PrepareStage
from runtime.stages.text_encoder import TextEncoderStage
from tests.unit.runtime import lora_files
from tests.unit.runtime.hub import publish
from tests.unit.runtime.plans import run_stage
from tests.unit.runtime.prepare_requests import ask, assert_refused
from tests.unit.runtime.torch_files import saved
from tests.unit.runtime.web import Web, reply

FILES = {name: f"embeddings/sd15/{name}" for name in ("one.safetensors", "two.safetensors", "three.pt")}
ONE, TWO, THREE = FILES.values()
LORA = "loras/sd15/kohya.safetensors"
BUNDLED = "loras/sd15/bundled.safetensors"


def _plan(stage: PrepareStage, files: list[bytes] | None = None, **fields: Any) -> Plan:
    return ask(stage, files, **{"prompt": "<s0> <s1> <s2> <thing> my fish"} | fields).plan


def test_an_embedding_is_in_the_plan_with_its_digest(stage: PrepareStage, tiny: Path) -> None:
    plan = _plan(stage, embeddings=[{"path": ONE, "tokens": ["<thing>"]}, {"path": THREE}])
    first, second = plan.embeddings
    digests = [hashlib.sha256((tiny / path).read_bytes()).hexdigest() for path in (ONE, THREE)]
    assert (first.field, first.tokens, first.vectors, first.tensors) == (
        "embeddings[0].path",
        ("<thing>",),
        1,
        ("<thing>",),
    )
    assert (second.tokens, second.vectors, second.tensors) == (("<s0>", "<s1>", "<s2>"), 3, ("string_to_param.*",))
    assert [first.digest, second.digest] == digests
    assert [plan.files[f"embeddings[{index}].path"] for index in range(2)] == digests
    assert torch.equal(load_file(second.path)["string_to_param.*"], torch.load(tiny / THREE)["string_to_param"]["*"])
    assert plan.warnings == ()
    assert Plan.model_validate_json(plan.to_json()).embeddings == plan.embeddings


def test_sdxl_has_a_tensor_for_each_text_encoder(stage: PrepareStage) -> None:
    embeddings = [
        {"path": "embeddings/sdxl/two.safetensors"},
        {"path": "embeddings/sdxl/one.safetensors", "tokens": ["x"]},
    ]
    first, second = _plan(stage, model_name="sdxl", prompt="<s0> x", embeddings=embeddings).embeddings
    assert (first.tensors, second.tensors) == (("clip_l", "clip_g"), ("text_encoders_0", "text_encoders_1"))


@pytest.mark.parametrize("tokens", [["<thing>"], ["a", "b", "c"]])
def test_one_token_stands_for_all_vectors_or_each_for_one(stage: PrepareStage, tokens: list[str]) -> None:
    (found,) = _plan(stage, embeddings=[{"path": THREE, "tokens": tokens}]).embeddings
    assert found.tokens == tuple(tokens)


def _named(*tokens: str, path: str = ONE) -> dict[str, Any]:
    return {"path": path, "tokens": list(tokens)}


@pytest.mark.parametrize(
    ("embeddings", "message"),
    [
        ([{"path": "no/such/file"}], "embeddings[0].path: no/such/file does not exist"),
        ([{"path": ONE}, {"path": "../x", "tokens": ["a"]}], "embeddings[1].path: ../x"),
        ([{"path": "sd15"}], "embeddings[0].path: sd15 is a folder; expected a file"),
        (
            [{"path": "sd15/model_index.json"}],
            "embeddings[0].path: not a readable .safetensors file: it is a JSON document",
        ),
        ([{"path": "embeddings/sdxl/two.safetensors"}], "embeddings[0].path: it was made for SDXL's two text encoders"),
        (
            [{"path": "embeddings/sd2/one.safetensors"}],
            "embeddings[0].path: <thing> has shape [1, 40]; expected vectors of",
        ),
        ([{"path": LORA}], "embeddings[0].path: this file is a LoRA"),
        (
            [_named("a", "b", path=THREE)],
            "embeddings[0].tokens: 2 tokens for 3 vectors: expected one for all vectors, or",
        ),
        ([_named(path=ONE)], "embeddings[0].tokens: 0 tokens for 1 vectors"),
        ([_named("<s0>", "<s1>", path=ONE)], "embeddings[0].tokens: 2 tokens for 1 vectors"),
        ([_named(" \n")], "embeddings[0].tokens: a token is blank: expected visible characters"),
        (
            [{"path": ONE}, {"path": TWO}],
            "embeddings[1].tokens: '<s0>' is in embeddings[0].tokens too: expected different",
        ),
        ([_named("<Cat>"), _named("<cAT>")], "embeddings[1].tokens: '<cAT>' is in embeddings[0].tokens too"),
        ([_named("é"), _named("e\u0301")], "is in embeddings[0].tokens too"),
        ([_named("a", "a", path=TWO)], "embeddings[0].tokens: 'a' is in embeddings[0].tokens too"),
        ([_named("x", path="embeddings/sd15")] * 33, "embeddings: at most 32, not 33"),
    ],
)
def test_what_cannot_be_used_names_its_field(
    stage: PrepareStage, embeddings: list[dict[str, Any]], message: str
) -> None:
    assert_refused(ask(stage, embeddings=embeddings), message)


def test_sdxl_refuses_vectors_for_one_text_encoder(stage: PrepareStage) -> None:
    answer = ask(stage, model_name="sdxl", embeddings=[{"path": TWO}])
    assert_refused(answer, "embeddings[0].path: it has no vectors for one of SDXL's two text encoders")


def test_the_vectors_of_a_request_are_bounded(stage: PrepareStage) -> None:
    long = save({"emb_params": torch.zeros(75, 32)})
    embeddings = [{"path": "tensor:0", "tokens": [f"<x{index}>"]} for index in range(32)]
    prompt = " ".join(f"<x{index}>" for index in range(32))
    assert len(_plan(stage, [long], prompt=prompt, embeddings=embeddings).embeddings) == 32
    lora = {**lora_files.linear(), "bundle_emb.more.emb_params": torch.zeros(1, 32)}
    answer = ask(stage, [long, save(lora)], embeddings=embeddings, loras=[{"path": "tensor:1"}])
    assert_refused(answer, "loras[0].path: the embeddings have more than 2400 vectors: use fewer")


def test_a_lora_brings_its_embedding(stage: PrepareStage) -> None:
    plan = _plan(stage, loras=[{"path": LORA}, {"path": BUNDLED, "scale": 0.5}, {"path": BUNDLED}])
    (found,) = plan.embeddings
    assert (found.field, found.tokens, found.whole_words, found.vectors) == ("loras[1].path", ("my fish",), True, 2)
    assert found.tensors == ("bundle_emb.my fish.string_to_param.*",)
    assert [lora.receipt.embeddings for lora in plan.loras] == [(), ("my fish",), ("my fish",)]
    assert all(lora.receipt.unmatched == () for lora in plan.loras)
    assert plan.warnings == ()


def test_a_scale_of_0_leaves_a_bundled_embedding_out(stage: PrepareStage) -> None:
    assert _plan(stage, loras=[{"path": BUNDLED, "scale": 0}]).embeddings == ()


def test_a_bundled_embedding_of_another_s_token_is_refused(stage: PrepareStage) -> None:
    answer = ask(stage, loras=[{"path": BUNDLED}], embeddings=[_named("My  Fish")])
    assert_refused(answer, "loras[0].path: 'my fish' is in embeddings[0].tokens too")


def test_thousands_of_tokens_and_of_texts_take_no_time(stage: PrepareStage) -> None:
    """A search of each text for each token would take minutes."""
    long = save({"emb_params": torch.zeros(75, 32)})
    embeddings = [{"path": "tensor:0", "tokens": [f"<{file}.{index}>" for index in range(75)]} for file in range(32)]
    texts = {"prompt": "a(b)" * 2500, "negative_prompt": "a(b)" * 2500}
    begun = time.process_time()
    assert len(_plan(stage, [long], embeddings=embeddings, prompt_weighting=True, **texts).warnings) == 32
    assert time.process_time() - begun < 3


def test_an_embedding_that_no_prompt_uses_is_a_warning(stage: PrepareStage) -> None:
    fields: dict[str, Any] = {
        "embeddings": [_named("<S0>"), {"path": TWO, "tokens": ["<a>", "<b>"]}],
        "loras": [{"path": BUNDLED}],
    }
    assert _plan(stage, prompt="a bird", **fields).warnings == (
        "embeddings[0].path: no prompt that is read has '<S0>': without its token, an embedding has no effect",
        "embeddings[1].path: no prompt that is read has '<a>', '<b>': without its token, an embedding has no effect",
        "loras[0].path: no prompt that is read has 'my fish': without its token, an embedding has no effect",
    )
    used = _plan(stage, prompt="a <s0>", negative_prompt="<B>, MY fish", **fields)
    assert used.warnings == ()


WEIGHTED: dict[str, Any] = {"prompt_weighting": True}
PROMPTS: list[tuple[str, str, dict[str, Any], bool]] = [
    ("[V]", "a [V] bird", {}, True),
    ("[V]", "a [V] bird", WEIGHTED, False),
    ("[V]", r"a \[V\] bird", WEIGHTED, True),
    ("style_(x)", r"a bird, style_\(x\)", WEIGHTED, True),
    ("style_(x)", r"a bird, style_\(x\)", {}, False),
    ("red fish", "a (red) fish", WEIGHTED, False),
    ("red fish", "a (red fish:1.4)", WEIGHTED, True),
    ("red fish", "a (red BREAK fish)", WEIGHTED, False),
    ("<s0>", "a bird", {"negative_prompt": "<s0>"}, True),
    ("<s0>", "a bird", {"negative_prompt": "<s0>", "guidance_scale": 1}, False),
    ("<s0>", "a bird", {"negative_prompt": "(<S0>)", **WEIGHTED}, True),
]


def _embeds(plan: Plan, settings: Settings, job_table: JobTable) -> Array:
    """The embeddings of both prompts."""
    return run_stage(TextEncoderStage(settings, job_table), plan).tensors["PROMPT_EMBEDS"]


def _has_effect(plan: Plan, settings: Settings, job_table: JobTable) -> bool:
    without = plan.model_copy(update={"embeddings": ()})
    return not np.array_equal(_embeds(plan, settings, job_table), _embeds(without, settings, job_table))


@pytest.mark.parametrize(("token", "prompt", "fields", "acts"), PROMPTS)
def test_an_embedding_without_effect_is_a_warning(
    stage: PrepareStage,
    settings: Settings,
    job_table: JobTable,
    token: str,
    prompt: str,
    fields: dict[str, Any],
    acts: bool,
) -> None:
    plan = _plan(stage, prompt=prompt, embeddings=[_named(token)], **fields)
    warned = [text for text in plan.warnings if "an embedding has no effect" in text]
    assert (len(warned) == 0) == acts
    assert _has_effect(plan, settings, job_table) == acts


@pytest.mark.parametrize(("prompt", "acts"), [("my fish", True), ("oh my  Fish!", True), ("my fishing", False)])
def test_a_bundled_embedding_that_is_a_part_of_words_is_a_warning(
    stage: PrepareStage, settings: Settings, job_table: JobTable, prompt: str, acts: bool
) -> None:
    plan = _plan(stage, prompt=prompt, loras=[{"path": BUNDLED}])
    assert (plan.warnings == ()) == acts
    assert _has_effect(plan, settings, job_table) == acts


def test_the_warning_says_what_to_do(stage: PrepareStage) -> None:
    assert _plan(stage, embeddings=[_named("[V]")], prompt="a [V] bird", **WEIGHTED).warnings == (
        "embeddings[0].path: no prompt that is read has '[V]': without its token, an embedding has no effect; "
        "with prompt_weighting, write a backslash before each bracket and backslash of a token",
    )
    fields: dict[str, Any] = {"prompt": "a bird", "negative_prompt": "<A>", "guidance_scale": 1}
    assert _plan(stage, embeddings=[_named("<a>")], **fields).warnings == (
        "embeddings[0].path: no prompt that is read has '<a>': without its token, an embedding has no effect",
        "negative_prompt: guidance_scale is 1, ignored",
    )


@pytest.mark.parametrize("name", ["learned_embeds.safetensors", "learned_embeds.bin", "other.safetensors"])
def test_an_embedding_of_the_hub(stage: PrepareStage, hub: Web, name: str) -> None:
    vectors = {"<thing>": torch.randn(2, 32)}
    content = saved(vectors) if name.endswith(".bin") else save(vectors)
    publish(hub, "owner/name", {"README.md": b"", "concept_images/0.jpeg": b"", name: content})
    (found,) = _plan(stage, embeddings=[{"path": "owner/name"}]).embeddings
    assert torch.equal(load_file(found.path)["<thing>"], vectors["<thing>"])
    assert found.digest == hashlib.sha256(content).hexdigest()


def test_an_embedding_of_a_url(stage: PrepareStage, web: Web, tiny: Path) -> None:
    web.answers["/three.pt"] = reply((tiny / THREE).read_bytes())
    (found,) = _plan(stage, embeddings=[{"path": web.url("/three.pt")}]).embeddings
    assert found.vectors == 3


def test_prepare_reads_them_without_torch(tiny: Path, tmp_path: Path) -> None:
    code = (
        "import sys, runtime.stages.prepare.stage; from pathlib import Path; "
        "from runtime.files.torch_pickle import to_safetensors; "
        f"b''.join(to_safetensors(Path({str(tiny / THREE)!r}))); "
        "print(sorted({'torch', 'transformers', 'tokenizers'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert json.loads(done.stdout.replace("'", '"')) == [], done.stderr[-2000:]
