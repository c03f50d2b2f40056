"""ControlNets: which rows ask which network, and how the answers become a row's residuals."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import ControlNetModel

from runtime.conditioning.controlnet import ControlNet, ControlNets, Residuals
from runtime.conditioning.prompt import Prompt
from runtime.engines.ask import Ask
from runtime.engines.engine import Outputs
from runtime.networks.architecture import architecture_of
from runtime.networks.skip_connections import skip_sizes
from tests.tiny.controlnets import controlnet_config
from tests.tiny.unets import SD15
from tests.unit.runtime.engines import noise
from tests.unit.runtime.stand_in import answered, fake_bound, tensor

SCALED = noise(2, 4, 8, 8, seed=1)
TIMESTEP = torch.tensor(801)
GUIDED = Prompt(noise(2, 77, 32, seed=2))
PROMPTED = Prompt(noise(1, 77, 32, seed=2))


def _network(value: float = 1.0, **fields: Any) -> ControlNet:
    """A network that answers each row with residuals of this value; the value is in its condition."""
    return ControlNet(fake_bound(str(value)), torch.full((3, 64, 64), value), **fields)


def _respond(ask: Ask) -> Outputs:
    value = float(tensor(ask, "condition")[0, 0, 0])
    return {"residuals": tuple(torch.full((2, side, side), value) for side in (8, 4, 2, 1))}


def _ask(
    networks: list[ControlNet], prompt: Prompt = GUIDED, *, step: int = 0, steps: int = 4, guess_mode: bool = False
) -> tuple[list[list[Ask]], list[Residuals | None]]:
    """The lists of asks, and the residuals of each row."""
    asking = ControlNets(networks, prompt, guess_mode=guess_mode).residuals(SCALED, TIMESTEP, step, steps)
    return answered(asking, _respond)


def _values(residuals: Residuals | None) -> list[float]:
    """The value of each residual, which is one number all over."""
    assert residuals is not None
    assert all(torch.equal(residual, residual[0, 0, 0].expand_as(residual)) for residual in residuals)
    return [float(residual[0, 0, 0]) for residual in residuals]


@pytest.mark.parametrize("guess_mode", [False, True])
def test_image_tokens_replace_the_text_of_their_network_alone(guess_mode: bool) -> None:
    """InstantID: the negative prompt's rows get the tokens of the negative image prompt."""
    tokens = noise(2, 16, 32, seed=3)
    (first, second), _ = _ask([_network(1.0, tokens=tokens), _network(2.0)], guess_mode=guess_mode)
    branches = [1, 1] if guess_mode else [0, 1, 0, 1]
    for ask, branch in zip([*first, *second], [*branches, *branches], strict=True):
        expected = tokens if float(tensor(ask, "condition")[0, 0, 0]) == 1.0 else GUIDED.text
        assert torch.equal(tensor(ask, "text"), expected[branch])


def test_each_row_asks_with_its_latent_its_text_and_the_condition() -> None:
    network = _network()
    (asks,), found = _ask([network])
    assert len(asks) == len(found) == 4
    for row, ask in enumerate(asks):
        assert ask.bound is network.bound
        assert ask.inputs.keys() == {"latent", "t", "text", "condition"}
        assert torch.equal(tensor(ask, "latent"), SCALED[row // 2])
        assert torch.equal(tensor(ask, "text"), GUIDED.text[row % 2])
        assert tensor(ask, "condition") is network.condition
        assert (tensor(ask, "t").dtype, float(tensor(ask, "t"))) == (torch.float32, 801.0)


def test_sdxls_rows_ask_with_pooled_text_and_sizes() -> None:
    prompt = Prompt(noise(2, 77, 80, seed=3), noise(2, 40, seed=4), torch.arange(6.0))
    (asks,), _ = _ask([_network()], prompt)
    assert all(torch.equal(tensor(ask, "pooled"), prompt.fields(row % 2)["pooled"]) for row, ask in enumerate(asks))
    assert all(torch.equal(tensor(ask, "time_ids"), torch.arange(6.0)) for ask in asks)


def test_the_residuals_of_two_networks_add_up() -> None:
    yielded, found = _ask([_network(1.0), _network(10.0)])
    assert [len(asks) for asks in yielded] == [4, 4], "one network at a time: residuals take much memory"
    assert [_values(residuals) for residuals in found] == [[11.0] * 4] * 4


def test_each_network_has_its_scale() -> None:
    _, found = _ask([_network(1.0, conditioning_scale=0.5), _network(10.0, conditioning_scale=2.0)])
    assert [_values(residuals) for residuals in found] == [[20.5] * 4] * 4


@pytest.mark.parametrize(
    ("start", "end", "acting"),
    [
        (0.0, 1.0, [0, 1, 2, 3]),
        (0.5, 1.0, [2, 3]),
        (0.0, 0.5, [0, 1]),
        (0.25, 0.75, [1, 2]),
        (0.3, 0.7, []),  # the second step begins before 0.3, and the third one ends after 0.7
        (0.8, 1.0, []),
    ],
)
def test_a_network_acts_in_its_part_of_the_steps(start: float, end: float, acting: list[int]) -> None:
    always, sometimes = _network(1.0), _network(10.0, start=start, end=end)
    for step in range(4):
        _, found = _ask([always, sometimes], step=step)
        assert [_values(residuals)[0] for residuals in found] == [11.0 if step in acting else 1.0] * 4
        yielded, alone = _ask([sometimes], step=step)
        assert len(yielded) == int(step in acting)
        assert (alone == [None] * 4) == (step not in acting)


@pytest.mark.parametrize("prompt", [GUIDED, PROMPTED])
@pytest.mark.parametrize("guess_mode", [False, True])
def test_without_a_network_nothing_is_asked(prompt: Prompt, guess_mode: bool) -> None:
    assert _ask([], prompt, guess_mode=guess_mode) == ([], [None] * (2 * prompt.branches))


def test_guess_mode_leaves_out_the_negative_prompt_and_weakens_the_fine_levels() -> None:
    yielded, found = _ask(
        [_network(1.0, conditioning_scale=0.5), _network(10.0, conditioning_scale=2.0)], guess_mode=True
    )
    assert [len(asks) for asks in yielded] == [2, 2]
    for asks in yielded:
        assert all(torch.equal(tensor(ask, "text"), GUIDED.text[1]) for ask in asks)
        assert [torch.equal(tensor(ask, "latent"), SCALED[index]) for index, ask in enumerate(asks)] == [True] * 2
    assert [residuals is None for residuals in found] == [True, False, True, False]
    expected = [20.5 * 10 ** (-1 + level / 3) for level in range(4)]
    assert _values(found[1]) == _values(found[3]) == pytest.approx(expected, rel=1e-6)


def test_guess_mode_without_guidance_asks_for_every_row() -> None:
    (asks,), found = _ask([_network(1.0)], PROMPTED, guess_mode=True)
    assert len(asks) == 2
    for residuals in found:
        assert _values(residuals) == pytest.approx([0.1, 10 ** (-2 / 3), 10 ** (-1 / 3), 1.0])


def test_a_mask_keeps_the_mean_of_a_residual_inside() -> None:
    mask = torch.zeros(64, 64)
    mask[:, :32] = 1
    sizes = [(8, 8), (4, 4), (2, 2), (1, 1)]

    def respond(_: Ask) -> Outputs:
        return {"residuals": (torch.full((2, 1, 1), 3.0),) * 4}

    def ask(network: ControlNet) -> Residuals:
        residuals = ControlNets([network], PROMPTED, guess_mode=False).residuals(SCALED, TIMESTEP, 0, 4)
        found = answered(residuals, respond)[1][0]
        assert found is not None
        return found

    everywhere = ask(_network(pooled=sizes))
    assert [residual.shape for residual in everywhere] == [(2, 1, 1)] * 4, "as diffusers gives them"
    masked = ask(_network(pooled=sizes, mask=mask))
    assert [residual.shape for residual in masked] == [(2, *size) for size in sizes]
    for residual in masked[:3]:
        half = residual.shape[-1] // 2
        assert (residual[..., :half] == 3).all() and (residual[..., half:] == 0).all()


@pytest.mark.parametrize(("height", "width"), [(64, 64), (72, 104), (136, 72)])
def test_the_sizes_of_the_residuals_are_known_before(height: int, width: int) -> None:
    latents = (height // 8, width // 8)
    network = ControlNetModel(**controlnet_config(SD15))
    picture = torch.zeros(1, 3, height, width)
    with torch.no_grad():
        down, mid = network(torch.zeros(1, 4, *latents), 1, torch.zeros(1, 77, 32), picture, return_dict=False)
    found = skip_sizes(architecture_of("unet", SD15).options, *latents)
    assert found == [tuple(residual.shape[-2:]) for residual in (*down, mid)]
