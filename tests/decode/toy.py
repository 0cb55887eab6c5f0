"""A toy model with few enough targets for exhaustive search, and plain implementations of the searches."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from regard.decode.search import Beam, Hypothesis
from regard.models.seq2seq import Memory, Seq2Seq, State, Vocabulary


class ToyState(State):
    """A recurrent state for each hypothesis, (B, K, D)."""

    def __init__(self, states: Tensor) -> None:
        self.states = states[:, None]
        self.reordered, self.sizes = 0, [states.shape[0]]  # calls of reorder; batch sizes after each `keep`

    def reorder(self, parents: Tensor) -> None:
        self.states = torch.stack([state[row] for state, row in zip(self.states, parents, strict=True)])
        self.reordered += 1

    def keep(self, sentences: Tensor) -> None:
        self.states = self.states[sentences]
        self.sizes.append(len(sentences))


class Toy(Seq2Seq):
    """A recurrent model with random weights, whose logits depend on the source and on all tokens so far.

    `patience` is what the logit of `eos` lacks at first; it grows with each token, so that targets end.
    """

    def __init__(self, size: int = 5, seed: int = 0, *, spread: float = 2.0, patience: float = 0.0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.vocabulary = Vocabulary(size=size)
        self.tokens = nn.Parameter(torch.randn(size, 8, generator=generator))
        self.turn = nn.Parameter(torch.randn(8, 8, generator=generator) / 3)
        self.out = nn.Parameter(spread * torch.randn(8, size, generator=generator))
        self.patience = patience
        self.states: list[ToyState] = []
        self.steps: list[tuple[int, ...]] = []

    def encode(self, inputs: Tensor, lengths: Tensor | None = None) -> Memory:
        lengths = self.source_lengths(inputs, lengths)
        mask = (torch.arange(inputs.shape[1]) < lengths[:, None])[:, :, None]
        positions = torch.arange(1, inputs.shape[1] + 1)[:, None]
        sums = (self.tokens[inputs] * mask / positions).sum(1, keepdim=True)
        return Memory(sums, lengths)

    def decode(self, targets: Tensor, memory: Memory) -> Tensor:
        state = self.start(memory)
        return torch.cat([self.advance(token, state) for token in targets.split(1, 1)], 1)

    @property
    def projection(self) -> Any:
        return self

    def as_called(self) -> Any:
        return self

    def logits(self, hidden: Tensor) -> Tensor:
        logits = hidden[..., :-1].tanh() @ self.out
        logits[..., self.vocabulary.eos] += hidden[..., -1] - self.patience
        return logits

    def start(self, memory: Memory) -> ToyState:
        state = ToyState(torch.cat((memory.states[:, 0], torch.zeros(len(memory.lengths), 1)), 1))
        self.states.append(state)
        return state

    def advance(self, tokens: Tensor, state: State) -> Tensor:
        assert isinstance(state, ToyState)
        assert tokens.shape == state.states.shape[:2]
        self.steps.append(tuple(tokens.shape))
        hidden = state.states[..., :-1] @ self.turn + self.tokens[tokens]
        state.states = torch.cat((hidden, state.states[..., -1:] + 0.3), -1)
        return state.states


def log_probabilities(model: Seq2Seq, source: Sequence[int], target: Sequence[int]) -> Tensor:
    """Log-probabilities of the token after each prefix of a target, (T + 1, N)."""
    vocabulary = model.vocabulary
    with torch.inference_mode():
        output = model(torch.tensor([[*source, vocabulary.eos]]), None, torch.tensor([[vocabulary.bos, *target]]))
        return output.logits[0].float().log_softmax(1)


def total(model: Seq2Seq, source: Sequence[int], tokens: Sequence[int]) -> float:
    """The log-probability of these target tokens."""
    rows = log_probabilities(model, source, tokens[:-1])
    return float(rows.gather(1, torch.tensor(tokens)[:, None]).sum())


def greedy(model: Seq2Seq, source: Sequence[int], limit: int) -> list[int]:
    """Greedy search that runs the model on the whole target at each step."""
    target: list[int] = []
    while len(target) < limit:
        token = int(log_probabilities(model, source, target)[-1].argmax())
        if token == model.vocabulary.eos:
            break
        target.append(token)
    return target


def every_target(model: Seq2Seq, limit: int) -> Iterator[list[int]]:
    """All targets that end with eos within the limit, and all of that length without eos."""
    eos = model.vocabulary.eos
    others = [token for token in range(model.vocabulary.size) if token != eos]
    for length in range(limit):
        yield from ([*tokens, eos] for tokens in itertools.product(others, repeat=length))
    yield from (list(tokens) for tokens in itertools.product(others, repeat=limit))


def exhaustive(model: Seq2Seq, source: Sequence[int], limit: int, penalty: float) -> list[Hypothesis]:
    """Every target, best first."""
    eos = model.vocabulary.eos
    hypotheses = [
        Hypothesis(
            [token for token in tokens if token != eos],
            total(model, source, tokens) / len(tokens) ** penalty,
            tokens[-1] == eos,
        )
        for tokens in every_target(model, limit)
    ]
    return sorted(hypotheses, key=lambda hypothesis: -hypothesis.score)


def plain_beam(model: Seq2Seq, source: Sequence[int], limit: int, search: Beam) -> list[Hypothesis]:
    """The rules in `Beam`'s docstring, one sentence and one hypothesis at a time."""
    eos, size = model.vocabulary.eos, search.size
    beams: list[tuple[float, list[int]]] = [(0.0, [])]
    finished: list[Hypothesis] = []
    for length in range(1, limit + 1):
        score: Callable[[float], float] = lambda value, n=length: value / n**search.length_penalty  # noqa: E731
        rows = [(value, tokens, log_probabilities(model, source, tokens)[-1]) for value, tokens in beams]
        candidates = [(value + float(x), tokens, i) for value, tokens, row in rows for i, x in enumerate(row)]
        candidates = sorted(candidates, key=lambda candidate: -candidate[0])[: 2 * size]
        for value, tokens, token in candidates[:size]:
            if token == eos:
                finished.append(Hypothesis(tokens, score(value), True))
            elif length == limit:
                finished.append(Hypothesis([*tokens, token], score(value), False))
        finished = sorted(finished, key=lambda hypothesis: -hypothesis.score)[:size]
        beams = [(value, [*tokens, token]) for value, tokens, token in candidates if token != eos][:size]
        if not beams or (len(finished) == size and score(beams[0][0]) <= finished[-1].score):
            break
    return finished[: search.n_best]


def same(actual: Sequence[Hypothesis], expected: Sequence[Hypothesis]) -> bool:
    """Whether tokens and `finished` are equal, and scores equal up to rounding."""
    return [(x.tokens, x.finished) for x in actual] == [(x.tokens, x.finished) for x in expected] and all(
        math.isclose(x.score, y.score, rel_tol=1e-4, abs_tol=1e-4) for x, y in zip(actual, expected, strict=True)
    )
