"""Layouts of files that public reports show, beside those that the tests of each kind have.

Each is read as the same weights in a usual layout, or refused by its name. `tests/FILE_LAYOUTS.md` has the sources.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save, save_file

from runtime.checkpoints.checkpoint import Checkpoint, Component
from runtime.checkpoints.checks import CheckpointError
from runtime.checkpoints.cross_attention import cross_attentions
from runtime.checkpoints.read_controlnet import read_controlnet
from runtime.checkpoints.read_ic_light import read_ic_light
from runtime.checkpoints.read_image_encoder import read_image_encoder
from runtime.checkpoints.read_ip_adapter import check_fits, read_ip_adapter
from runtime.checkpoints.read_safety_checker import read_safety_checker
from runtime.checkpoints.unread_tensors import warn_of_unread_tensors
from runtime.files.located import SingleFile
from runtime.files.resolve import FileResolver, ResolveContext
from runtime.files.safetensors_file import SafetensorsFile
from runtime.files.store import Store
from runtime.lora.lora_error import LoraError
from runtime.lora.lora_file import LoraContents, read_lora
from runtime.lora.unmatched import UnmatchedKind
from runtime.networks.architecture import NetworkKind, architecture_of
from runtime.networks.build import build, parameters
from runtime.prompts.embedding_file import EmbeddingError, read_embedding
from runtime.stage_errors import InvalidArgument
from tests.tiny.controlnets import write_controlnet
from tests.tiny.original import original_unet
from tests.tiny.safety_checker import write_safety_checker
from tests.tiny.unets import SDXL
from tests.unit.runtime import layout_files as files
from tests.unit.runtime import lora_files
from tests.unit.runtime.layout_files import Tensors
from tests.unit.runtime.single_files import read_single
from tests.unit.runtime.tiny_checkpoints import base_tensors, digest
from tests.unit.runtime.torch_files import DeviceTensor, saved

LOG = Path(__file__).parents[2] / "FILE_LAYOUTS.md"


@dataclass(frozen=True)
class Reader:
    """Reads files as the stage `prepare` does. Each is written to `folder`, which requests may name."""

    tiny: Path
    folder: Path
    sources: FileResolver
    context: ResolveContext
    sd15: Checkpoint
    sd2: Checkpoint
    sdxl: Checkpoint

    def write(self, name: str, content: object, pickled: bool = False) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if pickled:
            torch.save(content, path)
        else:
            assert isinstance(content, dict)
            save_file({key: tensor.contiguous() for key, tensor in content.items()}, path)
        return path

    def controlnet(self, path: Path, checkpoint: Checkpoint, variant: str | None = None) -> Component:
        field = "controlnets[0].path"
        source = self.sources.controlnet(field, str(path), self.context, variant)
        hash_file = partial(self.sources.file_of, field, context=self.context)
        return read_controlnet(source, checkpoint.unet, hash_file, variant)

    def usual_controlnet(self, name: str, checkpoint: Checkpoint) -> Component:
        path = self.tiny / "controlnets" / f"{name}.safetensors"
        return read_controlnet(SingleFile(digest(path)), checkpoint.unet, digest)

    def adapter(self, path: Path, checkpoint: Checkpoint) -> Component:
        found = read_ip_adapter(self.sources.file_of("ip_adapter[0].path", path, self.context))
        check_fits(found, cross_attentions(checkpoint.unet), checkpoint.unet.config["cross_attention_dim"])
        return found

    def encoder(self, path: Path, config: dict[str, Any] | None) -> Component:
        return read_image_encoder(self.sources.file_of("image_encoder_path", path, self.context), config)

    def ic_light(self, path: Path, checkpoint: Checkpoint) -> Tensors:
        """Parameter's name -> its offset."""
        stored = self.sources.lora("ic_light_model_url", str(path), self.context)
        found = read_ic_light(stored, checkpoint.unet).parameters
        file = SafetensorsFile(stored.path, stored.fingerprint, list(found.values()))
        return {name: file.read(key) for name, key in found.items()}

    def embedding(self, data: bytes, checkpoint: Checkpoint) -> list[torch.Tensor]:
        """The vectors for each text encoder."""
        context = ResolveContext([data], self.context.pins, lambda: None)
        stored = self.sources.embedding("embeddings[0].path", "tensor:0", context)
        names = read_embedding(stored.path, checkpoint.text_encoders).names
        file = SafetensorsFile(stored.path, stored.fingerprint, list(names))
        return [file.read(name) for name in names]

    def lora(self, *layouts: Tensors) -> LoraContents:
        """A file with one layer of a LoRA and these tensors."""
        tensors = {name: tensor for layout in (lora_files.linear(), *layouts) for name, tensor in layout.items()}
        return read_lora(self.write("lora.safetensors", tensors), self.sd15.adaptable)

    @property
    def encoder_config(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self._encoder_folder / "config.json").read_text())
        return found

    @property
    def encoder_tensors(self) -> Tensors:
        return load_file(self._encoder_folder / "model.safetensors")

    @property
    def _encoder_folder(self) -> Path:
        return self.tiny / "ip_adapters" / "sd15" / "image_encoder"

    def adapter_tensors(self, kind: str) -> Tensors:
        return load_file(self.tiny / "ip_adapters" / "sd15" / f"{kind}.safetensors")


@pytest.fixture
def reader(
    tiny: Path,
    allowed: Path,
    sources: FileResolver,
    store: Store,
    sd15: Checkpoint,
    sd2: Checkpoint,
    sdxl: Checkpoint,
) -> Reader:
    return Reader(tiny, allowed, sources, ResolveContext([], store.pins(), lambda: None), sd15, sd2, sdxl)


@dataclass(frozen=True)
class Loaded:
    """A network that was read, and what it must be: its weights by canonical name, and its configuration.

    `warning` is about tensors of the file without a use.
    """

    network: Component
    tensors: Mapping[str, torch.Tensor]
    config: dict[str, Any]
    warning: str = ""


def _as(found: Component, usual: Component, half: bool = False) -> Loaded:
    tensors = base_tensors(usual)
    return Loaded(found, files.halves(tensors) if half else tensors, usual.config)


def _without_prefix(reader: Reader) -> Loaded:
    tensors = files.without_prefix(files.load_controlnet(reader.tiny, "sd2_original"), "control_model.")
    path = reader.write("openpose-sd21-safe.safetensors", tensors)
    return _as(reader.controlnet(path, reader.sd2), reader.usual_controlnet("sd2_original", reader.sd2))


def _half_without_prefix(reader: Reader) -> Loaded:
    tensors = files.without_prefix(files.load_controlnet(reader.tiny, "sd15_original"), "control_model.")
    path = reader.write("control_canny-fp16.safetensors", files.halves(tensors))
    usual = reader.usual_controlnet("sd15_original", reader.sd15)
    return _as(reader.controlnet(path, reader.sd15), usual, half=True)


def _lightning(reader: Reader) -> Loaded:
    controlnet = files.load_controlnet(reader.tiny, "sd15_original")
    content = files.lightning_checkpoint(controlnet, load_file(reader.tiny / "single" / "sd15.safetensors"))
    path = reader.write("epoch=76-step=38576.ckpt", content, pickled=True)
    return _as(reader.controlnet(path, reader.sd15), reader.usual_controlnet("sd15_original", reader.sd15))


def _twice_nested(reader: Reader) -> Loaded:
    state = {"state_dict": {"state_dict": files.load_controlnet(reader.tiny, "sd2_original")}}
    path = reader.write("canny-sd21.ckpt", state, pickled=True)
    return _as(reader.controlnet(path, reader.sd2), reader.usual_controlnet("sd2_original", reader.sd2))


def _wrapped(reader: Reader) -> Loaded:
    tensors = {f"controlnet.module.{name}": t for name, t in files.load_controlnet(reader.tiny, "sd15_file").items()}
    path = reader.write("iter_10000.pth", {"state_dict": tensors}, pickled=True)
    return _as(reader.controlnet(path, reader.sd15), reader.usual_controlnet("sd15_file", reader.sd15))


def _folder(reader: Reader, name: str, pickled: bool) -> Path:
    path = reader.write(f"network/{name}", files.load_controlnet(reader.tiny, "sd15_file"), pickled)
    shutil.copy(reader.tiny / "controlnets" / "sd15" / "config.json", path.parent)
    return path.parent


def _pickled_folder(reader: Reader) -> Loaded:
    folder = _folder(reader, "diffusion_pytorch_model.bin", pickled=True)
    return _as(reader.controlnet(folder, reader.sd15), reader.usual_controlnet("sd15_file", reader.sd15))


def _variant_folder(reader: Reader) -> Loaded:
    folder = _folder(reader, "diffusion_pytorch_model.fp16.safetensors", pickled=False)
    return _as(reader.controlnet(folder, reader.sd15, "fp16"), reader.usual_controlnet("sd15_file", reader.sd15))


def _small(reader: Reader) -> Loaded:
    """Without any attention."""
    down = ["DownBlock2D"] * len(SDXL["down_block_types"])
    small = {"down_block_types": down, "mid_block_type": "UNetMidBlock2D", "transformer_layers_per_block": 1}
    write_controlnet(reader.folder / "small", 130, SDXL | small)
    usual = reader.controlnet(reader.folder / "small", reader.sdxl)
    alone = shutil.copy(
        reader.folder / "small" / "diffusion_pytorch_model.safetensors", reader.folder / "small.safetensors"
    )
    return _as(reader.controlnet(Path(alone), reader.sdxl), usual)


def _adapter(reader: Reader, kind: str, name: str, content: object) -> Loaded:
    usual = reader.adapter(reader.tiny / "ip_adapters" / "sd15" / f"{kind}.safetensors", reader.sd15)
    return _as(reader.adapter(reader.write(name, content, name.endswith(".bin")), reader.sd15), usual)


def _training_run(reader: Reader, name: str, kind: str = "base", repeated: int = 32) -> Loaded:
    """`repeated`: tensors that the file has twice. The LoRA of a FaceID is compared in test_adapter_lora.py."""
    with_modules = name.endswith(".bin")
    tensors = files.training_run(reader.adapter_tensors(kind), reader.tiny / "sd15", with_modules)
    loaded = _adapter(reader, kind, name, tensors)
    return replace(loaded, warning=f"ignored {repeated} tensors, which repeat others") if with_modules else loaded


def _named_by_unet(reader: Reader, kind: str = "plus") -> Loaded:
    tensors, unet = reader.adapter_tensors(kind), UNet2DConditionModel.from_pretrained(reader.tiny / "sd15" / "unet")
    content = files.nested(tensors) | {"ip_adapter": files.named_by_unet(tensors, unet)}
    return _adapter(reader, kind, "ip_adapter.bin", content)


def _encoder(reader: Reader, name: str, tensors: Tensors, **config: Any) -> Loaded:
    usual = reader.encoder_config
    path = reader.write(name, tensors, name.endswith(".bin"))
    return Loaded(reader.encoder(path, usual | config), reader.encoder_tensors, usual)


def _encoder_with_positions(reader: Reader) -> Loaded:
    positions = {"vision_model.embeddings.position_ids": torch.arange(17)[None]}
    return _encoder(reader, "pytorch_model.bin", reader.encoder_tensors | positions)


def _whole_clip(reader: Reader) -> Loaded:
    others = {
        "logit_scale": torch.tensor(4.6),
        "vision_model.embeddings.position_ids": torch.arange(17)[None],
        "text_model.embeddings.position_ids": torch.arange(77)[None],
    }
    tensors = reader.encoder_tensors | files.clip_text_model() | others
    config = {"architectures": ["CLIPModel"], "vision_config": reader.encoder_config, "projection_dim": 24}
    return _encoder(reader, "model.safetensors", tensors, **config)


def _of_336_pixels(reader: Reader) -> Loaded:
    """The published width, patch and size of ViT-L/14-336; fewer and thinner layers."""
    config = {
        **{"hidden_size": 1024, "num_attention_heads": 16, "hidden_act": "quick_gelu"},
        **{"patch_size": 14, "image_size": 336, "num_channels": 3},
        **{"num_hidden_layers": 2, "intermediate_size": 8, "projection_dim": 8},
    }
    network = build(architecture_of("image_encoder", config))
    tensors = {name: torch.zeros(shape, dtype=torch.float16) for name, (_, _, shape) in parameters(network).items()}
    path = reader.write("clip-vit-large-patch14-336.safetensors", tensors)
    return Loaded(reader.encoder(path, None), tensors, config)


def _safety_checker(reader: Reader) -> Loaded:
    write_safety_checker(reader.folder / "usual", 0.3)
    usual = reader.folder / "usual" / "model.safetensors"
    config = json.loads((reader.folder / "usual" / "config.json").read_text())
    nested = {
        f"vision_model.{name}" if name.startswith("vision_model.") else name: tensor
        for name, tensor in load_file(usual).items()
    }
    positions = {"vision_model.vision_model.embeddings.position_ids": torch.arange(17)[None]}
    path = reader.write("pytorch_model.bin", nested | positions, pickled=True)
    stored = reader.sources.file_of("enable_safety_checker", path, reader.context)
    return _as(read_safety_checker(stored, config), read_safety_checker(digest(usual), config))


NETWORKS: dict[str, Callable[[Reader], Loaded]] = {
    "controlnet-without-prefix": _without_prefix,
    "controlnet-without-prefix-fp16": _half_without_prefix,
    "controlnet-lightning-checkpoint": _lightning,
    "controlnet-state-dict-in-state-dict": _twice_nested,
    "controlnet-of-a-wrapper": _wrapped,
    "controlnet-folder-with-bin": _pickled_folder,
    "controlnet-folder-with-fp16": _variant_folder,
    "controlnet-sdxl-small": _small,
    "ip-adapter-training-run-safetensors": lambda reader: _training_run(reader, "model.safetensors"),
    "ip-adapter-training-run-bin": lambda reader: _training_run(reader, "pytorch_model.bin"),
    "ip-adapter-named-by-unet": _named_by_unet,
    "faceid-training-run-safetensors": lambda reader: _training_run(reader, "model.safetensors", "faceid"),
    "faceid-training-run-bin": lambda reader: _training_run(reader, "pytorch_model.bin", "faceid", 32 + 256),
    "faceid-named-by-unet": lambda reader: _named_by_unet(reader, "faceid"),
    "image-encoder-position-ids": _encoder_with_positions,
    "image-encoder-whole-clip": _whole_clip,
    "image-encoder-open-clip": lambda reader: _encoder(
        reader, "open_clip_pytorch_model.bin", files.open_clip_model(reader.encoder_tensors)
    ),
    "image-encoder-open-clip-vision": lambda reader: _encoder(
        reader, "clip_vision_g.safetensors", files.open_clip_vision(reader.encoder_tensors)
    ),
    "image-encoder-336-pixels": _of_336_pixels,
    "safety-checker-bin": _safety_checker,
}


@pytest.mark.parametrize("layout", NETWORKS)
def test_a_network_is_that_of_a_usual_file(reader: Reader, layout: str) -> None:
    """Its weights and architecture are equal."""
    loaded = NETWORKS[layout](reader)
    found = loaded.network
    kind: NetworkKind = found.role  # type: ignore[assignment]
    architecture = architecture_of(kind, found.config)
    assert architecture == architecture_of(kind, loaded.config)
    places = parameters(build(architecture))
    assert {name: tuple(shape) for name, (_, _, shape) in places.items()} == dict(found.shapes)
    tensors = base_tensors(found)
    assert tensors.keys() == loaded.tensors.keys()
    assert [name for name, tensor in loaded.tensors.items() if not torch.equal(tensors[name], tensor)] == []
    warnings = warn_of_unread_tensors([found])
    assert len(warnings) == bool(loaded.warning) and all(loaded.warning in warning for warning in warnings)


def _ic_light(reader: Reader) -> tuple[Tensors, Tensors]:
    offsets = files.halves(load_file(reader.tiny / "ic_light" / "fbc.safetensors"))
    named = {f"diffusion_model.{name}": tensor for name, tensor in original_unet(offsets).items()}
    return reader.ic_light(reader.write("iclight_sd15_fbc_unet_ldm.safetensors", named), reader.sd15), offsets


VECTORS = torch.randn(3, 32)


def _parameter_dict(reader: Reader) -> tuple[Tensors, Tensors]:
    """What the program of textual inversion's authors saves."""
    content = {
        "string_to_token": {"*": torch.tensor(265)},
        "string_to_param": torch.nn.ParameterDict({"*": torch.nn.Parameter(VECTORS)}),
    }
    return {"*": reader.embedding(saved(content), reader.sd15)[0]}, {"*": VECTORS}


def _safetensors_as_bin(reader: Reader) -> tuple[Tensors, Tensors]:
    path = reader.folder / "learned_embeds.bin"
    path.write_bytes(save({"<cat-toy>": VECTORS}))
    stored = reader.sources.embedding("embeddings[0].path", str(path), reader.context)
    names = read_embedding(stored.path, reader.sd15.text_encoders).names
    return {"": SafetensorsFile(stored.path, stored.fingerprint, list(names)).read(names[0])}, {"": VECTORS}


def _bundled(reader: Reader, name: str, key: str) -> tuple[Tensors, Tensors]:
    full = f"bundle_emb.{name}.{key}"
    path = reader.folder / "lora.safetensors"
    found = reader.lora({full: VECTORS}).embeddings
    return {token: load_file(path)[vectors.names[0]] for token, vectors in found.items()}, {name: VECTORS}


TENSORS: dict[str, Callable[[Reader], tuple[Tensors, Tensors]]] = {
    "ic-light-ldm-fp16": _ic_light,
    "embedding-parameter-dict": _parameter_dict,
    "embedding-safetensors-as-bin": _safetensors_as_bin,
    "embedding-bundled-of-diffusers": lambda reader: _bundled(reader, "tok", "<tok>"),
    "embedding-bundled-of-onetrainer": lambda reader: _bundled(reader, "tok", "emp_params"),
}


@pytest.mark.parametrize("layout", TENSORS)
def test_offsets_and_vectors_are_those_of_the_file(reader: Reader, layout: str) -> None:
    found, expected = TENSORS[layout](reader)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


ONE = torch.zeros(4, 4)
PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(64)


def _controlnet(*names: str) -> Callable[[Reader], object]:
    return lambda reader: reader.controlnet(
        reader.write("a.safetensors", {name: ONE.clone() for name in names}), reader.sd15
    )


def _ip_adapter(content: Mapping[str, object]) -> Callable[[Reader], object]:
    return lambda reader: reader.adapter(reader.write("ip-adapter.bin", content, pickled=True), reader.sd15)


def _embedding(make: Callable[[], bytes]) -> Callable[[Reader], object]:
    return lambda reader: reader.embedding(make(), reader.sd15)


def _differences(reader: Reader) -> object:
    tensors = files.load_controlnet(reader.tiny, "sd15_original") | {"difference": torch.tensor(1.0)}
    return reader.controlnet(reader.write("diff_control_sd15_canny_fp16.safetensors", tensors), reader.sd15)


def _fp16_without_variant(reader: Reader) -> object:
    return reader.controlnet(_folder(reader, "diffusion_pytorch_model.fp16.safetensors", pickled=False), reader.sd15)


def _kolors(reader: Reader) -> object:
    return reader.adapter(
        reader.write("ip_adapter_plus_general.safetensors", files.plus_of_width(2048, 2048)), reader.sdxl
    )


def _without_projection(reader: Reader) -> object:
    """As transformers 5 saves a CLIPVisionModel."""
    tensors = files.without_prefix(reader.encoder_tensors, "vision_model.")
    del tensors["visual_projection.weight"]
    return reader.encoder(reader.write("model.safetensors", tensors), reader.encoder_config)


def _ic_light_on_sdxl(reader: Reader) -> object:
    path = reader.write("fc.safetensors", load_file(reader.tiny / "ic_light" / "fc.safetensors"))
    return reader.ic_light(path, reader.sdxl)


# An IP-Adapter of SD 3.5 and one of Flux: each block of the transformer has keys.
_SD3_KEYS = {f"{number}.to_{part}_ip.weight": ONE for number in range(4) for part in "kv"}
REFUSED: dict[str, tuple[Callable[[Reader], object], str]] = {
    "controlnet-difference": (_differences, "a difference ControlNet .* expected full weights"),
    "controlnet-fp16-without-variant": (_fp16_without_variant, "set variant to 'fp16'"),
    "t2i-adapter-authors": (_controlnet("conv_in.weight", "body.0.block1.weight"), "it is a T2I-Adapter"),
    "t2i-adapter-light": (_controlnet("body.0.in_conv.weight", "body.0.body.0.block1.weight"), "it is a T2I-Adapter"),
    "t2i-adapter-style": (
        _controlnet("style_embedding", "proj", "ln_post.weight", "transformer_layes.0.attn.in_proj_weight"),
        "a style adapter of T2I-Adapter",
    ),
    "controlnext": (
        _controlnet("embedding.0.weight", "down_res.0.norm1.weight", "mid_convs.0.0.weight"),
        "ControlNeXt",
    ),
    "brushnet": (_controlnet("conv_in_condition.weight", "brushnet_down_blocks.0.weight"), "it is a BrushNet"),
    "controlnet-flux-diffusers": (
        _controlnet("controlnet_x_embedder.weight", "transformer_blocks.0.attn.add_k_proj.weight"),
        "made for Flux",
    ),
    "ip-adapter-sd3": (
        _ip_adapter({"image_proj": {"latents": ONE, "proj_in.weight": ONE}, "ip_adapter": _SD3_KEYS}),
        "made for Flux or Stable Diffusion 3",
    ),
    "ip-adapter-flux": (
        _ip_adapter({"image_proj": {"proj.0.weight": ONE, "norm.weight": ONE}, "ip_adapter": _SD3_KEYS}),
        "made for Flux or Stable Diffusion 3",
    ),
    "ip-adapter-plus-kolors": (_kolors, "made for Kolors"),
    "image-encoder-without-projection": (_without_projection, "expected a CLIPVisionModelWithProjection"),
    "ic-light-on-sdxl": (_ic_light_on_sdxl, "IC-Light is made for SD 1.5"),
    "embedding-in-a-picture": (_embedding(lambda: PICTURE), "it is a PNG picture"),
    "embedding-text-encoder": (
        _embedding(lambda: save({f"text_model.{name}": ONE.clone() for name in "abc"})),
        "not a textual inversion embedding: expected one tensor, found 3: text_model.a",
    ),
    "embedding-of-an-apple-gpu": (
        _embedding(lambda: saved({"string_to_param": {"*": DeviceTensor("_rebuild_device_tensor_from_numpy")}})),
        "saved on an Apple GPU.* load it and save it again on the CPU",
    ),
    "checkpoint-with-only-ema": (
        lambda reader: read_single(reader.write("sd-ema.safetensors", files.only_average())),
        "it is a checkpoint with only a moving average of the UNet",
    ),
    "embedding-output": (
        _embedding(lambda: save({"emp_params": ONE, "emp_params_out": ONE.clone()})),
        "an output embedding of OneTrainer, which is added after the text encoder: not supported",
    ),
    "embedding-legacy-pickle": (
        _embedding(lambda: saved({"string_to_param": {"*": VECTORS}}, _use_new_zipfile_serialization=False)),
        "expected the zip format of torch 1.6 or later: save the file again",
    ),
}


def _keys(
    *suffixes: str, stem: str = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"
) -> Tensors:
    return {f"{stem}{suffix}": torch.zeros(2, 2) for suffix in suffixes}


def _lora(tensors: Tensors) -> Callable[[Reader], object]:
    return lambda reader: read_lora(reader.write("alone.safetensors", tensors), reader.sd15.adaptable)


OFT = _keys(".oft_blocks", ".rescale", ".alpha")
GLORA = _keys(".a1.weight", ".a2.weight", ".b1.weight", ".b2.weight", ".alpha")
T_LORA = _keys(".q_layer.weight", ".p_layer.weight", ".lambda_layer", ".alpha")
IA3 = _keys(".weight", ".on_input")
HCP = _keys(
    ".layer.W_down",
    ".layer.W_up",
    ".alpha",
    stem="down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.___",
)
REFUSED |= {
    "lora-oft": (_lora(OFT), "this file is an OFT or BOFT, which is not supported"),
    "lora-glora": (_lora(GLORA), "this file is a GLoRA, which is not supported"),
    "lora-t-lora": (_lora(T_LORA), "this file is a T-LoRA, which is not supported"),
    "lora-ia3": (_lora(IA3), r"this file is an \(IA\)³, which is not supported"),
    "lora-hcp-diffusion": (_lora(HCP), "this file is in the format of HCP-Diffusion, which is not supported"),
}


@pytest.mark.parametrize("layout", REFUSED)
def test_another_file_is_refused_by_what_it_is(reader: Reader, layout: str) -> None:
    read, message = REFUSED[layout]
    with pytest.raises((CheckpointError, EmbeddingError, InvalidArgument, LoraError), match=message):
        read(reader)


# What is left out of a file whose other layers are applied, and as which kind.
LEFT_OUT: dict[str, tuple[Tensors, UnmatchedKind]] = {
    "embedding-bundled-output": (
        {"bundle_emb.tok.clip_l": torch.zeros(3, 32), "bundle_emb.tok.clip_l_out": VECTORS},
        UnmatchedKind.OUTPUT_EMBEDDING,
    ),
    "lora-oft-among-others": (OFT, UnmatchedKind.UNSUPPORTED),
    "lora-glora-among-others": (GLORA, UnmatchedKind.UNSUPPORTED),
}


@pytest.mark.parametrize("layout", LEFT_OUT)
def test_what_a_lora_has_besides_its_layers_is_left_out(reader: Reader, layout: str) -> None:
    tensors, kind = LEFT_OUT[layout]
    found = reader.lora(tensors)
    assert (len(found.layers), found.embeddings) == (1, {})
    assert {kind: sorted(keys) for kind, keys in found.unmatched.items()} == {kind: sorted(tensors)}


def test_the_log_has_a_source_for_each_row() -> None:
    logged = re.findall(r"^\| `([a-z0-9-]+)` \|.*https://\S+.*\|$", LOG.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(logged) == sorted({**NETWORKS, **TENSORS, **REFUSED, **LEFT_OUT})
