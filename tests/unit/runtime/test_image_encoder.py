"""CLIP's image encoder computes what that of transformers computes."""

from __future__ import annotations

import torch
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from runtime.networks.architecture import architecture_of
from runtime.networks.build import build, parameters
from tests.tiny.weights import fill
from tests.unit.runtime.engines import assert_near, noise

SIDE = 32


@torch.no_grad()
def test_it_equals_transformers() -> None:
    config = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        projection_dim=24,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=SIDE,
        patch_size=8,
    )
    reference = CLIPVisionModelWithProjection(config).eval()
    fill(reference, 3, {})
    network, weights = build(architecture_of("image_encoder", config.to_dict())), reference.state_dict()
    found = parameters(network)
    assert found.keys() == weights.keys()
    for name, (module, attribute, shape) in found.items():
        assert weights[name].shape == shape
        module._parameters[attribute] = nn.Parameter(weights[name], requires_grad=False)
    pixels = noise(2, 3, SIDE, SIDE)
    expected = reference(pixels, output_hidden_states=True)
    outputs = network(pixels)
    assert_near(outputs["embeds"], expected.image_embeds)
    assert_near(outputs["penultimate"], expected.hidden_states[-2])
