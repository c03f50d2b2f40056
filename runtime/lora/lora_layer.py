"""One layer of a LoRA file: the change of one parameter, as the file's header describes it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from runtime.files.safetensors_file import FLOATS
from runtime.files.safetensors_header import TensorInfo
from runtime.lora.key_suffixes import ALPHA, LoraKey
from runtime.lora.kinds import dora
from runtime.lora.kinds.lora_kind import FactorsError, LoraKind, Shape
from runtime.lora.layer_names import Target
from runtime.lora.peft_metadata import PeftMetadata

_INTEGERS = ("I8", "I16", "I32", "I64", "U8", "U16", "U32", "U64")
TensorInfos = Mapping[str, TensorInfo]  # by tensor name


@dataclass(frozen=True)
class LoraLayer:
    """The change of one parameter, as the file's header describes it.

    `shape`: that of the parameter. `keys`: role -> tensor name. `alpha_rank`: what alpha is divided by. `alpha`: a
    tensor's name, a number from the metadata, or None (alpha = rank). `magnitude`: role and tensor name of DoRA's
    magnitude.
    """

    target: Target
    shape: Shape
    kind: LoraKind
    keys: Mapping[str, str]
    alpha_rank: int | None
    alpha: str | float | None
    rank_stabilized: bool
    magnitude: tuple[str, str] | None

    @property
    def tensor_names(self) -> list[str]:
        """The names of all tensors of this layer, alpha and magnitude included."""
        alpha = [self.alpha] if isinstance(self.alpha, str) else []
        magnitude = [self.magnitude[1]] if self.magnitude else []
        return [*self.keys.values(), *alpha, *magnitude]

    @property
    def low_rank(self) -> int | None:
        """The rank r of `scale * up @ down`, up [out, r] and down [r, in]; None for a change of any other form.

        This is the inner size of the product, also with a Tucker core; it is not what alpha is divided by. DoRA is
        not low-rank: its magnitude rescales the whole weight.
        """
        # The two ranks are equal here: `LoraKind.shape` accepts only square Tucker cores.
        return self.alpha_rank if self.kind.is_low_rank and self.magnitude is None else None

    def scaling(self, alpha: float | None) -> float:
        """alpha / rank, or alpha / sqrt(rank) for rank-stabilized LoRA (arXiv 2312.03732)."""
        if alpha is None or self.alpha_rank is None:
            return 1.0
        return alpha / (math.sqrt(self.alpha_rank) if self.rank_stabilized else self.alpha_rank)


@dataclass
class KeyGroup:
    """The keys of one file that change one parameter (`attribute`) of one layer.

    `targets`: the layers that the keys' stem may name. `stem`: that of the first key.
    """

    stem: str
    attribute: str
    targets: tuple[Target, ...]
    kinds: set[LoraKind] = field(default_factory=set)
    keys: dict[str, str] = field(default_factory=dict)  # role -> tensor name, for the roles of one kind
    shared: dict[str, str] = field(default_factory=dict)  # role -> tensor name, for alpha and magnitude
    repeated: list[tuple[str, str]] = field(default_factory=list)  # (tensor name, the earlier one of its role)

    @property
    def tensor_names(self) -> list[str]:
        return [*self.keys.values(), *self.shared.values(), *(name for name, _ in self.repeated)]

    @property
    def has_no_kind(self) -> bool:
        """Whether it has an alpha or a magnitude alone."""
        return not self.kinds

    def add(self, name: str, key: LoraKey) -> None:
        """Add the tensor of this name; `key` are the parts of the name."""
        roles = self.keys if key.kind else self.shared
        if (earlier := roles.setdefault(key.role, name)) != name:
            self.repeated.append((name, earlier))
        elif key.kind:
            self.kinds.add(key.kind)

    def change_shape(self, infos: TensorInfos) -> Shape:
        """The shape of the change that the group's tensors make. Raises FactorsError."""
        return self.only_kind().shape(self.factors(infos))

    def factors(self, infos: TensorInfos) -> dict[str, Shape]:
        """Role -> shape."""
        return {role: infos[name].shape for role, name in self.keys.items()}

    def only_kind(self) -> LoraKind:
        """The kind of all tensors. Raises FactorsError."""
        if self.has_no_kind:
            raise FactorsError(f"the file has {self.tensor_names[0]} without the tensors that it scales")
        if len(self.kinds) > 1:
            names = " and ".join(sorted(kind.name for kind in self.kinds))
            raise FactorsError(f"the file has tensors of {names}; expected one kind for a layer")
        return next(iter(self.kinds))


def make_layer(target: Target, group: KeyGroup, infos: TensorInfos, metadata: PeftMetadata, weight: Shape) -> LoraLayer:
    """The layer of a group. `weight` is the shape of the parameter that it changes.

    Raises FactorsError when tensors are missing, repeated, have a wrong dtype, or do not fit each other or the weight.
    """
    if group.repeated:
        name, earlier = group.repeated[0]
        raise FactorsError(f"{name} repeats {earlier}; expected one tensor")
    kind = group.only_kind()
    _check_dtypes(group, infos)
    shape = group.change_shape(infos)
    if not fits(shape, weight):
        raise FactorsError(f"expected shape {list(weight)}, found {list(shape)}")
    magnitudes = [(role, name) for role, name in group.shared.items() if role != ALPHA]
    if len(magnitudes) > 1:
        names = ", ".join(role for role, _ in magnitudes)
        raise FactorsError(f"the file has two DoRA magnitudes ({names}); expected one")
    for role, name in magnitudes:
        dora.axis(role, infos[name].shape, weight)
    return LoraLayer(
        target=target,
        shape=weight,
        kind=kind,
        keys=group.keys,
        alpha_rank=kind.alpha_rank(group.factors(infos)),
        alpha=group.shared.get(ALPHA) or metadata.alpha(target),
        rank_stabilized=metadata.rank_stabilized(target),
        magnitude=magnitudes[0] if magnitudes else None,
    )


def fits(shape: Shape, weight: Shape) -> bool:
    """Whether a change of this shape can be added to the weight.

    A 1x1 convolution is equal to a linear layer, and all axes but the first may be flattened.
    """
    flattened = (*weight[:1], math.prod(weight[1:]))
    return _without_trailing_ones(shape) == _without_trailing_ones(weight) or shape == flattened


def _check_dtypes(group: KeyGroup, infos: TensorInfos) -> None:
    for name in group.tensor_names:
        info, is_alpha = infos[name], name == group.shared.get(ALPHA)
        allowed = FLOATS + _INTEGERS if is_alpha else FLOATS
        if info.dtype not in allowed:
            raise FactorsError(f"{name} has dtype {info.dtype}; expected {', '.join(allowed)}")
        if is_alpha and math.prod(info.shape) != 1:
            raise FactorsError(f"{name} has shape {list(info.shape)}; expected a single number")


def _without_trailing_ones(shape: Shape) -> Shape:
    end = len(shape)
    while end and shape[end - 1] == 1:
        end -= 1
    return shape[:end]
