"""Recurrent layers, for whole sentences or one token at a time.

For sentences of different lengths, PyTorch's recurrent layers need packing, whose backward pass on a CPU takes time
quadratic in the length, and under autocast they take ten times as long as in float32. Here the input projections of all
positions are computed at once, and no state is masked: sentences are padded at the end, after all states of interest.
`SequenceLSTM` runs PyTorch's kernel on padded sentences likewise, where neither cells nor single steps are needed.
"""

from typing import final

import torch
from torch import Tensor, nn

from regard.errors import ShapeError
from regard.layers.linear import Linear

Layers = list[tuple[Tensor, Tensor]]  # for each layer: outputs and cells


def reverse(x: Tensor, lengths: Tensor) -> Tensor:
    """Reverse each sentence of (B, S, D) without its padding; reversing twice restores x."""
    position = torch.arange(x.shape[1], device=x.device)
    mirrored = lengths[:, None] - 1 - position
    index = torch.where(mirrored >= 0, mirrored, position)
    return x.gather(1, index[..., None].expand_as(x))


def last(x: Tensor, lengths: Tensor) -> Tensor:
    """Vector at the end of each sentence, (B, D) of (B, S, D); the first vector for an empty sentence."""
    rows = torch.arange(x.shape[0], device=x.device)
    return x[rows, (lengths - 1).clamp(min=0)]


def check_positions(owner: str, x: Tensor) -> None:
    """Raise ShapeError if x (B, L, ...) has no position: a recurrence over none has no last state."""
    if not x.shape[1]:
        raise ShapeError(f"{owner}: got shape {tuple(x.shape)}; expected at least one position (dimension 1)")


@final
class GRU(nn.Module):
    """Gated recurrent unit, optionally with a context vector from attention as a second input.

    With input x, previous state s, context c, and separate linear maps [.]:
        z = sigmoid([x] + [s] + [c])            update gate
        r = sigmoid([x] + [s] + [c])            reset gate
        candidate = tanh([x] + [r s] + [c])
        state = (1 - z) s + z candidate

    PyTorch's GRU resets after the map, r [s], and exchanges z and 1 - z; this one follows the source.

    Args:
        input_dim: size of x.
        hidden_dim: n, size of the state.
        context_dim: size of c; None for no context.

    Source: Cho et al. 2014, arXiv 1406.1078, section 2.3; with a context: Bahdanau et al. 2014, arXiv 1409.0473,
    appendix A.2.2.
    """

    def __init__(self, input_dim: int, hidden_dim: int, *, context_dim: int | None = None) -> None:
        super().__init__()
        self.hidden_dim = hidden_dim
        self.input_proj = Linear(input_dim, 3 * hidden_dim)  # rows: z, r, candidate
        self.context_proj = None if context_dim is None else Linear(context_dim, 3 * hidden_dim, bias=False)
        self.gate_proj = Linear(hidden_dim, 2 * hidden_dim, bias=False)
        self.state_proj = Linear(hidden_dim, hidden_dim, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Reset the parameters: recurrent maps orthogonal (Bahdanau et al., appendix B.1), others Xavier, bias 0."""
        nn.init.xavier_uniform_(self.input_proj.weight)
        nn.init.zeros_(self.input_proj.bias)
        if self.context_proj is not None:
            nn.init.xavier_uniform_(self.context_proj.weight)
        for matrix in (*self.gate_proj.weight.data.split(self.hidden_dim), self.state_proj.weight.data):
            nn.init.orthogonal_(matrix)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the state after each position, from an initial state of 0.

        Args:
            x: (B, L, input_dim).

        Returns:
            (B, L, n).

        Raises:
            ShapeError: no position.
        """
        check_positions("GRU", x)
        state, states = x.new_zeros(x.shape[0], self.hidden_dim), []
        for projected in self.input_proj(x).unbind(1):
            state = self.step(projected, state)
            states.append(state)
        return torch.stack(states, 1)

    def step(self, projected: Tensor, state: Tensor, context: Tensor | None = None) -> Tensor:
        """Compute the next state.

        Args:
            projected: `input_proj` of the input, (..., 3 n), which can be computed for a whole sentence at once.
            state: (..., n).
            context: (..., context_dim), for a unit with a context.

        Returns:
            (..., n).
        """
        n = self.hidden_dim
        if self.context_proj is not None:
            projected = projected + self.context_proj(context)
        gates, inward = projected.split([2 * n, n], -1)
        new, reset = torch.sigmoid(gates + self.gate_proj(state)).split(n, -1)
        candidate = torch.tanh(inward + self.state_proj(reset * state))
        return state + new * (candidate - state)


@final
class LSTM(nn.Module):
    """Multi-layer long short-term memory.

    With input x, previous output h, previous cell c, and separate linear maps [.]:
        i, f, o = sigmoid([x] + [h])
        c = f c + i tanh([x] + [h]),  h = o tanh(c)

    Args:
        input_dim: size of x.
        hidden_dim: n, size of outputs and cells.
        layers: number of layers.
        dropout: dropout module between the layers.
        gate_gain: gain of Xavier initialization of each gate's input map; None for gain 1 over the maps of all gates
            together, whose weights are then half as large.

    Source: Hochreiter and Schmidhuber 1997, "Long Short-Term Memory", with the forget gate of Gers et al. 2000,
    "Learning to Forget"; dropout: Zaremba et al. 2014, arXiv 1409.2329, section 3.2.
    """

    def __init__(
        self, input_dim: int, hidden_dim: int, layers: int, *, dropout: nn.Module, gate_gain: float | None = None
    ) -> None:
        super().__init__()
        self.hidden_dim, self.dropout, self.gate_gain = hidden_dim, dropout, gate_gain
        sizes = [input_dim] + [hidden_dim] * (layers - 1)
        self.input_projs = nn.ModuleList(Linear(size, 4 * hidden_dim) for size in sizes)  # rows: i, f, o, new
        self.state_projs = nn.ModuleList(Linear(hidden_dim, 4 * hidden_dim, bias=False) for _ in sizes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Reset the parameters: recurrent maps orthogonal, others Xavier, bias 1 for the forget gate, else 0."""
        n = self.hidden_dim
        for into, recurrent in zip(self.input_projs, self.state_projs, strict=True):
            for matrix in [into.weight.data] if self.gate_gain is None else into.weight.data.split(n):
                nn.init.xavier_uniform_(matrix, gain=self.gate_gain or 1.0)
            for matrix in recurrent.weight.data.split(n):
                nn.init.orthogonal_(matrix)
            nn.init.zeros_(into.bias)
            nn.init.ones_(into.bias.data[n : 2 * n])

    def forward(self, x: Tensor, state: Layers | None = None) -> tuple[Tensor, Layers]:
        """Compute the outputs of the top layer, and outputs and cells of all layers.

        Args:
            x: (B, L, input_dim).
            state: previous output and cell of each layer, (B, n) each; None for 0.

        Returns:
            Outputs (B, L, n) of the top layer, and for each layer its outputs and cells, (B, L, n) each.

        Raises:
            ShapeError: no position.
        """
        check_positions("LSTM", x)
        if state is None:
            zero = x.new_zeros(x.shape[0], self.hidden_dim)
            state = [(zero, zero)] * len(self.input_projs)
        history = []
        for i, (into, recurrent) in enumerate(zip(self.input_projs, self.state_projs, strict=True)):
            (output, cell), outputs, cells = state[i], [], []
            for projected in into(x if i == 0 else self.dropout(x)).unbind(1):
                gates, inward = (projected + recurrent(output)).split([3 * self.hidden_dim, self.hidden_dim], -1)
                write, keep, read = torch.sigmoid(gates).split(self.hidden_dim, -1)
                cell = keep * cell + write * torch.tanh(inward)
                output = read * torch.tanh(cell)
                outputs.append(output)
                cells.append(cell)
            x = torch.stack(outputs, 1)
            history.append((x, torch.stack(cells, 1)))
        return x, history


@final
class BidirectionalLSTM(nn.Module):
    """Multi-layer bidirectional LSTM; each layer reads the outputs of both directions of the one below.

    Args:
        input_dim: size of x.
        hidden_dim: n, size of outputs and cells of each direction.
        layers: number of layers.
        dropout: dropout module between the layers.
        gate_gain: as for `LSTM`.

    Source: Graves and Schmidhuber 2005, "Framewise phoneme classification with bidirectional LSTM", section 2.
    """

    def __init__(
        self, input_dim: int, hidden_dim: int, layers: int, *, dropout: nn.Module, gate_gain: float | None = None
    ) -> None:
        super().__init__()
        self.dropout = dropout
        sizes = [input_dim] + [2 * hidden_dim] * (layers - 1)
        self.forwards, self.backwards = (
            nn.ModuleList(LSTM(size, hidden_dim, 1, dropout=dropout, gate_gain=gate_gain) for size in sizes)
            for _ in range(2)
        )

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Layers]:
        """Compute the outputs of the top layer, and the last outputs and cells of all layers in both directions.

        Args:
            x: (B, L, input_dim).
            lengths: (B,), number of positions that are not padding.

        Returns:
            Outputs (B, L, 2 n), forward direction first; for each layer its last outputs and cells, (B, 2 n) each.

        Raises:
            ShapeError: no position.
        """
        states: Layers = []
        for i, (forwards, backwards) in enumerate(zip(self.forwards, self.backwards, strict=True)):
            x = x if i == 0 else self.dropout(x)
            ahead, [(_, ahead_cells)] = forwards(x)
            back, [(_, back_cells)] = backwards(reverse(x, lengths))
            output, cell = (
                torch.cat([last(y, lengths) for y in both], -1) for both in ((ahead, back), (ahead_cells, back_cells))
            )
            states.append((output, cell))
            x = torch.cat([ahead, reverse(back, lengths)], -1)
        return x, states


@final
class SequenceLSTM(nn.Module):
    """Bidirectional or forward LSTM layer over whole sequences, by PyTorch's own kernel.

    It keeps no cells, so that it cannot go on from the middle of a sequence; a step takes a fraction of the time that
    it takes in `LSTM`. The backward direction reads each sequence reversed without its padding.

    Args:
        input_dim: size of x.
        hidden_dim: n, size of the outputs of each direction.
        directions: 2, or 1 for the forward direction alone.

    Source: as for `LSTM` and `BidirectionalLSTM`.
    """

    def __init__(self, input_dim: int, hidden_dim: int, *, directions: int = 2) -> None:
        super().__init__()
        self.hidden_dim = hidden_dim
        self.input_weights, self.state_weights, self.biases = (
            nn.ParameterList(torch.empty(4 * hidden_dim, *sizes) for _ in range(directions))  # rows: i, f, new, o
            for sizes in ((input_dim,), (hidden_dim,), ())
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Reset the parameters: recurrent maps orthogonal, others Xavier, bias 1 for the forget gate, else 0."""
        n = self.hidden_dim
        for into, recurrent, bias in zip(self.input_weights, self.state_weights, self.biases, strict=True):
            for matrix in into.data.split(n):
                nn.init.xavier_uniform_(matrix)
            for matrix in recurrent.data.split(n):
                nn.init.orthogonal_(matrix)
            nn.init.zeros_(bias)
            nn.init.ones_(bias.data[n : 2 * n])

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Compute the outputs of all positions, from an initial state of 0.

        Args:
            x: (B, L, input_dim), finite in its padding too.
            lengths: (B,), number of positions that are not padding.

        Returns:
            (B, L, directions n), the forward direction first.

        Raises:
            ShapeError: no position.
        """
        check_positions("SequenceLSTM", x)
        outputs = [self._run(x, 0)]
        if len(self.biases) > 1:
            outputs.append(reverse(self._run(reverse(x, lengths), 1), lengths))
        return torch.cat(outputs, -1)

    def _run(self, x: Tensor, direction: int) -> Tensor:
        weights = [part[direction] for part in (self.input_weights, self.state_weights, self.biases)]
        weights.append(torch.zeros_like(weights[-1]))
        zero = x.new_zeros(1, len(x), self.hidden_dim)
        output: Tensor = torch.lstm(x, (zero, zero), weights, True, 1, 0.0, self.training, False, True)[0]
        return output
