"""Makes a graph's network, and finds its parameters by their canonical names."""

from __future__ import annotations

import json
from importlib import import_module

import torch
from torch import nn

from runtime.checkpoints.checkpoint import Component
from runtime.engines.engine import Graph, GraphKind, WeightsError
from runtime.networks.network import Network

_NETWORKS: dict[GraphKind, tuple[str, str]] = {
    "unet": ("unet", "UNet"),
    "vae_encoder": ("vae", "VaeEncoder"),
    "vae_decoder": ("vae", "VaeDecoder"),
    "text_encoder": ("text_encoder", "TextEncoder"),
}


def network_class(kind: GraphKind) -> type[Network]:
    """The class of a kind of graph; importing it may take seconds."""
    module, name = _NETWORKS[kind]
    found: type[Network] = getattr(import_module(f"runtime.networks.{module}"), name)
    return found


def graph_of(kind: GraphKind, component: Component) -> Graph:
    """The graph of a component: the same for the same architecture, however much of it the configuration spells out.

    Raises WeightsError when the configuration is none of that kind.
    """
    try:
        architecture = network_class(kind).architecture(component.config)
        return Graph(kind, json.dumps(architecture, sort_keys=True))
    except Exception as error:  # a hostile configuration makes it raise anything
        raise WeightsError(f"its configuration is none of a {kind} ({error})") from error


def build(graph: Graph) -> Network:
    """The graph's network, its parameters on the meta device: shapes without memory.

    Raises WeightsError when the configuration is none that the libraries can build.
    """
    try:
        with torch.device("meta"):
            network = network_class(graph.kind)(graph.options)
    except Exception as error:  # a hostile configuration makes the libraries raise anything
        raise WeightsError(f"no {graph.kind} can be built from its configuration ({error})") from error
    network.eval().requires_grad_(False)
    if lacking := [name for name, buffer in network.named_buffers() if buffer.is_meta]:
        raise WeightsError(f"its configuration makes buffers that no weight file holds: {', '.join(lacking[:8])}")
    return network


def parameters(network: Network) -> dict[str, tuple[nn.Module, str, torch.Size]]:
    """Canonical parameter name -> (module that holds it, attribute, shape)."""
    found = {}
    for prefix, owner in network.weights.named_modules():
        for attribute, parameter in owner.named_parameters(recurse=False):
            found[f"{prefix}.{attribute}" if prefix else attribute] = (owner, attribute, parameter.shape)
    return found
