"""The operator at work: a pattern, a call with a summary, its plan, a long sequence with gradients, and an attention
that learns. Everything is computed and measured now, in under a minute on two cores.
"""

import resource
import sys
import time

import torch
from torch import Tensor, nn

import regard as rg


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)  # the tensors of most parts are too small for more
    show_pattern()
    show_summary()
    show_long_sequence()
    learn_to_reverse()


def title(text: str) -> None:
    print(f"\n{text}\n{'-' * len(text)}", flush=True)


def show_pattern() -> None:
    title("A pattern: BigBird, from three")
    random_blocks = rg.RandomBlocks(seed=4, length=24, count=1, block_size=2)
    pattern = rg.SlidingWindow(left=1, right=1) | rg.GlobalTokens([0]) | random_blocks
    print(pattern)
    print(pattern.draw(queries=24, keys=24))
    print(f"density {pattern.density(queries=24, keys=24):.3f}")


def show_summary() -> None:
    title("A call, and what may be asked for without the matrix of weights")
    length = 4096
    angle = torch.arange(length) * (2 * torch.pi / length)
    points = torch.stack([angle.cos(), angle.sin()], -1).expand(1, 1, length, 2)
    score = rg.Dot(scale=8.0)
    asked = rg.Summary(entropy=True, expected_key=True, top_k=3, grid=(12, 24))
    _, result = rg.attend(points, points.flip(2), points, score=score, summary=asked)
    print(f"{length} points of a circle; each looks at its mirror image. The whole map, averaged:")
    print(rg.shade(result.grid[0, 0]))
    row = 2000
    top = ", ".join(f"{k}" for k in result.top_keys[0, 0, row].tolist())
    print(
        f"row {row}: entropy {result.entropy[0, 0, row]:.2f} nats, expected key {result.expected_key[0, 0, row]:.0f}, "
        f"largest weights at {top}"
    )
    print("\nThe plan of that call:")
    print(rg.plan(points, points.flip(2), points, score=score, summary=asked).explain())


def show_long_sequence() -> None:
    length, heads, size, left = 16_384, 4, 64, 256
    title(f"A causal window of {left} over {length} tokens, with gradients, measured now")
    query, key, value = torch.randn(3, 1, heads, length, size)
    inputs = [x.clone().requires_grad_() for x in (query, key, value)]
    pattern = rg.Causal() & rg.SlidingWindow(left=left)
    rg.attend(*(x[:, :, :512] for x in inputs), pattern=pattern, backend="chunked").sum().backward()  # warm-up
    before, start = peak_mib(), time.perf_counter()
    output = rg.attend(*inputs, pattern=pattern, backend="chunked")
    middle = time.perf_counter()
    output.square().mean().backward()
    stop = time.perf_counter()
    kept = 4 * output.nbytes / 2**20  # the output and three gradients
    print(f"forward {middle - start:.1f} s, backward {stop - middle:.1f} s, one thread, float32")
    print(f"memory rose by {peak_mib() - before:.0f} MiB, of which output and gradients {kept:.0f} MiB")
    print(f"one matrix of weights for {heads} heads would take {heads * length**2 * 4 / 2**20:,.0f} MiB")


def peak_mib() -> float:
    """The most memory that this process has had so far, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10  # bytes there, KiB here


LENGTH, WORDS, SIZE, BATCH, STEPS = 12, 16, 32, 32, 300


class Reverser(nn.Module):
    """Writes a sequence backward: an encoder of single tokens, and Bahdanau's attention from each output position.

    At each step the only way from the input to the output is the attention, so it has to find the right token.
    """

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, SIZE)
        self.places = rg.LearnedPositions(LENGTH, SIZE)  # of the input
        self.steps = rg.LearnedPositions(LENGTH, SIZE)  # of the output
        self.query_proj, self.key_proj = nn.Linear(SIZE, SIZE), nn.Linear(SIZE, SIZE, bias=False)
        self.vector = nn.Parameter(torch.randn(SIZE) / SIZE**0.5)
        self.readout = nn.Linear(SIZE, WORDS)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (batch, steps, words) and weights (batch, 1, steps, places) for tokens (batch, places)."""
        words = self.words(tokens)
        query = self.query_proj(self.steps(torch.zeros_like(words)))
        key = self.key_proj(self.places(words))
        output, result = rg.attend(
            query[:, None],
            key[:, None],
            words[:, None],
            score=rg.Additive(self.vector),
            summary=rg.Summary(weights=True),
        )
        return self.readout(output[:, 0]), result.weights


def learn_to_reverse() -> None:
    title(f"Learning to write {LENGTH} random tokens backward, from nothing, by Bahdanau's attention")
    model = Reverser()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    start = time.perf_counter()
    maps, shown = [], torch.randint(WORDS, (1, LENGTH))
    for step in range(STEPS + 1):
        if step % (STEPS // 10) == 0:
            aligned, right = accuracy(model)
            print(
                f"step {step:3d}  largest weight on the true token {aligned:6.1%}  tokens right {right:6.1%}  "
                f"{time.perf_counter() - start:4.1f} s",
                flush=True,
            )
        if step in (STEPS // 3, STEPS // 2, STEPS):
            maps.append(rg.shade(model(shown)[1][0, 0]).splitlines())
        tokens = torch.randint(WORDS, (BATCH, LENGTH))
        logits, _ = model(tokens)
        optimizer.zero_grad()
        nn.functional.cross_entropy(logits.flatten(0, 1), tokens.flip(1).flatten()).backward()
        optimizer.step()
    print(f"\nIts attention for a new sequence, after {STEPS // 3}, {STEPS // 2} and {STEPS} steps:")
    print("a line for each output step, a column for each input token.")
    for lines in zip(*maps, strict=True):
        print("   ".join(lines))


@torch.no_grad()
def accuracy(model: Reverser) -> tuple[float, float]:
    """On new sequences: how often the largest weight is on the true token, and how often the output is right."""
    tokens = torch.randint(WORDS, (256, LENGTH))
    logits, weights = model(tokens)
    aligned = weights[:, 0].argmax(-1) == torch.arange(LENGTH - 1, -1, -1)
    return aligned.float().mean().item(), (logits.argmax(-1) == tokens.flip(1)).float().mean().item()


if __name__ == "__main__":
    main()
