"""A minimal way to train a model on strings made as they are needed, and to see what it does with others."""

import time

import torch
from torch import Tensor, nn
from torch.nn import functional

import regard as rg
from regard.layers.attention_module import AttentionModule
from regard.models.seq2seq import Seq2Seq

LETTERS, FIRST = 12, 3  # tokens 3 ... 14; 0, 1 and 2 are pad, bos and eos
N = FIRST + LETTERS
SHORTEST, LONGEST = 4, 8


def held_out(strings: Tensor) -> Tensor:
    """One in eight strings, which training never sees."""
    weights = torch.arange(1, strings.shape[1] + 1)
    return ((strings * weights).sum(1) * 2654435761 >> 7) % 8 == 0


def draw(count: int, length: int, unseen: bool) -> Tensor:
    """Strings (count, length) of either side."""
    strings = torch.randint(FIRST, N, (16 * count, length))
    return strings[held_out(strings) == unseen][:count]


def ended(strings: Tensor) -> Tensor:
    return functional.pad(strings, (0, 1), value=2)


def target_of(strings: Tensor, task: str) -> Tensor:
    return strings.flip(1) if task == "reverse" else strings


def train(model: Seq2Seq, task: str, seconds: float, rate: float) -> int:
    """Adam on batches of one length each, until greedy decoding makes no mistake or the CPU time is up; the steps."""
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    start, step = time.process_time(), 0
    while time.process_time() - start < seconds:
        model.train()
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, (step + 1) / 50)
        source = draw(64, int(torch.randint(SHORTEST, LONGEST + 1, ())), unseen=False)
        target = target_of(source, task)
        logits = model(ended(source), functional.pad(target, (1, 0), value=1)).logits
        loss = functional.cross_entropy(logits.flatten(0, 1), ended(target).flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        if step % 50 == 0 and loss < 0.05 and exact(model, task, 100, unseen=False) == 1:
            break
    return step


@torch.inference_mode()
def greedy(model: Seq2Seq, source: Tensor) -> Tensor:
    """The most likely tokens, one after the other: (B, LONGEST + 1)."""
    model.eval()
    state, tokens = model.start(model.encode(source)), torch.ones(len(source), 1, dtype=torch.int64)
    found = []
    for _ in range(LONGEST + 1):
        tokens = model.step(tokens, state).argmax(-1)
        found.append(tokens)
    return torch.cat(found, 1)


def exact(model: Seq2Seq, task: str, count: int, unseen: bool = True) -> float:
    """The share of strings of all lengths that come out right, their end included."""
    right = []
    for length in range(SHORTEST, LONGEST + 1):
        strings = draw(count, length, unseen)
        right.append((greedy(model, ended(strings))[:, : length + 1] == ended(target_of(strings, task))).all(1))
    return float(torch.cat(right).float().mean())


@torch.inference_mode()
def aligned(model: Seq2Seq, task: str, count: int = 100) -> float:
    """The share of target letters whose attention, the mean over layers and heads, is largest at their source."""
    model.eval()
    right = []
    for length in range(SHORTEST, LONGEST + 1):
        strings = draw(count, length, unseen=True)
        found = cross_attention(model, ended(strings), functional.pad(target_of(strings, task), (1, 0), value=1))
        true = torch.arange(length).flip(0) if task == "reverse" else torch.arange(length)
        right.append((found[:, :length].argmax(-1) == true).flatten())
    return float(torch.cat(right).float().mean())


def cross_attention(model: Seq2Seq, source: Tensor, target: Tensor) -> Tensor:
    """Where each target token looked: (B, T, S)."""
    seen: dict[str, list[Tensor]] = {}
    hooks = []
    for name, module in model.named_modules():
        if isinstance(module, AttentionModule) and name.endswith("cross_attention"):
            kept = seen.setdefault(name, [])

            def take(module: nn.Module, inputs: object, output: tuple, kept: list[Tensor] = kept) -> Tensor:
                kept.append(output[1].weights.mean(1))
                return output[0]

            hooks.append(module.register_forward_pre_hook(_ask, with_kwargs=True))
            hooks.append(module.register_forward_hook(take))
    model(source, None, target)
    for hook in hooks:
        hook.remove()
    return torch.stack([torch.cat(parts, 1) for parts in seen.values()]).mean(0)


def _ask(module: nn.Module, inputs: object, options: dict) -> tuple:
    return inputs, {**options, "summary": rg.Summary(weights=True)}
