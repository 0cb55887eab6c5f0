"""Attention once more, in the plainest PyTorch there is: whole matrices, loops over single pairs, no regard.

It reads the fields of regard's values and computes nothing with regard's code. In float64 it checks the reference
backend; in the precision of a case it says what error plain PyTorch of that precision has, which is the measure of
the error that a backend may have.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

import regard as rg
from regard.attention.patterns.pattern import And, Not, Or


class Plain(NamedTuple):
    """What the plain formula gives."""

    output: Tensor  # (B, H, L, V)
    weights: Tensor  # (B, H, L, S), before dropout
    log_sum_exp: Tensor | None  # (B, H, L)
    log_prob: Tensor | None  # (B, H, L), of a choice
    margin: float  # how far the nearest score is from its row's threshold; inf where no threshold decides


def attend(
    arguments: dict[str, Any], visible: Tensor, *, hold: bool = False, unit: float = 0.0, seed: int = 0
) -> Plain:
    """The formula, step by step, on the arguments of `regard.attend`.

    With `hold`, what a row has in common (its sum of exponentials, its threshold) counts as a constant. The gradient is
    then that of a score alone: one of the two terms whose difference is the true gradient.

    With a `unit`, each score is off by a random share of so much of its row's largest: as if rounded.
    """
    query, key, value = (arguments[name] for name in ("query", "key", "value"))
    dtype, group = query.dtype, query.shape[1] // key.shape[1]
    key, value = (torch.stack([x[:, h // group] for h in range(query.shape[1])], 1) for x in (key, value))
    query_BL, key_S = positions(arguments)

    scores = score(arguments["score"], query, key, arguments["key_start"])
    if arguments["bias"] is not None:
        added = bias(arguments["bias"], query_BL, key_S, dtype).expand_as(scores)
        visible = visible & (added != -math.inf)
        scores = scores + torch.where(visible, added, 0)
    if unit:
        share = torch.rand(scores.shape, generator=torch.Generator().manual_seed(seed), dtype=dtype) * 2 - 1
        largest = torch.where(visible, scores, 0).detach().abs().amax(-1, keepdim=True)
        scores = scores + unit * share * largest
    wide = torch.promote_types(dtype, torch.float32)  # as torch.softmax does inside
    normalizer, scores, log_sum_exp, log_prob = arguments["normalizer"], scores.to(wide), None, None
    if isinstance(normalizer, rg.Hard):
        weights, log_prob, margin = choose(normalizer, scores, visible, hold, arguments["seed"])
    else:
        weights, log_sum_exp, margin = normalize(normalizer, scores, visible, hold)
    weights = prior(arguments["normalizer"], weights.to(dtype), key_S)
    kept = weights
    if arguments["dropout"]:
        kept = weights * keep_scale(arguments["dropout"], arguments["seed"], weights.shape).to(dtype)
    return Plain(kept @ value, weights, log_sum_exp, log_prob, margin)


def positions(arguments: dict[str, Any]) -> tuple[list[list[int]], list[int]]:
    """The position of each query of each sequence, and of each key."""
    batch, _, length, _ = arguments["query"].shape
    keys, start = arguments["key"].shape[2], arguments["query_start"]
    if start is None:
        start = arguments["key_start"] + keys - length
    starts = start.tolist() if isinstance(start, Tensor) else [start] * batch
    return [[s + i for i in range(length)] for s in starts], [arguments["key_start"] + j for j in range(keys)]


# Which keys a query may attend to


class At(NamedTuple):
    """One entry of the score matrix: its sequence, head, row and column, and the positions of its query and key."""

    b: int
    h: int
    row: int
    column: int
    query: int
    key: int


def visibility(arguments: dict[str, Any]) -> Tensor:
    """Booleans (B, H, L, S): each pair by itself."""
    batch, heads, length, _ = arguments["query"].shape
    query_BL, key_S = positions(arguments)
    shape = (batch, heads, length, len(key_S))
    sees = rule(arguments["pattern"], shape)
    entries = [sees(At(b, h, i, j, query_BL[b][i], key_S[j])) for b, h, i, j in np.ndindex(*shape)]
    return torch.tensor(entries, dtype=torch.bool).reshape(shape)


def rule(pattern: Any, shape: tuple[int, int, int, int]) -> Callable[[At], bool]:
    """The definition of a pattern for one pair."""

    def window(at: At, left: int | None, right: int | None) -> bool:
        return (left is None or at.query - at.key <= left) and (right is None or at.key - at.query <= right)

    def spread(tensor: Tensor, *sizes: int) -> np.ndarray:
        return np.broadcast_to(tensor.detach().double().numpy(), sizes)

    match pattern:
        case rg.Full():
            return lambda at: True
        case rg.Causal():
            return lambda at: at.key <= at.query
        case rg.SlidingWindow(left=left, right=right):
            return lambda at: window(at, left, right)
        case rg.Dilated(dilation=gap, left=left, right=right):
            far = [None if n is None else n * gap for n in (left, right)]
            return lambda at: window(at, *far) and abs(at.query - at.key) % gap == 0
        case rg.Strided(stride=stride):
            return lambda at: abs(at.query - at.key) % stride == 0
        case rg.GlobalTokens(positions=tokens):
            return lambda at: at.query in tokens or at.key in tokens
        case rg.BlockSparse(layout=layout, block_size=size):
            cells = spread(layout, shape[1], *layout.shape[-2:])
            return lambda at: bool(cells[at.h, at.query // size, at.key // size])
        case rg.RandomBlocks(block_size=size, length=length):
            drawn = random_blocks(pattern)
            inside = range(length)
            return lambda at: at.query in inside and at.key in inside and at.key // size in drawn[at.query // size]
        case rg.PrefixLM(prefix_lengths=lengths):
            prefix = spread(lengths, shape[0])
            return lambda at: at.key < prefix[at.b] or at.key <= at.query
        case rg.KeyLengths(lengths=lengths):
            limit = spread(lengths, shape[0])
            return lambda at: at.key < limit[at.b]
        case rg.Documents(query_ids=query_ids, key_ids=key_ids):
            queries, keys = spread(query_ids, shape[0], shape[2]), spread(key_ids, shape[0], shape[3])
            return lambda at: queries[at.b, at.row] == keys[at.b, at.column]
        case rg.Mask(tensor=tensor):
            mask = spread(tensor, *shape)
            return lambda at: bool(mask[at.b, at.h, at.row, at.column])
        case rg.Around(center=tensor, left=left, right=right):
            center = spread(tensor, *shape[:3])
            return lambda at: -left <= at.key - center[at.b, at.h, at.row] <= right
        case And(left=left, right=right):
            one, two = rule(left, shape), rule(right, shape)
            return lambda at: one(at) and two(at)
        case Or(left=left, right=right):
            one, two = rule(left, shape), rule(right, shape)
            return lambda at: one(at) or two(at)
        case Not(pattern=inner):
            one = rule(inner, shape)
            return lambda at: not one(at)
    raise TypeError(f"no plain definition of {pattern!r}")


def random_blocks(pattern: rg.RandomBlocks) -> list[set[int]]:
    """For each block of queries the blocks of keys drawn: from those left over, the one that the next word picks."""
    n = math.ceil(pattern.length / pattern.block_size)
    words = iter(np.random.Philox(key=pattern.seed).random_raw(n * pattern.count).tolist())
    drawn = []
    for _ in range(n):
        left_over = list(range(n))
        drawn.append({left_over.pop(next(words) % len(left_over)) for _ in range(pattern.count)})
    return drawn


# Scores and what is added to them


def score(value: Any, query: Tensor, key: Tensor, key_start: int) -> Tensor:
    """Scores (B, H, L, S); the key heads are already repeated."""
    dtype = query.dtype
    dots = "bhle,bhse->bhls"
    match value:
        case rg.Dot(scale=scale, softcap=cap):
            scale = 1 / math.sqrt(query.shape[-1]) if scale is None else per_head(scale, dtype)
            scores = torch.einsum(dots, query, key) * scale
            return scores if cap is None else cap * torch.tanh(scores / cap)
        case rg.Cosine(scale=scale):
            query, key = (x / x.norm(dim=-1, keepdim=True) for x in (query, key))
            return torch.einsum(dots, query, key) * per_head(scale, dtype)
        case rg.Bilinear(weight=weight):
            weight = weight.to(dtype).expand(query.shape[1], *weight.shape[-2:])
            return torch.einsum("bhlx,hxy,bhsy->bhls", query, weight, key)
        case rg.Additive(vector=vector, activation=activation):
            hidden = getattr(torch, activation)(query[:, :, :, None, :] + key[:, :, None, :, :])
            return (hidden * vector.to(dtype).expand(query.shape[1], query.shape[3])[:, None, None]).sum(-1)
        case rg.LocationAware(vector=vector, features=features, projection=projection):
            (heads, rows, dim), keys = query.shape[1:], key.shape[2]
            features = features.to(dtype).expand(len(query), heads, rows, keys, -1)
            location = torch.einsum("bhlsf,hfe->bhlse", features, projection.to(dtype).expand(heads, -1, -1))
            hidden = torch.tanh(query[:, :, :, None, :] + key[:, :, None, :, :] + location)
            return (hidden * vector.to(dtype).expand(heads, dim)[:, None, None]).sum(-1)
        case rg.Location(weight=weight):
            weight = weight.to(dtype)[..., key_start : key_start + key.shape[2], :]
            return torch.einsum("bhle,hse->bhls", query, weight.expand(query.shape[1], *weight.shape[-2:]))
    raise TypeError(f"no plain definition of {value!r}")


def bias(value: Any, query_BL: list[list[int]], key_S: list[int], dtype: torch.dtype) -> Tensor:
    """What to add to the scores, from positions by a loop over pairs."""
    offset_BLS = torch.tensor([[[key - query for key in key_S] for query in row] for row in query_BL])
    match value:
        case rg.TensorBias(tensor=tensor):
            return tensor.to(dtype)
        case rg.ALiBi(slopes=slopes):
            return -per_head(slopes, dtype) * offset_BLS[:, None].abs().to(dtype)
        case rg.RelativeBias(table=table):
            rows = [bucket(offset, value) for offset in offset_BLS.flatten().tolist()]
            return table.to(dtype)[rows].reshape(*offset_BLS.shape, -1).permute(0, 3, 1, 2)
    raise TypeError(f"no plain definition of {value!r}")


def bucket(offset: int, value: rg.RelativeBias) -> int:
    """T5's bucket of a key that stands `offset` after its query (Raffel et al. 2019, section 2.1)."""
    count, after = value.table.shape[0], 0
    if value.bidirectional:
        count //= 2
        after = count if offset > 0 else 0
        distance = abs(offset)
    else:
        distance = max(-offset, 0)
    exact = count // 2
    if distance < exact:
        return after + distance
    octaves = math.log(distance / exact) / math.log(value.max_distance / exact)
    return after + min(count - 1, exact + int(octaves * (count - exact)))


# Scores to weights


def normalize(value: Any, scores: Tensor, visible: Tensor, hold: bool) -> tuple[Tensor, Tensor | None, float]:
    """Weights, the log-sum-exp where there is one, and the margin of the threshold."""
    some = visible.any(-1, keepdim=True)
    if isinstance(value, rg.Sigmoid):
        return torch.where(visible, torch.sigmoid(scores + per_head(value.bias, scores.dtype)), 0), None, math.inf
    if isinstance(value, rg.NormalizedSigmoid):
        shares = torch.where(visible, torch.sigmoid(scores + per_head(value.bias, scores.dtype)), 0)
        total = torch.where(some, shares.sum(-1, keepdim=True), 1)
        return shares / (total.detach() if hold else total), None, math.inf
    # A row that sees nothing is filled with zeros, normalized like any other, and then its weights are removed.
    hidden = torch.where(visible, scores, -math.inf)
    safe = torch.where(some, hidden, torch.zeros_like(hidden))
    if isinstance(value, rg.Softmax):
        sink = None if value.sink is None else per_head(value.sink, scores.dtype).expand_as(scores[..., :1])
        whole = safe if sink is None else torch.cat([safe, sink], -1)
        weights = (whole - whole.logsumexp(-1, keepdim=True).detach()).exp() if hold else whole.softmax(-1)
        alone = torch.full_like(scores[..., 0], -math.inf) if sink is None else sink[..., 0]
        total = torch.where(some[..., 0], whole.logsumexp(-1), alone)
        return torch.where(some, weights[..., : scores.shape[-1]], 0), total, math.inf
    if isinstance(value, rg.Sparsemax):
        weights, margin = sparsemax(safe, hold)
    else:
        alpha = value.alpha if isinstance(value.alpha, Tensor) else torch.tensor(value.alpha, dtype=torch.float64)
        alpha = per_head(alpha, scores.dtype).expand_as(scores[:1, :, :1, :1])
        weights, distance = Entmax.apply(safe, alpha, hold)
        margin = distance
    margin = float(torch.where(visible, margin, math.inf).min())
    return torch.where(some, weights, 0), None, margin


def choose(
    value: rg.Hard, scores: Tensor, visible: Tensor, hold: bool, seed: int
) -> tuple[Tensor, Tensor | None, float]:
    """Weights of the choice of a key, its log-probability, and how far the second key is from being chosen."""
    some = visible.any(-1, keepdim=True)
    hidden = torch.where(visible, scores, -math.inf)
    safe = torch.where(some, hidden, torch.zeros_like(hidden))
    temperature = per_head(value.temperature, scores.dtype)

    def scaled(x: Tensor) -> Tensor:
        return torch.where(x == -math.inf, x, torch.where(x == -math.inf, 0, x) / temperature)

    def log_softmax(x: Tensor) -> Tensor:
        total = x.logsumexp(-1, keepdim=True)
        return x - (total.detach() if hold else total)

    noise = torch.zeros_like(scores)
    if value.sample is not None:
        words = philox(seed, scores.shape)[1].astype(np.float64)
        noise = torch.from_numpy(-np.log(-np.log((words + 0.5) / 2**32))).to(scores.dtype)
    if isinstance(value.sample, rg.Gumbel):
        return torch.where(some, log_softmax(scaled(safe + noise)).exp(), 0), None, math.inf
    perturbed = (safe if value.sample is None else scaled(safe) + noise).detach()
    best = perturbed.topk(min(2, perturbed.shape[-1]), dim=-1)
    weights = torch.zeros_like(scores).scatter(-1, best.indices[..., :1], 1.0)
    log_prob = log_softmax(scaled(safe))
    if isinstance(value.sample, rg.StraightThrough):
        soft = log_prob.exp()
        weights = weights + soft - soft.detach()
    gap = best.values[..., 0] - best.values[..., -1]
    several = (visible.sum(-1) > 1) & (perturbed.shape[-1] > 1)
    margin = float(torch.where(several, gap, math.inf).min())
    log_prob = torch.where(some, log_prob.gather(-1, best.indices[..., :1]), 0)[..., 0]
    return torch.where(some, weights, 0), log_prob, margin


def sparsemax(scores: Tensor, hold: bool) -> tuple[Tensor, Tensor]:
    """By sorting (Martins and Astudillo 2016, algorithm 1), and each score's distance from the threshold."""
    ordered = scores.sort(dim=-1, descending=True).values
    count = torch.arange(1, scores.shape[-1] + 1, dtype=scores.dtype)
    finite = torch.where(ordered == -math.inf, 0, ordered)
    total = finite.cumsum(-1)
    size = ((1 + count * ordered > total) & (ordered != -math.inf)).sum(-1, keepdim=True)
    threshold = (total.gather(-1, size - 1) - 1) / size
    threshold = threshold.detach() if hold else threshold
    return (scores - threshold).clamp(min=0), (scores - threshold).detach().abs()


class Entmax(torch.autograd.Function):
    """Threshold by a long bisection; derivatives by hand from p = [(alpha - 1) z - threshold]_+ ^ (1/(alpha - 1)).

    With g = p^(2 - alpha) on the support: dp = g (dz - <g, dz> / <g, 1>), and, since sum p = 1,
    dp / dalpha = (-p log p + g (z - t)) / (alpha - 1) with t such that it sums to 0.
    """

    @staticmethod
    def forward(ctx: Any, scores: Tensor, alpha: Tensor, hold: bool) -> tuple[Tensor, Tensor]:
        z, a = scores, alpha
        scaled = (a - 1) * z
        low = scaled.amax(-1, keepdim=True) - 1
        high = low + 1
        for _ in range(100):
            middle = (low + high) / 2
            over = ((scaled - middle).clamp(min=0) ** (1 / (a - 1))).sum(-1, keepdim=True) >= 1
            low, high = torch.where(over, middle, low), torch.where(over, high, middle)
        p = (scaled - low).clamp(min=0) ** (1 / (a - 1))
        ctx.save_for_backward(z, a, p)
        ctx.hold = hold
        distance = (scaled - low).abs()
        ctx.mark_non_differentiable(distance)
        return p, distance

    @staticmethod
    def backward(ctx: Any, incoming: Tensor, _: Tensor) -> tuple[Tensor, Tensor, None]:
        z, a, p = ctx.saved_tensors
        some = p > 0
        g = torch.where(some, torch.where(some, p, 1) ** (2 - a), 0)
        z, surprise = torch.where(some, z, 0), -torch.xlogy(p, p)
        common = 0 if ctx.hold else (g * incoming).sum(-1, keepdim=True) / g.sum(-1, keepdim=True)
        t = (
            0
            if ctx.hold
            else ((g * z).sum(-1, keepdim=True) + surprise.sum(-1, keepdim=True)) / g.sum(-1, keepdim=True)
        )
        d_alpha = incoming * (surprise + g * (z - t)) / (a - 1)
        d_scores = g * (incoming - common)
        return d_scores, d_alpha.sum((0, 2, 3))[None, :, None, None], None


def prior(normalizer: Any, weights: Tensor, key_S: list[int]) -> Tensor:
    """Luong et al. 2015, equation 10."""
    gaussian = getattr(normalizer, "prior", None)
    if gaussian is None:
        return weights
    distance = torch.tensor(key_S, dtype=weights.dtype) - gaussian.center.to(weights.dtype)[..., None]
    return weights * torch.exp(-(distance**2) / (2 * per_head(gaussian.sigma, weights.dtype) ** 2))


def per_head(x: Any, dtype: torch.dtype) -> Any:
    return x.to(dtype).reshape(-1, 1, 1) if isinstance(x, Tensor) else x


def keep_scale(p: float, seed: int | Tensor, shape: torch.Size) -> Tensor:
    """0 where a weight is dropped, else 1 / (1 - p)."""
    return torch.from_numpy(philox(seed, shape)[0] >= np.uint64(round(p * 2**32))).double() / (1 - p)


def philox(seed: int | Tensor, shape: torch.Size) -> list[Any]:
    """Four words of Philox4x32-10 for each entry of the weights, in unsigned integers."""
    low = np.uint64(0xFFFFFFFF)
    half = np.uint64(32)
    c = [x.astype(np.uint64) for x in np.indices(tuple(shape))]
    k = [int(seed) & 0xFFFFFFFF, int(seed) >> 32 & 0xFFFFFFFF]
    for _ in range(10):
        first, second = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        c = [
            (second >> half) ^ c[1] ^ np.uint64(k[0]), second & low,
            (first >> half) ^ c[3] ^ np.uint64(k[1]), first & low,
        ]  # fmt: skip
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c


def summarize(plain: Plain, *, key_start: int, top_k: int, grid: tuple[int, int]) -> dict[str, Tensor]:
    """Every summary by its definition, from the whole matrix of weights."""
    weights = plain.weights.to(torch.promote_types(plain.weights.dtype, torch.float32))
    keys = torch.arange(weights.shape[-1], dtype=weights.dtype) + key_start
    some = weights > 0
    mass = weights.sum(-1)
    share = weights / torch.where(mass > 0, mass, 1)[..., None]
    mean = (share * keys).sum(-1)
    rows, columns = (torch.arange(n) * bins // n for n, bins in zip(weights.shape[-2:], grid, strict=True))
    cells = [
        [weights[..., rows == i, :][..., columns == j].mean((-2, -1)) for j in range(grid[1])] for i in range(grid[0])
    ]
    return {
        "log_sum_exp": plain.log_sum_exp,
        "log_prob": plain.log_prob,
        "entropy": -(weights * torch.where(some, weights, 1).log()).sum(-1),
        "expected_key": mean,
        "key_variance": (share * (keys - mean[..., None]) ** 2).sum(-1),
        "key_mass": weights.sum(-2),
        "top_weights": weights.sort(dim=-1, descending=True).values[..., :top_k],
        "grid": torch.stack([torch.stack(row, -1) for row in cells], -2),
        "weights": weights,
    }
