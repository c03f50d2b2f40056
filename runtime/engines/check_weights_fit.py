"""Checks that a weight set fits an architecture, from file headers alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lorikeet.protocol.shorten import listed, shorten
from runtime.engines.engine import WeightsError
from runtime.networks.architecture import NetworkKind
from runtime.weights.weight_set import WeightSet

Shape = Sequence[int]


def check_fit(weights: WeightSet, kind: NetworkKind, wanted: Mapping[str, Shape]) -> None:
    """`wanted`: the network's parameters and their shapes.

    A tensor that the network does not use is an error too: its configuration does not describe these weights. The only
    exception is the other half of a VAE.

    Raises WeightsError, whose message lists the tensors that do not fit.
    """
    name, shapes = weights.base.name, weights.base.shapes
    roots = {parameter.partition(".")[0] for parameter in wanted}
    unknown = [
        parameter
        for parameter in shapes
        if parameter not in wanted and (not kind.startswith("vae") or parameter.partition(".")[0] in roots)
    ]
    if unknown:
        raise WeightsError(f"{name}: its configuration does not use {len(unknown)} of its tensors: {listed(unknown)}")
    if missing := sorted(wanted.keys() - shapes.keys()):
        raise WeightsError(f"{name} lacks {len(missing)} of its tensors: {listed(missing)}")
    for parameter, shape in wanted.items():
        if not (_same(shapes[parameter], shape) or _is_padded(weights, parameter, shapes[parameter], shape)):
            found, expected = list(shapes[parameter]), list(shape)
            raise WeightsError(f"{name}: {shorten(parameter)} is {found}, not {expected}")
    if unknown := sorted(weights.changed.keys() - wanted.keys()):
        raise WeightsError(f"{name} has no {listed(unknown)}")


def _same(stored: Shape, wanted: Shape) -> bool:
    """A 1x1 convolution and a linear layer are the same weight: old VAEs store one for the other."""
    return _core(stored) == _core(wanted)


def _core(shape: Shape) -> tuple[int, ...]:
    return tuple(shape[:2]) if tuple(shape[2:]) == (1, 1) else tuple(shape)


def _is_padded(weights: WeightSet, name: str, stored: Shape, wanted: Shape) -> bool:
    """Whether a full change gives weights to input channels that the base's convolution does not have."""
    return (
        len(stored) == len(wanted) == 4
        and stored[1] < wanted[1]
        and (stored[0], *stored[2:]) == (wanted[0], *wanted[2:])
        and any(
            source.rank(name) is None and tuple(source.shape(name)) == tuple(wanted)
            for source in weights.changed.get(name, ())
        )
    )
