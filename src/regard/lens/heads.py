"""Which heads matter: importance by gradient and by ablation, dead heads, redundant heads."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from regard.errors import ConfigError, nearest
from regard.lens.capture.call import AttentionCall
from regard.lens.capture.functions import Caller
from regard.lens.record import intercept

UNIFORM, SINK = 0.98, 0.95  # share of the largest entropy, and of the mass on one key, from which a head is dead
SAME = 0.02  # mean Jensen-Shannon divergence in nats below which two heads do the same


class HeadState(NamedTuple):
    """What is known of a head by its map."""

    head: int  # counted from 0
    entropy_share: float  # mean entropy over that of uniform weights
    sink_share: float  # mass on its most attended key

    @property
    def dead(self) -> bool:
        """Whether it tells keys apart hardly at all, or looks at one key whatever the query."""
        return self.entropy_share > UNIFORM or self.sink_share > SINK


def importance(output: Tensor, gradient: Tensor) -> Tensor:
    """Importance of heads by gradient: |sum over features of output times gradient|, mean over queries.

    Args:
        output: (B, H, L, V), outputs of an attention before heads are merged.
        gradient: (B, H, L, V), of the loss with respect to them.

    Returns:
        (H,).

    Source: Michel et al. 2019, arXiv 1905.10650, equation 2.
    """
    return (output * gradient).sum(-1).abs().mean((0, 2))


@contextmanager
def ablated(model: nn.Module, heads: Mapping[str, Sequence[int]]) -> Iterator[None]:
    """Set the outputs of heads to 0 inside the block, in any model whose attention can be recorded.

    Args:
        model: any module.
        heads: by the path of an attention as `record` has it, heads counted from 0.

    Raises:
        ConfigError: on leaving the block, a path whose attention did not run in it.

    Source: Michel et al. 2019, arXiv 1905.10650, equation 1.
    """
    visited: set[str] = set()

    def ablate(caller: Caller, call: AttentionCall) -> Tensor | None:
        chosen = heads.get(caller.path)
        if chosen is None or call.output is None:
            return None
        visited.add(caller.path)
        count = call.shape[1]
        keep = torch.ones(1, count, 1, 1, dtype=call.output.dtype, device=call.output.device)
        keep[:, list(chosen)] = 0
        return call.output * keep

    with intercept(model, ablate, lambda path, reason: None):
        yield
    missing = sorted(set(heads) - visited)
    if missing:
        raise ConfigError(
            f"ablated: {missing[0]!r} did not run; {nearest(missing[0], sorted(visited) or ['nothing ran'])}"
        )


def states(entropy: Tensor, key_mass: Tensor, keys_seen: Tensor) -> list[HeadState]:
    """What the heads of an attention do, by their summaries.

    Args:
        entropy: (H, L) in nats.
        key_mass: (H, S).
        keys_seen: (L,), how many keys each query may see, by which entropy is scaled; queries of one key are left out.

    Returns:
        One a head.
    """
    several = keys_seen > 1
    shares = (entropy[:, several] / keys_seen[several].to(entropy.dtype).log()).mean(1)
    sinks = key_mass.max(1).values / key_mass.sum(1).clamp(min=1e-9)
    return [HeadState(i, float(x), float(y)) for i, (x, y) in enumerate(zip(shares, sinks, strict=True))]


def divergence(maps: Tensor) -> Tensor:
    """Mean Jensen-Shannon divergence between the rows of heads' maps, in nats: (H, H).

    Args:
        maps: (H, r, c), rows of which sum to 1.

    Source: Lin 1991, "Divergence measures based on the Shannon entropy", equation 4.1.
    """
    first, second = maps[:, None], maps[None]
    middle = (first + second) / 2
    return (_entropy(middle) - (_entropy(first) + _entropy(second)) / 2).mean(-1)


def redundant(maps: Tensor, *, below: float = SAME) -> list[tuple[int, int]]:
    """Pairs of heads whose maps are the same but for a divergence below a bound: heads counted from 0."""
    pairs = (divergence(maps) < below).triu(1).nonzero()
    return [(int(i), int(j)) for i, j in pairs]


def _entropy(weights: Tensor) -> Tensor:
    return torch.special.entr(weights).sum(-1)
