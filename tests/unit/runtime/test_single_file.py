"""Single-file checkpoints: the same networks, with the same weights, as the folders that they were made from."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from safetensors.torch import load_file, save_file

from runtime.checkpoints.checkpoint import Checkpoint, Component
from runtime.checkpoints.checks import CheckpointError
from runtime.checkpoints.read_checkpoint import read_checkpoint, with_unet
from runtime.checkpoints.single_file import read_single_file
from runtime.files.located import Folder, SingleFile
from runtime.networks.architecture import NetworkKind, architecture_of
from runtime.weights.weight_set import WeightSet
from tests.tiny.original import load, original_unet, write_prefixed, write_sidecar
from tests.unit.runtime.engines import make_engine, predict, run, unet_inputs
from tests.unit.runtime.tiny_checkpoints import base_tensors, digest
from tests.unit.runtime.tiny_checkpoints import read_checkpoint as read_tiny

FILES = {"sd15": "sd15", "sd2": "sd2", "sdxl": "sdxl", "sd15-diffusers": "sd15"}
PIPELINES = {"sd15": StableDiffusionPipeline, "sd2": StableDiffusionPipeline, "sdxl": StableDiffusionXLPipeline}
Tensors = dict[str, torch.Tensor]
UNET_ROOT = "model.diffusion_model."


def _read(path: Path, inside: Path | None = None) -> Checkpoint:
    return read_single_file(SingleFile(digest(path), inside))


@pytest.fixture
def folder(tiny: Path, tmp_path: Path) -> Path:
    """The tiny checkpoints, their files linked: to change one, write another in its place."""
    return Path(shutil.copytree(tiny, tmp_path / "allowed", copy_function=os.link))


def _change(path: Path, change: Callable[[Tensors], Tensors]) -> Path:
    tensors = change(load_file(path))
    path.unlink()
    save_file(tensors, path)
    return path


def _sidecar(path: Path, **values: Any) -> None:
    sidecar = path.with_suffix(".config.json")
    content = json.loads(sidecar.read_text()) | values
    sidecar.unlink()
    sidecar.write_text(json.dumps(content))


def _weights(component: Component) -> Tensors:
    return base_tensors(component)


@pytest.mark.parametrize(("name", "source"), FILES.items())
def test_every_architecture_is_that_of_the_folder(tiny: Path, name: str, source: str) -> None:
    """The configurations spell out different parts of it; one engine serves both."""
    one, other = _read(tiny / "single" / f"{name}.safetensors", tiny), read_tiny(tiny / source)
    kinds: dict[str, tuple[NetworkKind, ...]] = {"unet": ("unet",), "vae": ("vae_encoder", "vae_decoder")}
    for mine, theirs in zip(one.components, other.components, strict=True):
        for kind in kinds.get(mine.role, ("text_encoder",)):
            assert architecture_of(kind, mine.config) == architecture_of(kind, theirs.config)


@pytest.mark.parametrize(("name", "source"), FILES.items())
def test_every_parameter_is_that_of_the_folder(tiny: Path, name: str, source: str) -> None:
    one, other = _read(tiny / "single" / f"{name}.safetensors", tiny), read_tiny(tiny / source)
    assert one.kind == other.kind
    assert [part.role for part in one.components] == [part.role for part in other.components]
    for mine, theirs in zip(one.components, other.components, strict=True):
        assert mine.shapes == theirs.shapes
        found, expected = _weights(mine), _weights(theirs)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], expected[key]) for key in expected)
        assert {key: tuple(tensor.shape) for key, tensor in found.items()} == mine.shapes


@pytest.mark.parametrize(("name", "pipeline"), PIPELINES.items())
def test_every_parameter_is_that_of_diffusers(tiny: Path, name: str, pipeline: Any) -> None:
    path = tiny / "single" / f"{name}.safetensors"
    pipe = pipeline.from_single_file(str(path), config=str(tiny / name), local_files_only=True)
    for component in _read(path, tiny).components:
        # transformers 5 has dropped the level `text_model` in one of its two classes.
        theirs, mine = getattr(pipe, component.name).state_dict(), _weights(component)
        expected = {key.removeprefix("text_model."): tensor for key, tensor in theirs.items()}
        found = {key.removeprefix("text_model."): tensor for key, tensor in mine.items()}
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], expected[key]) for key in expected)


@pytest.mark.parametrize(("name", "source"), FILES.items())
def test_every_network_answers_as_the_folders(tiny: Path, name: str, source: str) -> None:
    """What shapes do not tell (heads, norms, activations) is right too."""
    one, other = _read(tiny / "single" / f"{name}.safetensors", tiny), read_tiny(tiny / source)
    width = next(shape[1] for key, shape in other.unet.shapes.items() if key.endswith("attn2.to_k.weight"))
    inputs = unet_inputs(other.kind) | {"text": torch.randn(2, 77, width)}
    ids = torch.randint(300, (1, 77), generator=torch.Generator().manual_seed(0))
    runs: list[tuple[Any, Component, Component, dict[str, Any]]] = [
        ("unet", one.unet, other.unet, inputs),
        ("vae_encoder", one.vae, other.vae, {"pixels": torch.randn(1, 3, 64, 64)}),
        ("vae_decoder", one.vae, other.vae, {"latents": torch.randn(1, 4, 8, 8)}),
        *(("text_encoder", a, b, {"ids": ids}) for a, b in zip(one.text_encoders, other.text_encoders, strict=True)),
    ]
    for kind, mine, theirs, given in runs:
        answers = [run(make_engine(kind, part)[0], WeightSet(part), given) for part in (mine, theirs)]
        assert answers[0].keys() == answers[1].keys()
        torch.testing.assert_close(answers[0], answers[1], rtol=0, atol=0)


@pytest.mark.parametrize(("name", "source"), FILES.items())
def test_all_else_is_that_of_the_folder(tiny: Path, name: str, source: str) -> None:
    one, other = _read(tiny / "single" / f"{name}.safetensors", tiny), read_tiny(tiny / source)
    assert (one.native_size, one.scaling_factor) == (other.native_size, other.scaling_factor)
    assert one.tokenizers == other.tokenizers
    assert {key: one.scheduler[key] for key in other.scheduler} == other.scheduler


def test_a_file_is_the_same_after_its_journey_as_json(tiny: Path) -> None:
    checkpoint = _read(tiny / "single/sdxl.safetensors", tiny)
    again = Checkpoint.model_validate_json(checkpoint.model_dump_json(exclude_unset=True))
    assert again == checkpoint
    assert [part.digest for part in again.components] == [part.digest for part in checkpoint.components]


def test_a_tensor_that_is_there_twice_under_later_names_is_refused(folder: Path) -> None:
    """Neither name is the original code's, so neither takes precedence."""
    old, new = (f"first_stage_model.decoder.mid.attn_1.{name}.weight" for name in ("q", "to_q"))
    path = _change(
        folder / "single/sd15.safetensors",
        lambda all_: (
            {key: tensor for key, tensor in all_.items() if key != old}
            | {new: all_[old], new.replace("to_q", "query"): all_[old].clone()}
        ),
    )
    with pytest.raises(CheckpointError, match=r"to_q\.weight is there twice"):
        _read(path, folder)


def test_two_components_of_a_file_are_two(tiny: Path) -> None:
    parts = _read(tiny / "single/sdxl.safetensors", tiny).components
    assert len({part.digest for part in parts}) == len(parts)


def test_half_precision_is_read_as_well(folder: Path, tiny: Path) -> None:
    path = folder / "single/sd2.safetensors"
    _change(path, lambda all_: {key: t.bfloat16() if t.is_floating_point() else t for key, t in all_.items()})
    expected = _weights(read_tiny(tiny / "sd2").unet)
    found = _weights(_read(path, folder).unet)
    assert all(torch.equal(found[key], expected[key].bfloat16()) for key in expected)


@pytest.mark.parametrize("root", ["cond_stage_model.transformer.text_model.", "cond_stage_model.transformer."])
def test_old_merges_name_clip_without_its_level(folder: Path, tiny: Path, root: str) -> None:
    path = folder / "single/sd15.safetensors"
    _change(
        path, lambda all_: {k.replace("cond_stage_model.transformer.text_model.", root): t for k, t in all_.items()}
    )
    assert _read(path, folder).text_encoders[0].shapes == read_tiny(tiny / "sd15").text_encoders[0].shapes


def test_the_rest_of_clip_is_ignored(folder: Path, tiny: Path) -> None:
    rest = ("text_projection.weight", "vision_model.post_layernorm.bias", "visual_projection.weight", "logit_scale")
    others = {f"cond_stage_model.transformer.{name}": torch.zeros(2) for name in rest}
    path = _change(folder / "single/sd15.safetensors", lambda all_: all_ | others)
    assert _read(path, folder).text_encoders[0].shapes == read_tiny(tiny / "sd15").text_encoders[0].shapes


def test_sdxl_under_the_names_of_diffusers(folder: Path) -> None:
    path, source = folder / "single/prefixed.safetensors", folder / "sdxl"
    write_prefixed(path, source, ("unet", "vae", "text_encoder", "text_encoder_2"))
    write_sidecar(path, source, ("tokenizer", "tokenizer_2"))
    expected = _read(folder / "single/sdxl.safetensors", folder)
    found = _read(path, folder)
    assert [part.shapes for part in found.components] == [part.shapes for part in expected.components]
    assert [part.config for part in found.components] == [part.config for part in expected.components]


@pytest.mark.parametrize(
    ("name", "prefix", "reason"),
    [
        ("sd15", "model.diffusion_model.", "it contains no Stable Diffusion UNet"),
        ("sd15", "model.diffusion_model.out.2", r"its unet is incomplete: conv_out\.weight is missing"),
        ("sd15", "first_stage_model.", "its vae is incomplete"),
        ("sd15", "cond_stage_model.", "its text_encoder is missing"),
        ("sdxl", "conditioner.embedders.0.", "its text_encoder is missing"),
        ("sdxl", "conditioner.embedders.1.", "its text_encoder_2 is missing .an SDXL refiner"),
        ("sd15-diffusers", "vae.", "its vae is incomplete"),
    ],
)
def test_what_is_missing_is_named(folder: Path, name: str, prefix: str, reason: str) -> None:
    path = folder / f"single/{name}.safetensors"
    _change(path, lambda all_: {key: tensor for key, tensor in all_.items() if not key.startswith(prefix)})
    with pytest.raises(CheckpointError, match=reason):
        _read(path, folder)


@pytest.mark.parametrize(
    ("key", "tensor", "reason"),
    [
        ("model.diffusion_model.input_blocks.0.0.weight", torch.zeros(16, 9, 3, 3), "has 9 input channels"),
        ("model.diffusion_model.input_blocks.0.0.weight", torch.zeros(()), "has shape"),
        ("model.diffusion_model.input_blocks.1.0.in_layers.2.weight", torch.zeros(0, 4), "has shape"),
        ("model.diffusion_model.out.2.weight", torch.zeros(4, 4, 1, 1, dtype=torch.int8), "has dtype I8"),
        ("first_stage_model.decoder.conv_in.weight", torch.zeros(32, 16, 3, 3), "expected 4 latent channels, found 16"),
        ("cond_stage_model.transformer.text_model.embeddings.token_embedding.weight", torch.zeros(9), "has shape"),
        ("edm_mean", torch.zeros(4), "trained on the EDM noise schedule"),
        ("edm_vpred.sigma_max", torch.zeros(()), "trained on the EDM noise schedule"),
    ],
)
def test_a_tensor_that_cannot_be_is_refused(folder: Path, key: str, tensor: torch.Tensor, reason: str) -> None:
    path = _change(folder / "single/sd15.safetensors", lambda all_: all_ | {key: tensor})
    with pytest.raises(CheckpointError, match=reason):
        _read(path, folder)


@pytest.mark.parametrize("shape", [(), (7,), (121, 40)])
def test_a_fused_weight_that_has_not_three_parts_is_refused(folder: Path, shape: tuple[int, ...]) -> None:
    key = "cond_stage_model.model.transformer.resblocks.0.attn.in_proj_weight"
    path = _change(folder / "single/sd2.safetensors", lambda all_: all_ | {key: torch.zeros(shape)})
    with pytest.raises(CheckpointError, match="does not divide into 3 equal parts"):
        _read(path, folder)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("cut", [0, 7, 100, 10_000, -1])
def test_a_truncated_file_is_refused(folder: Path, name: str, cut: int) -> None:
    path = folder / f"single/{name}.safetensors"
    content = path.read_bytes()[:cut]
    path.unlink()
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"not a readable \.safetensors file"):
        _read(path, folder)


def _claims(header: str) -> bytes:
    return len(header).to_bytes(8, "little") + header.encode()


def _many(count: int) -> str:
    return json.dumps({str(n): {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for n in range(count)})


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"PK\x03\x04" + bytes(100), "it is a zip archive"),
        (b"\x80\x02}q\x00." + bytes(100), "it is a pickle"),
        ((1 << 62).to_bytes(8, "little") + b"{}", "claims more than"),
        ((33 << 20).to_bytes(8, "little") + b"{}", "claims more than"),
        (_claims('{"a": {"dtype": "F32", "shape": [2684354560], "data_offsets": [0, 10737418240]}}'), "not a readable"),
        (_claims('{"a": {"dtype": "F32", "shape": [99999999999, 99999999999], "data_offsets": [0, 4]}}'), "not a read"),
        (_claims('{"a": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}}') + bytes(4), "not a readable"),
        (_claims("[]"), "not a readable"),
        (_claims(_many(1 << 17)), "holds more than 16384 tensors"),
        (_claims("{}"), "no Stable Diffusion UNet"),
    ],
)
def test_a_hostile_file_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=reason):
        _read(path, tmp_path)


def test_without_a_sidecar_a_strange_vocabulary_is_refused(tiny: Path) -> None:
    with pytest.raises(CheckpointError, match=r"text_encoder has \d+ tokens; expected the 49408 of CLIP"):
        _read(tiny / "single/sd15.safetensors")


def test_a_sidecar_beside_a_downloaded_file_is_not_read(folder: Path) -> None:
    (folder / "single/sd15.config.json").unlink()
    (folder / "single/sd15.config.json").write_text("[]")
    with pytest.raises(CheckpointError, match="expected the 49408 of CLIP"):
        _read(folder / "single/sd15.safetensors", None)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"tokenizer": "../../secret"}, "is outside the folder"),
        ({"tokenizer": "/etc"}, "is outside the folder"),
        ({"tokenizer": "missing"}, "its file missing/vocab.json is missing"),
        ({"tokenizer": 5}, "tokenizer is an unknown field"),
        ({"unet": 5}, "unet is an unknown field"),
        ({"safety_checker": {}}, "safety_checker is an unknown field"),
        ({"unet": {"norm_num_groups": 10**9}}, "norm_num_groups"),
        ({"vae": {"scaling_factor": -1}}, "scaling_factor"),
        ({"unet": {"sample_size": "large"}}, "sample_size"),
    ],
)
def test_a_hostile_sidecar_is_refused(folder: Path, values: dict[str, Any], reason: str) -> None:
    path = folder / "single/sd15.safetensors"
    _sidecar(path, **values)
    with pytest.raises(CheckpointError, match=reason):
        _read(path, folder)


def _prediction(path: Path, folder: Path) -> str:
    _sidecar(path, scheduler={})
    found: str = _read(path, folder).scheduler["prediction_type"]
    return found


@pytest.mark.parametrize(("name", "mark", "expected"), [("sdxl", "v_pred", "v_prediction"), ("sdxl", "x", "epsilon")])
def test_a_mark_says_what_is_predicted(folder: Path, name: str, mark: str, expected: str) -> None:
    path = _change(folder / f"single/{name}.safetensors", lambda all_: all_ | {mark: torch.zeros(0)})
    assert _prediction(path, folder) == expected


def test_a_mark_asks_for_zero_terminal_snr(folder: Path) -> None:
    path = _change(folder / "single/sdxl.safetensors", lambda all_: all_ | {"ztsnr": torch.zeros(0)})
    assert _read(path, folder).scheduler["rescale_betas_zero_snr"] is True


@pytest.mark.parametrize(("spread", "expected"), [(0.3, "v_prediction"), (0.01, "epsilon")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_sd2_shows_what_it_predicts(folder: Path, spread: float, expected: str, dtype: torch.dtype) -> None:
    key = f"{UNET_ROOT}output_blocks.11.1.transformer_blocks.0.norm1.bias"
    told = {key: torch.linspace(-spread, spread, 16).to(dtype)}
    assert _prediction(_change(folder / "single/sd2.safetensors", lambda all_: all_ | told), folder) == expected


@pytest.mark.parametrize("size", [0, 1 << 17])
def test_a_telltale_of_no_bias_size_tells_nothing(folder: Path, size: int) -> None:
    key = f"{UNET_ROOT}output_blocks.11.1.transformer_blocks.0.norm1.bias"
    odd = {key: torch.linspace(-1, 1, size)}
    assert _prediction(_change(folder / "single/sd2.safetensors", lambda all_: all_ | odd), folder) == "epsilon"


def _unet_file(tiny: Path, path: Path, form: str) -> Path:
    """The UNet distilled with guidance, alone in a file."""
    if form == "original":
        save_file(original_unet(load(tiny / "lcm", "unet")), path)
    elif form == "rooted":
        save_file(
            {UNET_ROOT + name: tensor for name, tensor in original_unet(load(tiny / "lcm", "unet")).items()}, path
        )
    else:
        shutil.copyfile(tiny / "lcm/unet/diffusion_pytorch_model.safetensors", path)
    return path


@pytest.fixture
def lcm(tiny: Path, sd15: Checkpoint) -> Component:
    return with_unet(sd15, Folder(tiny / "lcm", tiny), digest).unet


@pytest.mark.parametrize("form", ["original", "rooted", "diffusers"])
def test_a_unet_alone_is_the_one_of_its_folder(
    tiny: Path, sd15: Checkpoint, lcm: Component, tmp_path: Path, form: str
) -> None:
    """Without a sidecar: what shapes do not tell is as in the UNet that it replaces."""
    file = SingleFile(digest(_unet_file(tiny, tmp_path / "unet.safetensors", form)))
    checkpoint = with_unet(sd15, file, digest)
    found, expected = _weights(checkpoint.unet), _weights(lcm)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    inputs = unet_inputs("sd") | {"timestep_cond": torch.randn(2, 12)}
    one, other = (predict(make_engine("unet", part)[0], WeightSet(part), inputs) for part in (checkpoint.unet, lcm))
    assert torch.equal(one, other)


def test_the_mark_of_a_unet_alone_counts(tiny: Path, sd15: Checkpoint, tmp_path: Path) -> None:
    path = _unet_file(tiny, tmp_path / "unet.safetensors", "diffusers")
    assert with_unet(sd15, SingleFile(digest(path)), digest).scheduler == sd15.scheduler
    _change(path, lambda all_: all_ | {"v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)})
    expected = sd15.scheduler | {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
    assert with_unet(sd15, SingleFile(digest(path)), digest).scheduler == expected


def test_a_unet_may_be_a_folder_of_its_own_or_of_a_checkpoint(tiny: Path, sd15: Checkpoint, lcm: Component) -> None:
    assert with_unet(sd15, Folder(tiny / "lcm/unet", tiny), digest).unet == lcm
    assert with_unet(sd15, Folder(tiny / "sd15", tiny), digest) == sd15


def test_a_whole_checkpoint_lends_its_unet(tiny: Path, sd15: Checkpoint) -> None:
    found = with_unet(sd15, SingleFile(digest(tiny / "single/sd15.safetensors")), digest)
    assert found.unet.shapes == sd15.unet.shapes
    assert found.vae == sd15.vae


def test_a_plain_unet_replaces_a_distilled_one(tiny: Path, sd15: Checkpoint, lcm: Component) -> None:
    distilled = sd15.model_copy(update={"unet": lcm})
    found = with_unet(distilled, SingleFile(digest(tiny / "single/sd15.safetensors")), digest)
    assert "time_cond_proj_dim" not in found.unet.config


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("single/sdxl.safetensors", "the UNet is of SDXL, the checkpoint is not"),
        ("sdxl", "the UNet is of SDXL, the checkpoint is not"),
        ("single/sd2.safetensors", r"sum 40 \(its cross_attention_dim\), found \[32\]"),
        ("sd15/vae", "config.json names another class: expected UNet2DConditionModel"),
        ("sd15/vae/diffusion_pytorch_model.safetensors", "no Stable Diffusion UNet"),
        ("loras/sd15/peft.safetensors", "no Stable Diffusion UNet"),
        ("loras", "its file config.json is missing"),
    ],
)
def test_another_unet_is_refused(tiny: Path, sd15: Checkpoint, source: str, reason: str) -> None:
    path = tiny / source
    given = SingleFile(digest(path), tiny) if path.is_file() else Folder(path, tiny)
    with pytest.raises(CheckpointError, match=reason):
        with_unet(sd15, given, digest)


def test_a_unet_alone_is_no_checkpoint(tiny: Path, tmp_path: Path) -> None:
    for form in ("original", "diffusers"):
        file = SingleFile(digest(_unet_file(tiny, tmp_path / f"{form}.safetensors", form)))
        with pytest.raises(CheckpointError, match="give it as unet_name"):
            read_checkpoint(file, digest)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("model.diffusion_model.double_blocks.0.img_attn.qkv.weight", "Flux"),
        ("double_blocks.0.img_attn.qkv.weight", "Flux"),
        ("model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight", "Stable Diffusion 3"),
        ("control_model.input_blocks.0.0.weight", "a ControlNet"),
        ("lora_unet_mid_block_attentions_0_proj_in.lora_up.weight", "a LoRA: give it in loras"),
        ("unet.mid_block.attentions.0.proj_in.lora_A.weight", "a LoRA: give it in loras"),
        ("first_stage_model.decoder.conv_in.weight", "a VAE alone"),
        ("text_model.embeddings.token_embedding.weight", "a text encoder alone"),
    ],
)
def test_a_file_of_something_else_is_refused_by_its_name(tmp_path: Path, name: str, what: str) -> None:
    path = tmp_path / "a.safetensors"
    save_file({name: torch.zeros(4, 4)}, path)
    with pytest.raises(CheckpointError, match=f"^it contains no Stable Diffusion UNet: it is {what}$"):
        _read(path)


@pytest.mark.parametrize(
    ("name", "root", "reason"),
    [
        ("sd15", "model.diffusion_model.", r"text_encoder is missing \(give a UNet alone as unet_name\)"),
        ("sdxl", "model.diffusion_model.", r"text_encoder is missing \(give a UNet alone as unet_name\)"),
        (
            "sdxl",
            ("model.diffusion_model.", "conditioner.embedders.0."),
            r"text_encoder_2 is missing \(an SDXL refiner is not",
        ),
    ],
)
def test_a_checkpoint_of_some_parts_is_refused(folder: Path, name: str, root: Any, reason: str) -> None:
    path = _change(
        folder / f"single/{name}.safetensors",
        lambda all_: {key: tensor for key, tensor in all_.items() if key.startswith(root)},
    )
    with pytest.raises(CheckpointError, match=reason):
        _read(path, folder)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("sd15", "first_stage_model.loss.logvar"),
        ("sd15", "first_stage_model.model_ema.decay"),
        ("sd2", "cond_stage_model.model.transformer.text_model.embeddings.position_ids"),
        ("sdxl", "conditioner.embedders.1.model.transformer.text_model.embeddings.position_ids"),
    ],
)
def test_what_training_and_merging_left_is_ignored(folder: Path, name: str, key: str) -> None:
    before = _read(folder / f"single/{name}.safetensors", folder)
    path = _change(folder / f"single/{name}.safetensors", lambda all_: all_ | {key: torch.zeros(1, dtype=torch.int64)})
    found = _read(path, folder)
    assert [part.shapes for part in found.components] == [part.shapes for part in before.components]
