"""Makes the network of an architecture, and lists its parameters by their canonical names."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import NamedTuple

import torch
from torch import nn

from lorikeet.protocol.shorten import listed, shorten
from runtime.networks.architecture import Architecture, ArchitectureError, NetworkKind
from runtime.networks.network import Network

_NETWORKS: dict[NetworkKind, tuple[str, str]] = {
    "unet": ("unet", "UNet"),
    "controlnet": ("controlnet", "ControlNet"),
    "vae_encoder": ("vae", "VaeEncoder"),
    "vae_decoder": ("vae", "VaeDecoder"),
    "text_encoder": ("text_encoder", "TextEncoder"),
    "image_encoder": ("image_encoder", "ImageEncoder"),
    "image_projection": ("image_projection", "ImageProjection"),
    "safety_checker": ("safety_checker", "SafetyChecker"),
}


class Parameter(NamedTuple):
    """The module that holds a parameter, its attribute name there, and its shape."""

    module: nn.Module
    attribute: str
    shape: torch.Size


def import_network(kind: NetworkKind) -> Callable[[Architecture], Network]:
    """The class of a kind of network. The first import of its libraries can take seconds."""
    module, name = _NETWORKS[kind]
    found: Callable[[Architecture], Network] = getattr(import_module(f"runtime.networks.{module}"), name)
    return found


def build(architecture: Architecture) -> Network:
    """The network of an architecture. Its parameters are on the meta device: they have shapes and no memory.

    Raises ArchitectureError when the libraries cannot build it.
    """
    try:
        with torch.device("meta"):
            network = import_network(architecture.kind)(architecture)
    except Exception as error:  # a hostile configuration makes the libraries raise anything
        raise ArchitectureError(f"its configuration builds no {architecture.kind} ({shorten(str(error))})") from error
    network.eval().requires_grad_(False)
    if lacking := [name for name, buffer in network.named_buffers() if buffer.is_meta]:
        raise ArchitectureError(f"its configuration makes buffers that no weight file holds: {listed(lacking)}")
    return network


def parameters(network: Network) -> dict[str, Parameter]:
    """Canonical parameter name -> parameter."""
    found = {}
    for prefix, owner in network.weights.named_modules():
        for attribute, parameter in owner.named_parameters(recurse=False):
            found[f"{prefix}.{attribute}" if prefix else attribute] = Parameter(owner, attribute, parameter.shape)
    return found
