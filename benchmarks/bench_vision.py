"""Vision Transformers and hard attention beside the same in transformers and in softmax.

A checkpoint of DINOv2's shape (--model) agrees with transformers at several sizes of pictures; its inference and the
training of a small ViT are timed against transformers' on SDPA; hard attention's forward pass against softmax's.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from common import alternate, ratio, replaced, worst, write
from torch.nn import functional

import regard as rg
from regard.lens.token_maps import token_rollout, trace

SIZES = ((224, 224), (280, 280), (518, 392))
CLOSE = 1e-4
REPEATS = 7


def pictures(count: int, height: int, width: int) -> torch.Tensor:
    """Made pixels (B, 3, H, W), normalized."""
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def parity(folder: str) -> Iterator[dict[str, Any]]:
    """The largest difference of the last hidden states, relative to the largest of them."""
    ours, theirs = rg.load(folder).module.eval(), transformers.AutoModel.from_pretrained(folder).eval()
    for height, width in SIZES:
        x = pictures(1, height, width)
        expected = theirs(x).last_hidden_state
        error = worst(ours(x).hidden, expected) / float(expected.abs().max())
        yield {"case": f"DINOv2's ViT-S/14, {height} x {width}: difference from transformers", "unit": "of the largest",
               "value": float(f"{error:.1e}"), "bar": CLOSE}  # fmt: skip


@torch.no_grad()
def inference(folder: str, repeats: int) -> Iterator[dict[str, Any]]:
    """transformers' time over ours, one picture, float32."""
    ours, theirs = rg.load(folder).module.eval(), transformers.AutoModel.from_pretrained(folder).eval()
    rg.accelerate(ours)
    for size in (224, 518):
        x = pictures(1, size, size)
        timed = alternate({"transformers": lambda x=x: theirs(x), "regard": lambda x=x: ours(x)}, repeats)
        value = round(ratio(timed, "transformers", "regard"), 3)
        yield {"case": f"DINOv2's ViT-S/14, {size} x {size}, float32: transformers / regard", "unit": "times",
               "value": value, "bar": None, "at_least": True, **timed}  # fmt: skip


def training(repeats: int) -> dict[str, Any]:
    """transformers' time of a training step over ours: ViT of a million parameters, 64 pictures of 28 x 28, bf16."""
    sizes = {"hidden_size": 128, "num_hidden_layers": 5, "num_attention_heads": 4, "intermediate_size": 512}
    config = transformers.ViTConfig(
        **sizes, image_size=28, patch_size=4, num_labels=10, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    torch.manual_seed(0)
    theirs = transformers.ViTForImageClassification(config)
    with tempfile.TemporaryDirectory() as name:
        theirs.save_pretrained(Path(name))
        ours = rg.load(name).module
    x, labels = pictures(64, 28, 28), torch.arange(64) % 10

    def step(model: Any) -> None:
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(x).logits
        functional.cross_entropy(logits.float(), labels).backward()
        model.zero_grad()

    timed = alternate({"transformers": lambda: step(theirs.train()), "regard": lambda: step(ours.train())}, repeats)
    value = round(ratio(timed, "transformers", "regard"), 3)
    case = "training step of a ViT of 1 M parameters, 64 pictures, bf16: transformers / regard"
    return {"case": case, "unit": "times", "value": value, "bar": 1.2, "at_least": True, **timed}


@torch.no_grad()
def hard(repeats: int) -> Iterator[dict[str, Any]]:
    """Time of hard attention over that of softmax on the same backend."""
    inputs = torch.randn(3, 1, 4, 4096, 64, generator=torch.Generator().manual_seed(0))
    argmax, sample, native = rg.Hard(), rg.Hard(sample=rg.Reinforce()), "by the native kernels"
    for what, where, backend, normalizer, dtype, bar in (
        ("", "on the same backend", "chunked", argmax, torch.float32, None),
        ("", native, "native", argmax, torch.float32, 0.7),
        (", bf16", native, "native", argmax, torch.bfloat16, 0.7),
        (", a sampled key", native, "native", sample, torch.float32, None),
    ):
        name = f"hard attention{what}, 4,096 keys, forward: over softmax {where}"
        query, key, value = inputs.to(dtype)

        def attend(backend: str = backend, **values: Any) -> torch.Tensor:
            return rg.attend(query, key, value, backend=backend, seed=1, **values)  # noqa: B023

        found, expected = attend(normalizer=normalizer), attend("reference", normalizer=normalizer)
        differing = (found != expected).any(-1).float().mean()  # rows whose two largest scores are as close as rounding
        if differing > 1e-3:
            raise SystemExit(f"{name}: another key in {differing:.2%} of the rows")
        runs = {"hard": lambda: attend(normalizer=normalizer), "softmax": attend}  # noqa: B023
        timed = alternate(runs, repeats, time.process_time)  # one thread: other processes do not count
        yield {"case": name, "unit": "x", "value": round(ratio(timed, "hard", "softmax"), 3), "bar": bar, **timed}


@torch.no_grad()
def rolled(folder: str, repeats: int) -> dict[str, Any]:
    """Time of a pass with the rollout of the class token over a plain one, 1,370 tokens."""
    model = rg.load(folder).module.eval()
    x = pictures(1, 518, 518)

    def recorded() -> None:
        with trace(model) as calls:
            model(x)
        token_rollout(calls)

    timed = alternate({"plain": lambda: model(x), "rollout": recorded}, repeats)
    return {"case": "attention rollout of the class token, 1,370 tokens: over a forward pass", "unit": "x",
            "value": round(ratio(timed, "rollout", "plain"), 3), "bar": 2, **timed}  # fmt: skip


def cases(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """All figures that the arguments allow."""
    repeats = 2 if given.quick else REPEATS
    if given.model and given.only is None:
        yield from parity(given.model)
        yield from inference(given.model, repeats)
        yield rolled(given.model, repeats)
    if given.only is None:
        yield training(repeats)
    yield from hard(repeats)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="folder of a checkpoint of DINOv2's shape")
    parser.add_argument("--only", choices=["hard"], help="these cases; they replace what is written of them")
    parser.add_argument("--quick", action="store_true", help="try the script out")
    given = parser.parse_args()
    torch.set_num_threads(1)
    found = cases(given)
    write("vision", replaced("vision", found) if given.only and not given.quick else found, quick=given.quick)


if __name__ == "__main__":
    main()
