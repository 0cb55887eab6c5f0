"""How fast are BERT-base, GPT-2 and the training of a small GPT, beside the same models of transformers?

Random weights, the same for both, which go through a folder in the hub's layout; each answer is checked first. Theirs
runs on SDPA; ours with its linear maps accelerated, where it does not train.
"""

import argparse
import copy
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from bench_accelerate import gain, race
from common import replaced, spread, worst, write
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel, PreTrainedModel

import regard as rg
from regard.decode.generate import generate
from regard.decode.search import Greedy

PROMPT, WRITTEN = 32, 64  # tokens of the greedy decoding
RATE = 1e-4  # of AdamW: small, so that a few steps stay comparable
CLOSE = 1e-2  # between the losses of two bf16 trainings, after `STEPS` steps
STEPS = 4

Runs = tuple[Callable[[], Tensor], Callable[[], Tensor]]


def moved(model: PreTrainedModel) -> nn.Module:
    """The same model of ours, by way of a folder."""
    with tempfile.TemporaryDirectory() as name:
        model.save_pretrained(Path(name))
        made: nn.Module = rg.load(name).module
        return made.eval()


def ids(vocabulary: int, *shape: int) -> Tensor:
    return torch.randint(0, vocabulary, shape, generator=torch.Generator().manual_seed(1))


def case(what: str, runs: Runs, bar: float, repeats: int, **told: Any) -> dict[str, Any]:
    """One race, theirs against ours."""
    before, after = race(*runs, repeats)
    times = {"transformers": spread(before), "regard": spread(after)}
    return {
        "case": f"{what}: transformers / regard", "unit": "times", "value": gain(before, after), "bar": bar,
        "at_least": True, "times": times, **told,
    }  # fmt: skip


def exact(found: Tensor, theirs: Tensor, truth: Tensor) -> dict[str, float]:
    """Both errors against float64; ours must not be above twice theirs."""
    error, other = worst(found, truth), worst(theirs, truth)
    if error > 2 * other:
        raise SystemExit(f"an error of {error}, theirs {other}: nothing to time")
    return {"error": error, "error_of_transformers": other}


def bert(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """What BERT-base says of texts: each token's state, and the first one's through the pooler."""
    torch.manual_seed(0)
    theirs = BertModel(BertConfig(num_hidden_layers=1) if given.quick else BertConfig()).eval()
    ours, double = rg.accelerate(moved(theirs)), copy.deepcopy(theirs).double()
    for texts, tokens, bar in ((8, 128, 1.8), (4, 512, 2.0)):
        x = ids(theirs.config.vocab_size, texts, tokens // (8 if given.quick else 1))
        told = exact(ours(x).hidden, theirs(x).last_hidden_state, double(x).last_hidden_state)
        runs = (lambda x=x: theirs(x).pooler_output, lambda x=x: ours(x).pooled)
        yield case(f"BERT-base, {texts} x {tokens} tokens, float32", runs, bar, given.repeats, **told)


def gpt(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """GPT-2 of 124 M parameters: prompts read, with the next token's logits and the cache; one text written."""
    torch.manual_seed(0)
    theirs = GPT2LMHeadModel(GPT2Config(n_layer=1) if given.quick else GPT2Config()).eval()
    theirs.generation_config.update(eos_token_id=None, pad_token_id=0)
    ours = rg.accelerate(moved(theirs))
    size = theirs.config.vocab_size
    x = ids(size, 8, 64 if given.quick else 512)

    def prefill() -> Tensor:
        state = ours.start(x[:, :-1])
        return ours.step(x[:, -1:], state)[:, 0]

    def their_prefill() -> Tensor:
        return theirs(x, use_cache=True, logits_to_keep=1).logits[:, 0]

    truth = copy.deepcopy(theirs).double()(x, logits_to_keep=1).logits[:, 0]
    told = exact(prefill(), their_prefill(), truth)
    yield case("GPT-2 124M, prefill, 8 x 512 tokens, float32", (their_prefill, prefill), 1.8, given.repeats, **told)
    del truth
    prompt = ids(size - 1, 1, PROMPT)
    most = 4 if given.quick else WRITTEN

    def decode() -> Tensor:
        return torch.tensor(generate(ours, prompt.tolist(), search=Greedy(), max_length=most)[0][0].tokens)

    def their_decode() -> Tensor:
        return theirs.generate(prompt, max_new_tokens=most, do_sample=False)[0, PROMPT:]

    if not torch.equal(decode(), their_decode()):
        raise SystemExit(f"GPT-2 writes {their_decode().tolist()}, ours {decode().tolist()}: nothing to time")
    what = f"GPT-2 124M, greedy, one text, {WRITTEN} tokens after {PROMPT}, float32"
    yield case(what, (their_decode, decode), 1.25, given.repeats)


def training(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A step of a 6-layer GPT: forward, backward and AdamW, in bf16 by autocast; theirs compiled, ours as it is."""
    torch.manual_seed(0)
    sizes = {"n_embd": 384, "n_layer": 1 if given.quick else 6, "n_head": 6, "vocab_size": 8000, "n_positions": 256}
    config = GPT2Config(**sizes, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, bos_token_id=1, eos_token_id=1)
    theirs = GPT2LMHeadModel(config).train()
    ours = moved(theirs).train()
    x = ids(8000, 2 if given.quick else 16, 257)
    eager = copy.deepcopy(theirs)

    def step(model: nn.Module, logits: Callable[[Tensor], Tensor]) -> Callable[[], Tensor]:
        optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, fused=True)

        def run() -> Tensor:
            optimizer.zero_grad(set_to_none=True)
            with torch.enable_grad(), torch.autocast("cpu", torch.bfloat16):
                loss = functional.cross_entropy(logits(x[:, :-1]).flatten(0, 1), x[:, 1:].flatten())
                loss.backward()
            optimizer.step()
            return loss.detach()

        return run

    compiled = torch.compile(theirs)
    ways = {
        "transformers": step(theirs, lambda x: compiled(x, use_cache=False).logits),
        "transformers, eager": step(eager, lambda x: eager(x, use_cache=False).logits),
        "regard": step(ours, lambda x: ours(x).logits),
    }
    losses = {name: [float(run()) for _ in range(STEPS)][-1] for name, run in ways.items()}
    if abs(losses["regard"] - losses["transformers"]) > CLOSE:
        raise SystemExit(f"the losses after {STEPS} steps are {losses}: nothing to time")
    what = "training step of a GPT, 6 layers of 384, 16 x 256 tokens, bf16"
    told = {"losses": losses, "step": STEPS}
    for name, bar in (("transformers", 1.0), ("transformers, eager", None)):
        title = f"{what}, against {'torch.compile' if bar else 'eager'}"
        yield case(title, (ways[name], ways["regard"]), bar, given.repeats, **told)


PARTS = {"bert": bert, "gpt": gpt, "training": training}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="try the script out, in less than a minute")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="all cores by default")
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--only", choices=PARTS, help="a part's cases; they replace what is written of them")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.quick:
        given.repeats = 2
    with torch.no_grad():
        parts = PARTS.values() if given.only is None else (PARTS[given.only],)
        found = (case for part in parts for case in part(given))
        write("published", replaced("published", found) if given.only and not given.quick else found, quick=given.quick)


if __name__ == "__main__":
    main()
