"""First examples of other viewers of attention beside the same by the lens: lines of code, and size of the page.

BertViz's head view of "The cat sat on the mat", inseq's attribution of a translation by attention, and Captum's
integrated gradients of a classifier. Each runs as its own documentation shows it, on MiniLM and on a random Marian
model, where it can be imported (bertviz, inseq, captum); what had to be changed is told in "needed".
"""

import argparse
import contextlib
import inspect
import io
import json
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import sentencepiece
import torch
import transformers
from common import minilm, write

import regard as rg
from regard.lens.attribute import Explained, attributions, trust
from regard.lens.page import page

SENTENCE = "The cat sat on the mat"
STEPS = 50


class Shown(NamedTuple):
    """What an example showed."""

    html: str | None
    needed: str  # what its published form needs changed, or ""


def bertviz(encoder: str, marian: str) -> Shown:
    """https://github.com/jessevig/bertviz, "Head View / Model View"; in transformers 5 its outputs[-1] is empty."""
    from bertviz import head_view

    tokenizer = transformers.AutoTokenizer.from_pretrained(encoder)
    model = transformers.AutoModel.from_pretrained(encoder, output_attentions=True, attn_implementation="eager")
    inputs = tokenizer.encode(SENTENCE, return_tensors="pt")
    outputs = model(inputs)
    attention = outputs.attentions
    tokens = tokenizer.convert_ids_to_tokens(inputs[0])
    html = head_view(attention, tokens, html_action="return")
    return Shown(html.data, "outputs.attentions instead of outputs[-1]; eager attention")


def lens_for_bertviz(encoder: str, marian: str) -> Shown:
    """The same by the lens."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(encoder)
    model = transformers.AutoModel.from_pretrained(encoder)
    inputs = tokenizer.encode(SENTENCE, return_tensors="pt")
    with torch.no_grad(), rg.record(model) as recording:
        model(inputs)
    html = page(recording.view(tokenizer.convert_ids_to_tokens(inputs[0])))
    return Shown(html, "")


def inseq(encoder: str, marian: str) -> Shown:
    """https://github.com/inseq-team/inseq, "Feature attribution", with the method "attention"."""
    import inseq

    model = inseq.load_model(marian, "attention")
    out = model.attribute(SENTENCE, generation_args={"max_new_tokens": 8})
    html = out.show(return_html=True, display=False)
    return Shown(html, "")


def lens_for_inseq(encoder: str, marian: str) -> Shown:
    """The same by the lens."""
    model = rg.load(marian)
    alignment = model.see(SENTENCE, max_length=8)
    html = page(alignment.view())
    return Shown(html, "")


def captum(encoder: str, marian: str) -> Shown:
    """https://captum.ai, the tutorial of BERT with LayerIntegratedGradients, without its plots."""
    from captum.attr import LayerIntegratedGradients

    tokenizer = transformers.AutoTokenizer.from_pretrained(encoder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(encoder).eval()
    inputs = tokenizer.encode(SENTENCE, return_tensors="pt")
    label = int(model(inputs).logits[0].argmax())
    baseline = torch.full_like(inputs, tokenizer.pad_token_id)
    baseline[:, [0, -1]] = inputs[:, [0, -1]]
    gradients = LayerIntegratedGradients(lambda ids: model(ids).logits.softmax(-1)[:, label], model.bert.embeddings)
    scores = gradients.attribute(inputs, baselines=baseline, n_steps=STEPS).sum(-1)
    assert scores.shape == inputs.shape
    return Shown(None, "")


def lens_for_captum(encoder: str, marian: str) -> Shown:
    """The same by the lens: six methods, and how faithful each is."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(encoder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(encoder).eval()
    ids = tokenizer.encode(SENTENCE)
    label = int(model(torch.tensor([ids])).logits[0].argmax())
    explained = Explained(model, ids, label, frozenset({0, len(ids) - 1}))
    scores = attributions(explained)
    trust(explained, scores)
    return Shown(None, "")


def lines(example: Callable[..., Shown]) -> int:
    """Lines of an example's code, without its signature, docstring and return."""
    source = inspect.getsource(example).partition('"""\n')[2]
    return sum(bool(line.strip()) for line in source.splitlines()) - 1


def marian_folder(folder: Path) -> str:
    """A Marian checkpoint with random weights."""
    text = "\n".join(file.read_text(encoding="utf-8") for file in sorted(Path("docs").glob("*.md"))[:12])
    data = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text.splitlines()), model_writer=data, vocab_size=500, minloglevel=2
    )
    (folder / "source.spm").write_bytes(data.getvalue())
    (folder / "target.spm").write_bytes(data.getvalue())
    processor = sentencepiece.SentencePieceProcessor(model_proto=data.getvalue())
    pieces = [processor.id_to_piece(i) for i in range(3, len(processor))]
    vocabulary = {piece: i for i, piece in enumerate(["</s>", "<unk>", *pieces, "<pad>"])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    sizes = {"d_model": 64, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 128, "decoder_ffn_dim": 128}
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4}
    pad = len(vocabulary) - 1
    config = transformers.MarianConfig(
        vocab_size=len(vocabulary), **sizes, **heads, pad_token_id=pad, decoder_start_token_id=pad, eos_token_id=0,
        forced_eos_token_id=0, bos_token_id=0, scale_embedding=True, max_position_embeddings=64,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.MarianMTModel(config).save_pretrained(folder)
    tokenizer = {"source_lang": "en", "target_lang": "it", "tokenizer_class": "MarianTokenizer", "model_max_length": 64}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    return str(folder)


EXAMPLES: dict[str, tuple[Callable[..., Shown], Callable[..., Shown]]] = {
    "BertViz, head view of MiniLM": (bertviz, lens_for_bertviz),
    "inseq, attention of a Marian model": (inseq, lens_for_inseq),
    "Captum, integrated gradients of a classifier": (captum, lens_for_captum),
}


def cases(marian: str) -> Iterator[dict[str, Any]]:
    """Each example by its own library and by the lens."""
    for name, examples in EXAMPLES.items():
        for who, example in zip(("peer", "lens"), examples, strict=True):
            start = time.perf_counter()
            try:
                with contextlib.redirect_stdout(io.StringIO()):
                    shown = example(minilm(), marian)
            except (AttributeError, ImportError, KeyError, RuntimeError, TypeError, ValueError) as error:
                about = f"{type(error).__name__}: {' '.join(str(error).split()):.120}"
                yield {"case": f"{name}: {who}", "unit": "failed", "value": 1, "bar": None, "error": about}
                continue
            seconds = time.perf_counter() - start
            links = re.findall(r"(?:src|href)=[\"']https?:|require\(|cdn", shown.html or "")
            about = {"needed": shown.needed, "seconds": round(seconds, 2), "network": bool(links)}
            yield {"case": f"{name}: {who}", "unit": "lines", "value": lines(example), "bar": None, **about}
            if shown.html is not None:
                size = round(len(shown.html.encode()) / 1024, 1)
                yield {"case": f"{name}: {who}", "unit": "KiB of HTML", "value": size, "bar": None}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="try the script out")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        write("viewers", cases(marian_folder(Path(name))), quick=given.quick)


if __name__ == "__main__":
    main()
