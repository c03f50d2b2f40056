"""What every request has: prompts, pictures, seeds, guidance, LoRAs. `parity` says what is compared."""

from __future__ import annotations

import pytest

from tests.server.parity import TEXT_TO_IMAGE, Answers, Change, Report, Row, check, fields, loras, picture, rows

TABLE: dict[str, tuple[Change, ...]] = {
    "prompt": (fields(prompt="a green house"),),
    "negative_prompt": (fields(negative_prompt="a green house"),),
    "image": (fields(image=picture(1)),),
    "text_to_image": (TEXT_TO_IMAGE,),
    "noise_strength_1": (fields(noise_strength=1.0),),
    "noise_strength_low": (fields(noise_strength=0.1),),
    "seed": (fields(seed=8),),
    "num_inference_steps": (fields(num_inference_steps=9),),
    "guidance_off": (fields(guidance_scale=1.0),),
    "guidance_scale": (fields(guidance_scale=12.0),),
    "own_scheduler": (fields(scheduler="DPM++ 2M Karras"), fields(scheduler=None)),
    "num_images_2": (fields(num_images=2),),
    "clip_skip_1": (fields(clip_skip=1),),
    "clip_skip_2": (fields(clip_skip=1), fields(clip_skip=2)),
    "peft": (loras("peft"),),
    "kohya": (loras("kohya"),),
    "two_loras_negative": (loras("kohya", "peft", scale=-0.7),),
    "two_loras_guidance_off": (fields(guidance_scale=0.0), loras("peft", "kohya")),
    "two_loras_num_images_2": (fields(num_images=2), loras("peft", "kohya")),
    "two_loras_clip_skip": (fields(clip_skip=1), loras("peft", "kohya")),
    "text_to_image_num_images_2": (TEXT_TO_IMAGE, fields(num_images=2)),
    "text_to_image_own_scheduler": (TEXT_TO_IMAGE, fields(scheduler="DPM++ 2M Karras"), fields(scheduler=None)),
}


# Each kind of checkpoint has another scheduler of its own.
@pytest.mark.parametrize("row", rows(TABLE, on_all=["own_scheduler"]))
def test_latents_equal_those_of_diffusers(answers: Answers, row: Row, record_property: Report) -> None:
    check(answers, row, record_property)
