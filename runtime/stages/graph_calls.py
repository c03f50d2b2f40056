"""The sizes of a component's calls, before the first one."""

from __future__ import annotations

from runtime.artifacts.graph_call import GraphCall
from runtime.checkpoints.checkpoint import MAX_TOKENS, Component
from runtime.networks.architecture import NetworkKind
from runtime.plan import Plan, sized_picture
from runtime.stages.vae.tile_grid import TileGrid


def graph_calls(kind: NetworkKind, plan: Plan, rows: int, tokens: int) -> frozenset[GraphCall]:
    """rows: of each call. tokens: of the text that conditions a UNet or ControlNet, or of the picture that an
    IP-Adapter's network takes."""
    _, _, height, width = plan.latents_shape
    if kind in ("vae_encoder", "vae_decoder"):
        windows = TileGrid(height, width, plan.vae_tile).windows
        return frozenset(GraphCall(rows, window.height, window.width, 1, 0) for window in windows)
    if kind not in ("unet", "controlnet"):
        return frozenset({GraphCall(rows, 1, 1, 1, 0, tokens)})
    if plan.unet_tiles:
        height, width = plan.unet_tiles.height, plan.unet_tiles.width
    if kind == "controlnet":  # the tokens of InstantID's text are no chunks
        return frozenset({GraphCall(rows, height, width, 0, 0, tokens)})
    _, adapters, ip_tokens, _ = plan.image_prompt_shape
    return frozenset({GraphCall(rows, height, width, tokens // MAX_TOKENS, adapters, ip_tokens or 1)})


def size_field(axis: str, plan: Plan, component: Component) -> str:
    """The request's field that chooses the size of an axis."""
    if axis.endswith(("height", "width")):
        side = "height" if axis.endswith("height") else "width"
        if getattr(plan.request, f"tile_{side}") < getattr(plan, side):  # the VAE has these tiles too
            return f"tile_{side}"
        return sized_picture(plan.request, {picture.field for picture in plan.pictures}) or "image_size"
    if axis == "text_length" and plan.request.prompt_weighting:
        return "prompt"
    return "ip_adapter" if axis in ("adapters", "ip_tokens") else component.field
