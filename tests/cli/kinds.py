"""Every kind of model that a verb may be given, each a tiny one on disk; and what is no model."""

import functools
import json
from collections.abc import Callable
from pathlib import Path

import regard as rg
from regard.checkpoints.folder import save
from regard.data.word_tokenizer import WordTokenizer
from regard.models.bert import Bert, BertConfig
from regard.models.bert_names import to_bert
from regard.models.llama import Llama, LlamaConfig
from regard.models.llama_names import to_llama
from regard.models.marian import to_marian
from regard.models.pointer_generator import PointerGenerator, PointerGeneratorConfig
from regard.models.registry import MODELS, build
from regard.models.seq2seq import Vocabulary
from regard.models.t5_names import to_t5
from regard.models.text_classifier import TextClassifier, TextClassifierConfig
from regard.tasks.classify import Classifier
from regard.tasks.summarize import Summarizer
from tests.checkpoints.language_models import byte_level, gpt2_folder, own_completer
from tests.checkpoints.made import tokenizer
from tests.checkpoints.published import write_bert, write_hub
from tests.data.mixed_text import trained
from tests.train.made import SMALL

Builder = Callable[[Path], None]  # writes the files of a model into a folder that is there
TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "source.spm",
    "target.spm",
)
SIZES = {"embed_dim": 20, "num_heads": 2, "ffn_dim": 28, "encoder_layers": 1, "decoder_layers": 1}
PIECES = 700  # of the SentencePiece vocabularies


def own(name: str) -> Builder:
    """A translator as `regard train` writes it."""

    def write(folder: Path) -> None:
        config = MODELS[name][0](vocabulary=Vocabulary(size=tokenizer().size), **SMALL.get(name, {}))
        save(folder, build(config), tokenizer(), {"training": {"max_tokens": 64}}, task="translate")

    return write


def classifier(folder: Path) -> None:
    words = Vocabulary(size=tokenizer().size)
    sizes = {"embed_dim": 8, "hidden_dim": 8, "hops": 2, "align_dim": 4}
    module = TextClassifier(TextClassifierConfig(vocabulary=words, num_labels=2, **sizes))
    Classifier(module, tokenizer(), {"labels": ["the mat .", "a mat ."]}).save(folder)


def summarizer(folder: Path) -> None:
    words = WordTokenizer.train(["the cat sat .", "a mat ."], vocab_size=12)
    config = PointerGeneratorConfig(vocabulary=Vocabulary(size=words.size), embed_dim=8, hidden_dim=8)
    Summarizer(PointerGenerator(config), words).save(folder)


def distilbert(folder: Path) -> None:
    write_bert(folder, family="distilbert", num_token_types=None)


def roberta(folder: Path) -> None:
    words = json.loads(byte_level()._subwords.to_str())["model"]
    marks = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    vocabulary = [*marks, *sorted(words["vocab"], key=words["vocab"].get)]
    config = BertConfig(
        family="roberta", vocab_size=len(vocabulary), embed_dim=12, num_layers=1, num_heads=3, ffn_dim=20,
        max_positions=40, num_token_types=1, pad=1,
    )  # fmt: skip
    write_hub(folder, *to_bert(Bert(config)))
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(vocabulary)}))
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in words["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")


def xlm_roberta(folder: Path) -> None:
    size = PIECES + 2  # four marks for the model's three, and the mask
    config = BertConfig(
        family="xlm-roberta", vocab_size=size, embed_dim=12, num_layers=1, num_heads=3, ffn_dim=20,
        max_positions=40, num_token_types=1, pad=1,
    )  # fmt: skip
    write_hub(folder, *to_bert(Bert(config)))
    (folder / "sentencepiece.bpe.model").write_bytes(pieces())


def sentence_encoder(folder: Path) -> None:
    """As the sentence-transformers package writes it: without a head that finds masked words."""
    write_bert(folder, masked_words=False, pooler=True)
    steps = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    listed = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(steps)
    ]
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 12, "pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))


def gpt2(folder: Path) -> None:
    gpt2_folder(folder)


def llama(family: str) -> Builder:
    more = {"llama": {}, "mistral": {"windows": (3,)}, "qwen2": {"projection_bias": True}}

    def write(folder: Path) -> None:
        words = Vocabulary(size=byte_level().size, pad=0, bos=0, eos=0)
        sizes = {"embed_dim": 16, "num_heads": 4, "num_kv_heads": 2, "ffn_dim": 24, "num_layers": 1, "max_length": 80}
        fields, state = to_llama(Llama(LlamaConfig(vocabulary=words, **sizes, **more[family])))
        write_hub(folder, {**fields, "model_type": family}, state)
        byte_level().save(folder / "tokenizer.json")
        (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|endoftext|>"}))

    return write


@functools.cache
def pieces(**options: int) -> bytes:
    return trained(vocab_size=PIECES, **options)


def marian(folder: Path) -> None:
    import sentencepiece

    model = pieces()
    for name in ("source.spm", "target.spm"):
        (folder / name).write_bytes(model)
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    words = ["</s>", "<unk>", *(processor.id_to_piece(i) for i in range(3, PIECES)), "<pad>"]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    vocabulary = Vocabulary(size=len(words), pad=len(words) - 1, bos=len(words) - 1, eos=0)
    write_hub(folder, *to_marian(rg.Transformer(rg.TransformerConfig(vocabulary=vocabulary, **SIZES))))


def t5(folder: Path) -> None:
    vocabulary = Vocabulary(size=PIECES + 20, pad=0, bos=0, eos=1)
    write_hub(folder, *to_t5(rg.T5(rg.T5Config(vocabulary=vocabulary, head_dim=5, **SIZES))))
    (folder / "spiece.model").write_bytes(pieces(pad_id=0, eos_id=1, unk_id=2, bos_id=-1))
    (folder / "tokenizer_config.json").write_text(json.dumps({"extra_ids": 7, "eos_token": "</s>"}))


def saved(write: Builder) -> Builder:
    """A published checkpoint, loaded and saved as a folder of regard's own."""

    def again(folder: Path) -> None:
        published = folder / "published"
        published.mkdir()
        write(published)
        rg.load(published).save(folder)

    return again


def without_tokenizer(write: Builder) -> Builder:
    def strip(folder: Path) -> None:
        write(folder)
        for name in TOKENIZER_FILES:
            (folder / name).unlink(missing_ok=True)

    return strip


# By the name that the table of docs/verbs.md has.
KINDS: dict[str, Builder] = {
    **{f"`{name}` that `regard train` made": own(name) for name in SMALL},
    "a `GPT` of one's own": lambda folder: own_completer().save(folder),
    "a classifier of one's own": classifier,
    "a summarizer of one's own": summarizer,
    "BERT": write_bert,
    "DistilBERT": distilbert,
    "RoBERTa": roberta,
    "XLM-RoBERTa": xlm_roberta,
    "an encoder of sentence-transformers": sentence_encoder,
    "Marian": marian,
    "T5": t5,
    "GPT-2": gpt2,
    "Llama": llama("llama"),
    "Mistral": llama("mistral"),
    "Qwen2": llama("qwen2"),
    "BERT, saved by regard": saved(write_bert),
    "T5, saved by regard": saved(t5),
    "GPT-2, saved by regard": saved(gpt2),
    "`transformer` without a tokenizer": without_tokenizer(own("transformer")),
    "BERT without a tokenizer": without_tokenizer(write_bert),
    "Marian without a tokenizer": without_tokenizer(marian),
    "T5 without a tokenizer": without_tokenizer(t5),
    "GPT-2 without a tokenizer": without_tokenizer(gpt2),
}


def without_weights(folder: Path) -> None:
    own("transformer")(folder)
    (folder / "model.safetensors").unlink()


def cut_off(name: str) -> Builder:
    def write(folder: Path) -> None:
        own("transformer")(folder)
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])

    return write


def changed(write: Builder, **fields: object) -> Builder:
    """A folder whose config.json says something else."""

    def change(folder: Path) -> None:
        write(folder)
        config = {**json.loads((folder / "config.json").read_text()), **fields}
        (folder / "config.json").write_text(json.dumps(config))

    return change


def pickled(folder: Path) -> None:
    write_bert(folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def of_others(folder: Path) -> None:
    (folder / "config.json").write_text("{}")


# What loads in no verb, by the same kind of name.
NO_MODELS: dict[str, Builder] = {
    "a run without weights yet": without_weights,
    "weights that are cut off": cut_off("model.safetensors"),
    "a tokenizer that is cut off": cut_off("tokenizer.json"),
    "a configuration that is cut off": cut_off("config.json"),
    "a configuration of something else": of_others,
    "a family that is not known": changed(write_bert, model_type="albert"),
    "a format of a later version": changed(own("transformer"), format=2),
    "weights of other sizes": changed(write_bert, hidden_size=24),
    "pickled weights": pickled,
    "an empty folder": lambda folder: None,
}
