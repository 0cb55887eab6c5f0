"""Backend `reference`: dense attention, which defines the meaning of a call, one line per step of the formula.

scores  = score(query, key) + bias          (B, H, L, S), -inf where the pattern hides a key
weights = normalizer(scores) * prior        (B, H, L, S)
output  = dropout(weights) @ value          (B, H, L, V)
"""

from typing import final

import torch
from torch import Tensor

from regard.attention.backends.protocol import Cost
from regard.attention.dropout import keep_scale
from regard.attention.engine.call import Call
from regard.attention.engine.formula import drawn, masked_scores, mix, shield, with_prior
from regard.attention.patterns.pattern import Full
from regard.attention.summary import Frame, RunningStats, SummaryResult, collect, contributions


@final
class Reference:
    """Dense attention by PyTorch operations, for every call. Memory L x S."""

    name = "reference"

    def refusals(self, call: Call) -> list[str]:
        return []

    def cost(self, call: Call) -> Cost:
        batch, heads, num_queries, head_dim = call.query.shape
        pairs = num_queries * call.key.shape[2]
        elements = 2 + call.spec.score.width(head_dim)  # per pair: score, weight and intermediates of the score
        return Cost(pairs, batch * heads * pairs * elements * call.dtype.itemsize)

    def run(self, call: Call) -> tuple[Tensor, SummaryResult | None]:
        spec, dtype = call.spec, call.dtype
        query_BL, key_S = call.positions()
        query, key, value, visible, sees = call.query, call.key, call.value, None, None
        if not isinstance(spec.pattern, Full):
            visible = spec.pattern.visible(query_BL, key_S)
            query, key, value, sees = shield(query, key, value, visible)

        scores_BHLS = masked_scores(spec, query.to(dtype), key.to(dtype), query_BL, key_S, visible, [key_S.shape[0]])
        batch, heads, rows, columns = scores_BHLS.shape
        area = (slice(0, rows), slice(0, columns))
        normalizer = drawn(spec.normalizer, call.seed, batch, heads, area[0], area[1:], scores_BHLS)
        row = normalizer.row_stats(scores_BHLS)
        weights_BHLS = with_prior(spec, normalizer.weights(scores_BHLS, row), query_BL, key_S)
        dropped_BHLS = weights_BHLS
        if spec.dropout and call.seed is not None:
            dropped_BHLS = weights_BHLS * keep_scale(spec.dropout, call.seed, batch, heads, *area, dtype)
        output_BHLV = mix(dropped_BHLS, value.to(dtype))
        if sees is not None:
            output_BHLV = torch.where(sees, output_BHLV, 0)
        output = output_BHLV.to(call.query.dtype)
        if call.summary is None:
            return output, None

        frame = Frame(*area, rows, columns, call.key_start)
        running = None
        if call.summary.merged:
            running = RunningStats(call.summary, batch, heads, rows, weights_BHLS)
            running.add(weights_BHLS, frame)
        log_sum_exp = (row.max + row.offset).squeeze(-1) if call.summary.log_sum_exp else None
        log_prob = normalizer.log_prob(scores_BHLS) if call.summary.log_prob else None
        sums = contributions(call.summary, weights_BHLS, frame)
        return output, collect(call.summary, sums, running, log_sum_exp, log_prob)
