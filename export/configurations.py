"""Export configurations: inputs and outputs of each kind of network, with their axes."""

from __future__ import annotations

from abc import abstractmethod
from types import SimpleNamespace
from typing import Any

from optimum.exporters.base import ExporterConfig
from optimum.utils.normalized_config import NormalizedConfig

from export.axes import (
    ADAPTERS,
    HEIGHT,
    IMAGE_TOKENS,
    IP_TOKENS,
    RESIDUAL_ROWS,
    ROWS,
    TEXT_LENGTH,
    WIDTH,
    DynamicAxis,
    NamedAxes,
    TensorAxes,
    dynamic_names,
    scaled,
)
from export.example_inputs import AxesInputGenerator
from export.low_rank import LowRankInputs
from runtime.artifacts.flat_fields import flat_name
from runtime.checkpoints.checkpoint import MAX_TOKENS
from runtime.networks.architecture import Architecture, NetworkKind
from runtime.networks.level_size import level_size
from runtime.networks.network import Network
from runtime.networks.safety_checker import CONCEPTS, SPECIAL_CONCEPTS
from runtime.networks.skip_connections import skip_connections

OPSET = 20  # the newest of torch's exporter that keeps every parameter under its name
_TIME_IDS = 6


class NetworkConfig(ExporterConfig):
    """What a graph takes and gives: one class for each kind of network.

    The order of `input_axes` and `output_axes` is the order in the graph.
    """

    NORMALIZED_CONFIG_CLASS = NormalizedConfig
    DUMMY_INPUT_GENERATOR_CLASSES = (AxesInputGenerator,)

    def __init__(self, architecture: Architecture, network: Network, low_rank: LowRankInputs) -> None:
        super().__init__(SimpleNamespace(**architecture.options), task=architecture.kind)
        self._architecture, self._options = architecture, architecture.options
        self._network: Any = network
        self._low_rank = low_rank

    @property
    @abstractmethod
    def own_axes(self) -> NamedAxes:
        """The inputs without the low-rank ones."""

    @property
    @abstractmethod
    def output_axes(self) -> NamedAxes: ...

    @property
    def input_axes(self) -> NamedAxes:
        return {**self.own_axes, **self._low_rank.axes}

    @property
    def inputs(self) -> dict[str, dict[int, str]]:
        return {name: dynamic_names(axes) for name, axes in self.input_axes.items()}

    @property
    def outputs(self) -> dict[str, dict[int, str]]:
        return {name: dynamic_names(axes) for name, axes in self.output_axes.items()}

    def _create_dummy_input_generator_classes(self, **_: Any) -> list[AxesInputGenerator]:
        return [AxesInputGenerator(self.input_axes)]


class UNetConfig(NetworkConfig):
    """`latent` has all input channels: an engine concatenates a row's `latent` and `concat`.

    Without ControlNets, one residual of zeros [1, C, 1, 1] is broadcast. Without adapters, the axis `adapters` is 0.
    `ip_mask_<level>` is [rows, adapters, queries], or [rows, adapters, 1] with ones for the whole picture.
    """

    @property
    def own_axes(self) -> NamedAxes:
        return {
            **_denoising_axes(self._options, self._options["cross_attention_dim"][0]),
            **self._timestep_cond,
            **self._residuals,
            **self._image_prompt,
        }

    @property
    def output_axes(self) -> NamedAxes:
        return {"prediction": (ROWS, self._options["out_channels"], HEIGHT, WIDTH)}

    @property
    def _timestep_cond(self) -> NamedAxes:
        width = self._options["time_cond_proj_dim"]
        return {} if width is None else {"timestep_cond": (ROWS, width)}

    @property
    def _residuals(self) -> NamedAxes:
        skips = enumerate(skip_connections(self._options["block_out_channels"], self._options["layers_per_block"]))
        sizes = {
            flat_name("residuals", index): (channels, _level_axes(self._options, level, "residual_"))
            for index, (channels, level) in skips
        }
        return {name: (RESIDUAL_ROWS, channels, *axes) for name, (channels, axes) in sizes.items()}

    @property
    def _image_prompt(self) -> NamedAxes:
        layout = self._network.image_prompts
        packed = (ROWS, ADAPTERS, IP_TOKENS, layout.width)
        axes: dict[str, TensorAxes] = {"ip_k": packed, "ip_v": packed, "ip_bias": packed[:3]}
        for level in layout.levels:
            height, width = _level_axes(self._options, level, "")
            queries = DynamicAxis(f"ip_queries_{level}", height.example * width.example)
            axes[f"ip_mask_{level}"] = (ROWS, ADAPTERS, queries)
        return axes


class ControlNetConfig(NetworkConfig):
    """`condition` is the control picture. The residuals are not scaled.

    A graph has no input that does nothing: that of a network without cross-attention has no `text`.
    """

    @property
    def own_axes(self) -> NamedAxes:
        factor = 2 ** (len(self._options["conditioning_embedding_out_channels"]) - 1)
        channels = self._options["conditioning_channels"]
        picture = (ROWS, channels, scaled(HEIGHT, "condition", factor), scaled(WIDTH, "condition", factor))
        axes = {**_denoising_axes(self._options, self._options["cross_attention_dim"]), "condition": picture}
        blocks = (*self._options["down_block_types"], self._options["mid_block_type"])
        reads_text = any("CrossAttn" in block for block in blocks)
        return {name: found for name, found in axes.items() if name != "text" or reads_text}

    @property
    def output_axes(self) -> NamedAxes:
        widths = self._options["block_out_channels"]
        skips = enumerate(skip_connections(widths, [self._options["layers_per_block"]] * len(widths)))
        return {
            flat_name("residuals", index): (ROWS, channels, *_level_axes(self._options, level, ""))
            for index, (channels, level) in skips
        }


class VaeEncoderConfig(NetworkConfig):
    """Heights and widths in pixels are those of the latents times 2 for each level after the first."""

    @property
    def own_axes(self) -> NamedAxes:
        return {"pixels": (ROWS, self._options["in_channels"], *_pixels(self._options))}

    @property
    def output_axes(self) -> NamedAxes:
        latents = (ROWS, self._options["latent_channels"], HEIGHT, WIDTH)
        return {"mean": latents, "std": latents}


class VaeDecoderConfig(NetworkConfig):
    """`latents` are divided by the scaling factor."""

    @property
    def own_axes(self) -> NamedAxes:
        return {"latents": (ROWS, self._options["latent_channels"], HEIGHT, WIDTH)}

    @property
    def output_axes(self) -> NamedAxes:
        return {"pixels": (ROWS, self._options["out_channels"], *_pixels(self._options))}


class TextEncoderConfig(NetworkConfig):
    """From token embeddings, so that an embedding of textual inversion needs no other graph.

    `end`: the position of the end token (`runtime.networks.end_positions`), int64.
    """

    @property
    def own_axes(self) -> NamedAxes:
        return {"embeddings": (ROWS, MAX_TOKENS, self._options["hidden_size"]), "end": (ROWS,)}

    @property
    def output_axes(self) -> NamedAxes:
        states = range(self._options["num_hidden_layers"] + 1)
        axes: TensorAxes = (ROWS, MAX_TOKENS, self._options["hidden_size"])
        pooled = "projection_dim" if self._architecture.with_projection else "hidden_size"
        return {
            **{flat_name("hidden_states", index): axes for index in states},
            **{flat_name("normed_states", index): axes for index in states},
            "pooled": (ROWS, self._options[pooled]),
        }


class PictureConfig(NetworkConfig):
    """The size of the pictures is the architecture's, so only the rows are dynamic."""

    @property
    def own_axes(self) -> NamedAxes:
        side = self._options["image_size"]
        return {"pixels": (ROWS, self._options["num_channels"], side, side)}


class ImageEncoderConfig(PictureConfig):
    """The projected embedding, and the input of the last layer."""

    @property
    def output_axes(self) -> NamedAxes:
        tokens = 1 + (self._options["image_size"] // self._options["patch_size"]) ** 2
        return {
            "embeds": (ROWS, self._options["projection_dim"]),
            "penultimate": (ROWS, tokens, self._options["hidden_size"]),
        }


class SafetyCheckerConfig(PictureConfig):
    """The scores of the concepts, above 0 for those that a picture shows."""

    @property
    def output_axes(self) -> NamedAxes:
        return {"concepts": (ROWS, CONCEPTS), "special": (ROWS, SPECIAL_CONCEPTS)}


class ImageProjectionConfig(NetworkConfig):
    """The inputs of each kind of adapter. The tokens of `penultimate` are those of the image encoder."""

    @property
    def own_axes(self) -> NamedAxes:
        kind, width, face = (self._options[name] for name in ("projection", "image_embed_dim", "face_embed_dim"))
        if kind == "base":
            return {"embeds": (ROWS, width)}
        if kind == "faceid":
            return {"face": (ROWS, face)}
        if kind == "faceid_plus":
            return {"face": (ROWS, face), "penultimate": (ROWS, IMAGE_TOKENS, width), "shortcut": (ROWS,)}
        return {"penultimate": (ROWS, IMAGE_TOKENS, width)}

    @property
    def output_axes(self) -> NamedAxes:
        tokens = IMAGE_TOKENS if self._options["projection"] == "full" else self._options["tokens"]
        packed: TensorAxes = (ROWS, tokens, sum(self._options["inner_widths"]))
        return {"tokens": (ROWS, tokens, self._options["cross_attention_dim"]), "ip_k": packed, "ip_v": packed}


CONFIGURATIONS: dict[NetworkKind, type[NetworkConfig]] = {
    "unet": UNetConfig,
    "controlnet": ControlNetConfig,
    "vae_encoder": VaeEncoderConfig,
    "vae_decoder": VaeDecoderConfig,
    "text_encoder": TextEncoderConfig,
    "image_encoder": ImageEncoderConfig,
    "image_projection": ImageProjectionConfig,
    "safety_checker": SafetyCheckerConfig,
}


def _denoising_axes(options: dict[str, Any], text_width: int) -> NamedAxes:
    """The inputs that UNets and ControlNets share."""
    axes: dict[str, TensorAxes] = {
        "latent": (ROWS, options["in_channels"], HEIGHT, WIDTH),
        "t": (ROWS,),
        "text": (ROWS, TEXT_LENGTH, text_width),
    }
    if options["addition_embed_type"] == "text_time":
        added = options["projection_class_embeddings_input_dim"]
        axes["pooled"] = (ROWS, added - _TIME_IDS * options["addition_time_embed_dim"])
        axes["time_ids"] = (ROWS, _TIME_IDS)
    return axes


def _level_axes(options: dict[str, Any], level: int, prefix: str) -> tuple[DynamicAxis, DynamicAxis]:
    """Height and width at a resolution level."""
    padding = options["downsample_padding"]
    height, width = (
        DynamicAxis(f"{prefix}{axis.name}_{level}", level_size(axis.example, level, padding))
        for axis in (HEIGHT, WIDTH)
    )
    return height, width


def _pixels(options: dict[str, Any]) -> tuple[DynamicAxis, DynamicAxis]:
    factor = 2 ** (len(options["block_out_channels"]) - 1)
    return scaled(HEIGHT, "pixel", factor), scaled(WIDTH, "pixel", factor)
