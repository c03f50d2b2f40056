"""The `denoiser` stage: from embeddings and a posterior to latents, as diffusers makes them."""

from __future__ import annotations

import json
import math
import time
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline

from runtime.checkpoints.checkpoint import Checkpoint
from runtime.checkpoints.read_controlnet import read_controlnet
from runtime.engines.ask import Bound
from runtime.engines.engine import Binding
from runtime.engines.torch.torch_engine import TorchEngine
from runtime.files.located import Folder
from runtime.jobs.job_table import JobRef, JobTable, State
from runtime.metrics.stage_definitions import (
    CALL_ROWS,
    CALL_SECONDS,
    LORA_HITS,
    LORA_MERGES,
    REQUESTS_RUNNING,
    REQUESTS_WAITING,
    ROWS,
    STAGE_SECONDS,
    STEPS,
    WAIT_SECONDS,
    WEIGHTS_BYTES,
    WEIGHTS_LOADS,
)
from runtime.plan import CONTROL_IMAGE, PicturePlan, Plan
from runtime.settings import Settings
from runtime.stage_errors import Cancelled, Internal, InvalidArgument, Unavailable
from runtime.stages.bind_component import bind_component
from runtime.stages.call import Array
from runtime.stages.denoiser.stage import DenoiserStage
from tests.unit.runtime import lora_files
from tests.unit.runtime.engines import assert_near, noise
from tests.unit.runtime.faults import raising
from tests.unit.runtime.freed import is_freed, no_collector
from tests.unit.runtime.plans import Answer, make_plan, run_stage, submit
from tests.unit.runtime.stand_in import fake_bound, releases
from tests.unit.runtime.tiny_checkpoints import digest


def _denoiser_inputs(plan: Plan) -> dict[str, Array]:
    pictures = int(plan.has_image)
    return {
        "CONTROLS": np.zeros(0, np.uint8),
        "PROMPT_EMBEDS": noise(1 + plan.guided, 77, 32, seed=1).numpy(),
        "POOLED_EMBEDS": np.zeros((1 + plan.guided, 0), np.float32),
        "CONCAT": np.zeros((0, 8, 8), np.float32),
        "IP_KEYS": np.zeros((0, 0, 0, 0), np.float32),
        "IP_VALUES": np.zeros((0, 0, 0, 0), np.float32),
        "IP_BIAS": np.zeros((0, 0), np.float32),
        "IP_TOKENS": np.zeros((0, 0, 0), np.float32),
        "LATENT_MEAN": noise(pictures, 4, 8, 8, seed=2).numpy(),
        "LATENT_STD": noise(pictures, 4, 8, 8, seed=3).abs().numpy(),
    }


def _denoised(settings: Settings, job_table: JobTable, plan: Plan) -> Answer:
    return run_stage(DenoiserStage(settings, job_table), plan, _denoiser_inputs(plan))


def test_the_denoiser_makes_the_latents_of_diffusers(
    tiny: Path, settings: Settings, job_table: JobTable, sd15: Checkpoint, job: JobRef
) -> None:
    plan = make_plan(sd15, job, scheduler="DDIM", num_inference_steps=3, num_images=2, debug_per_pass_latents=True)
    inputs = _denoiser_inputs(plan)
    found = _denoised(settings, job_table, plan).tensors
    pipe = StableDiffusionPipeline.from_pretrained(tiny / "sd15")
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    negative, prompt = torch.from_numpy(inputs["PROMPT_EMBEDS"])
    expected = pipe(
        prompt_embeds=prompt[None],
        negative_prompt_embeds=negative[None],
        num_inference_steps=3,
        num_images_per_prompt=2,
        width=64,
        height=64,
        generator=torch.Generator().manual_seed(5),
        output_type="latent",
    ).images
    assert_near(torch.from_numpy(found["LATENTS"]), expected, 1e-4)
    assert np.array_equal(found["PER_PASS_LATENTS"][-1], found["LATENTS"])
    assert found["PER_PASS_LATENTS"].shape == (3, 2, 4, 8, 8)
    engine = json.loads(found["REPORT"][0])["engine"]
    assert (engine["name"], engine["precision"], engine["threads"] > 0) == ("torch", "float32", True)


def test_a_schedule_that_fails_on_the_way_is_refused_before_any_weights_are_loaded(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, job_table: JobTable, sd15: Checkpoint, job: JobRef
) -> None:
    monkeypatch.setattr("runtime.stages.denoiser.stage.bind_component", raising(AssertionError("weights are loaded")))
    plan = make_plan(sd15, job, scheduler="LCM", rescale_betas_snr_zero=True)
    error = _denoised(settings, job_table, plan).error
    assert isinstance(error, InvalidArgument)
    assert "rescale_betas_snr_zero: LCM cannot run this schedule" in str(error)
    assert job_table.progress(job).step == 0


def test_more_controlnets_than_fit_into_memory_are_refused_by_name(
    tiny: Path, settings: Settings, job_table: JobTable, sd15: Checkpoint, job: JobRef
) -> None:
    """The request would wait for memory that it holds itself. The next request is served."""
    networks = tuple(
        read_controlnet(Folder(folder, folder), sd15.unet, digest).model_copy(
            update={"name": f"controlnets[{index}]", "field": f"controlnets[{index}].path"}
        )
        for index, folder in enumerate((tiny / "controlnets" / "sd15", tiny / "controlnets" / "sd15_b"))
    )
    sizes = [4 * sum(math.prod(shape) for shape in one.shapes.values()) for one in (sd15.unet, *networks)]
    pictures = tuple(
        PicturePlan(field=CONTROL_IMAGE.format(index), tensor="CONTROLS", height=64, width=64, offset=0)
        for index in range(2)
    )
    asked = [{"path": "a", "image_url": "tensor:0"}] * 2

    def planned(count: int) -> Plan:
        found = make_plan(sd15, job, num_inference_steps=1, controlnets=asked[:count])
        return found.model_copy(update={"controlnets": networks[:count], "pictures": pictures[:count]})

    stage = DenoiserStage(settings.model_copy(update={"weights_bytes": sum(sizes) - 1}), job_table)
    answers = []
    for count in (2, 1):
        plan = planned(count)
        inputs = _denoiser_inputs(plan) | {"CONTROLS": np.zeros(3 * 64 * 64, np.uint8)}
        answers.append(submit(stage, plan, inputs))
        answers[-1].wait()
    stage.close()
    assert isinstance(answers[0].error, InvalidArgument)
    assert str(answers[0].error).startswith("controlnets[1].path: with it, the request's weights need")
    assert answers[1].tensors["LATENTS"].shape == (1, 4, 8, 8)


def test_a_job_that_cannot_be_made_leaves_no_binding(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, job_table: JobTable, sd15: Checkpoint, job: JobRef
) -> None:
    bound = fake_bound()
    monkeypatch.setattr("runtime.stages.denoiser.stage.bind_component", lambda *_: bound)
    monkeypatch.setattr("runtime.stages.denoiser.stage.Job", raising(MemoryError()))
    assert isinstance(_denoised(settings, job_table, make_plan(sd15, job)).error, Internal)
    assert releases(bound) == 1


@pytest.mark.parametrize("block_rows", [0, 3])
@pytest.mark.parametrize("scheduler", [None, "DPM++ 2M SDE"])  # which draws noise at each step
def test_the_same_seed_gives_the_same_bytes_beside_others(
    settings: Settings, job_table: JobTable, sd15: Checkpoint, job: JobRef, block_rows: int, scheduler: str | None
) -> None:
    settings = settings.model_copy(update={"block_rows": block_rows})
    plan = make_plan(sd15, job, num_inference_steps=4, image_url="tensor:0", scheduler=scheduler)
    alone = _denoised(settings, job_table, plan).tensors["LATENTS"]
    stage = DenoiserStage(settings, job_table)
    others = [make_plan(sd15, job, num_inference_steps=n, num_images=n, prompt=str(n)) for n in (2, 3)]
    answers = [submit(stage, each, _denoiser_inputs(each)) for each in (others[0], plan, others[1], plan)]
    assert np.array_equal(answers[1].tensors["LATENTS"], alone)
    assert np.array_equal(answers[3].tensors["LATENTS"], alone)
    assert len(answers[2].tensors["LATENTS"]) == 3
    stage.close()


def test_steps_rows_and_weights_are_counted(
    tiny: Path, settings: Settings, job_table: JobTable, sd15: Checkpoint, job: JobRef
) -> None:
    stage = DenoiserStage(settings, job_table)
    loras = {tiny / "loras/sd15/kohya.safetensors": 1.0}
    for _ in range(2):
        plan = make_plan(sd15, job, scheduler="DDIM", num_inference_steps=3, num_images=2, loras=loras)
        assert submit(stage, plan, _denoiser_inputs(plan)).tensors
    refused = make_plan(sd15, job, scheduler="LCM", rescale_betas_snr_zero=True)
    assert submit(stage, refused, _denoiser_inputs(refused)).error
    stage.close()
    found = {sample.series.definition: sample for sample in stage.metrics.take()}
    assert {definition.name: found[definition].value for definition in (STEPS, ROWS, LORA_MERGES, LORA_HITS)} == {
        "lorikeet_steps_total": 6,
        "lorikeet_rows_total": 24,
        "lorikeet_lora_merges_total": 1,
        "lorikeet_lora_cache_hits_total": 1,
    }
    assert found[CALL_ROWS].observations == [2.0] * 12
    assert found[CALL_SECONDS].value > 0
    assert found[WEIGHTS_BYTES].value > 0 and found[WEIGHTS_LOADS].value == 1
    assert found[REQUESTS_WAITING].value == found[REQUESTS_RUNNING].value == 0
    assert len(found[STAGE_SECONDS].observations) == len(found[WAIT_SECONDS].observations) == 2


def test_a_lora_of_scale_0_is_as_good_as_none(
    tiny: Path, settings: Settings, job_table: JobTable, sd15: Checkpoint, job: JobRef
) -> None:
    file = tiny / "loras/sd15/kohya.safetensors"
    latents = [
        _denoised(settings, job_table, make_plan(sd15, job, num_inference_steps=2, loras=loras)).tensors["LATENTS"]
        for loras in ({}, {file: 0.0}, {file: 1.0})
    ]
    assert np.array_equal(latents[0], latents[1])
    assert not np.array_equal(latents[0], latents[2])


def test_latents_that_are_not_finite_are_no_picture(
    tiny: Path, settings: Settings, job_table: JobTable, sd15: Checkpoint, job: JobRef
) -> None:
    """Decoded, they would be black, and paid for."""
    plan = make_plan(sd15, job, num_inference_steps=2, loras={tiny / "loras/sd15/kohya.safetensors": 1e30})
    error = _denoised(settings, job_table, plan).error
    assert isinstance(error, InvalidArgument)
    expected = (
        "loras[0].scale: the latents are not finite in float32: lower loras[0].scale (1e+30), guidance_scale (7.5),"
    )
    assert str(error).startswith(expected)


def test_the_order_of_loras_hardly_matters(
    tiny: Path, settings: Settings, job_table: JobTable, sd15: Checkpoint, job: JobRef
) -> None:
    files = [tiny / f"loras/sd15/{style}.safetensors" for style in ("kohya", "peft")]
    latents = [
        _denoised(settings, job_table, make_plan(sd15, job, num_inference_steps=2, loras=dict.fromkeys(order, 0.5)))
        for order in (files, files[::-1], files[:1])
    ]
    found = [torch.from_numpy(answer.tensors["LATENTS"]) for answer in latents]
    assert_near(found[0], found[1], 1e-4)
    assert (found[0] - found[2]).abs().max() > 1e-2


def test_a_lora_that_cannot_be_used_is_named(
    tmp_path: Path, settings: Settings, job_table: JobTable, sd15: Checkpoint, job: JobRef
) -> None:
    layer = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    broken = {name: tensor * torch.nan for name, tensor in lora_files.pair(layer, 16, 16).items()}
    file = lora_files.write(tmp_path / "lora.safetensors", broken)
    error = _denoised(settings, job_table, make_plan(sd15, job, loras={file: 1.0})).error
    assert isinstance(error, InvalidArgument)
    assert str(error).startswith("loras[0].path: ")


@pytest.mark.parametrize("part", ["unet", "scheduler"])
def test_a_checkpoint_that_cannot_be_used_is_named(
    settings: Settings, job_table: JobTable, sd15: Checkpoint, job: JobRef, part: str
) -> None:
    hostile = {
        "unet": sd15.unet.model_copy(update={"config": sd15.unet.config | {"layers_per_block": 3}}),
        "scheduler": sd15.scheduler | {"beta_schedule": "evil"},
    }
    error = _denoised(settings, job_table, make_plan(sd15.model_copy(update={part: hostile[part]}), job)).error
    assert isinstance(error, InvalidArgument)
    assert str(error).startswith("model_name: ")


def test_a_cancelled_job_leaves_the_denoiser(
    settings: Settings, job_table: JobTable, sd15: Checkpoint, job: JobRef
) -> None:
    stage = DenoiserStage(settings, job_table)
    plan = make_plan(sd15, job, scheduler="DDIM", num_inference_steps=150)
    answer = submit(stage, plan, _denoiser_inputs(plan))
    while job_table.progress(job).step < 2:
        assert not answer.all
        time.sleep(0.01)
    job_table.cancel(job)
    assert isinstance(answer.error, Cancelled)
    ended = job_table.progress(job)
    assert ended.state == State.CANCELLED and 2 <= ended.step < 150 and ended.of == 150
    stage.close()


def test_whatever_is_open_when_the_denoiser_closes_is_answered(
    settings: Settings, job_table: JobTable, sd15: Checkpoint, job: JobRef
) -> None:
    stage = DenoiserStage(settings, job_table)
    plan = make_plan(sd15, job, num_inference_steps=150)
    answers = [submit(stage, plan, _denoiser_inputs(plan)) for _ in range(4)]
    stage.close()
    assert all(isinstance(answer.error, Unavailable) for answer in answers)


def test_no_more_jobs_step_than_there_is_room_for_and_the_urgent_one_is_next(
    settings: Settings, job_table: JobTable, sd15: Checkpoint
) -> None:
    stage = DenoiserStage(settings.model_copy(update={"max_running": 1}), job_table)
    jobs = [job_table.open("", "", 9) for _ in range(3)]
    plans = [make_plan(sd15, job, num_inference_steps=20, priority=p) for job, p in zip(jobs, (2, 2, 1), strict=True)]
    first, *waiting = (submit(stage, plan, _denoiser_inputs(plan)) for plan in plans)
    assert first.tensors
    waiting[1].wait()
    assert job_table.progress(plans[1].job).step < 20, "the urgent one came last and is done first"
    assert all(answer.tensors for answer in waiting)
    stage.close()


def test_a_job_that_failed_leaves_its_place(settings: Settings, job_table: JobTable, sd15: Checkpoint) -> None:
    stage = DenoiserStage(settings.model_copy(update={"max_running": 1}), job_table)
    broken = sd15.model_copy(update={"scheduler": sd15.scheduler | {"beta_schedule": "evil"}})
    for checkpoint in (broken, broken, sd15):
        plan = make_plan(checkpoint, job_table.open("", "", 9), num_inference_steps=2)
        answer = submit(stage, plan, _denoiser_inputs(plan))
        assert bool(answer.tensors) if checkpoint is sd15 else isinstance(answer.error, InvalidArgument)
    stage.close()


@pytest.mark.parametrize("end", ["done", "call", "cancelled"])
def test_the_weights_of_the_last_job_can_be_freed(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, job_table: JobTable, sd15: Checkpoint, job: JobRef, end: str
) -> None:
    """However it ended: neither the stage nor the error's traceback keeps its binding."""
    bindings: list[weakref.ref[Binding]] = []

    def bind(*args: Any) -> Bound:
        bound = bind_component(*args)
        bindings.append(weakref.ref(bound.binding))
        return bound

    def run(engine: TorchEngine, rows: Any) -> Any:
        if end == "call":
            raise RuntimeError("out of memory")
        if end == "cancelled":
            job_table.cancel(plan.job)
        return genuine(engine, rows)

    genuine = TorchEngine.run
    monkeypatch.setattr("runtime.stages.denoiser.stage.bind_component", bind)
    monkeypatch.setattr(TorchEngine, "run", run)
    plan, stage = make_plan(sd15, job, num_inference_steps=2), DenoiserStage(settings, job_table)
    with no_collector():
        answer = submit(stage, plan, _denoiser_inputs(plan))
        answer.wait()
        answer.all.clear()  # an error that was answered has its traceback
        (binding,) = bindings
        assert is_freed(binding)
    stage.close()
