"""Rows with vectors of their own: the text encoder reads them at the places of their ids, in every engine."""

from __future__ import annotations

import pytest
import torch

from runtime.checkpoints.checkpoint import Checkpoint
from runtime.engines.compiled.embed_tokens import embed_tokens
from runtime.engines.engine import never_cancelled
from runtime.networks.token_vectors import embed
from runtime.weights.weight_set import WeightSet
from tests.unit.runtime.engines import make_engine, noise, run, unet_inputs
from tests.unit.runtime.tiny_checkpoints import base_tensors


def test_a_row_has_its_own_vectors() -> None:
    table = noise(5, 3)
    ids = torch.tensor([[0, 5, 4], [6, 1, 5]])
    vectors = noise(2, 2, 3, seed=1)
    found = embed(lambda ids: table[ids], 5, ids, vectors)
    expected = torch.stack(
        [
            torch.stack([table[0], vectors[0, 0], table[4]]),
            torch.stack([vectors[1, 1], table[1], vectors[1, 0]]),
        ]
    )
    assert torch.equal(found, expected)
    assert torch.equal(embed(lambda ids: table[ids], 5, ids[:, :1].clamp(max=4), None), table[ids[:, :1].clamp(max=4)])


@pytest.mark.parametrize("upcasts", [False, True])
def test_the_engines_place_vectors_alike(sd15: Checkpoint, upcasts: bool) -> None:
    """In torch's network, and where an engine of graphs looks embeddings up."""
    component = sd15.text_encoders[0]
    engine, _ = make_engine("text_encoder", component, torch.bfloat16 if upcasts else torch.float32, upcasts=upcasts)
    size = component.config["vocab_size"]
    ids = torch.randint(3, size, (2, 77), generator=torch.Generator().manual_seed(0))
    ids[0, 5], ids[1, 7] = size + 1, size
    fields = {"ids": ids, "vectors": noise(2, 2, 32)}
    weights = {name: tensor.float() for name, tensor in base_tensors(component).items()}
    options = {"vocab_size": size, "eos_token_id": component.config["eos_token_id"]}
    embedded = embed_tokens(fields, weights, options)["embeddings"]
    assert isinstance(embedded, torch.Tensor)
    positions = weights["text_model.embeddings.position_embedding.weight"]
    found = run(engine, WeightSet(component), fields)["hidden_states"][0]
    torch.testing.assert_close(found, embedded + positions, rtol=0, atol=0.05 if upcasts else 1e-6)
    assert torch.equal(embedded[0, 5], fields["vectors"][0, 1]) and torch.equal(embedded[1, 7], fields["vectors"][1, 0])


def test_rows_of_other_shapes_share_no_call(sd15: Checkpoint) -> None:
    text, _ = make_engine("text_encoder", sd15.text_encoders[0])
    binding = text.bind(WeightSet(sd15.text_encoders[0]), never_cancelled)
    ids = torch.zeros(77, dtype=torch.int64)
    keys = [
        text.batch_key(binding, {"ids": ids, **more}) for more in ({}, *({"vectors": noise(n, 32)} for n in (1, 2)))
    ]
    assert len(set(keys)) == 3
    binding.release()
    unet, _ = make_engine("unet", sd15.unet)
    binding = unet.bind(WeightSet(sd15.unet), never_cancelled)
    row = {name: value[0] for name, value in unet_inputs("sd").items()}
    assert len({unet.batch_key(binding, row | {"text": noise(77 * chunks, 32)}) for chunks in (1, 2, 3)}) == 3
    binding.release()
