"""The families of published checkpoints, by the `model_type` of their config.json."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, final

from torch import Tensor, nn

from regard.models import bert_names, gpt, llama_names, marian, pegasus, t5_names, vit_names
from regard.models.bert import Bert
from regard.models.bert_names import from_bert, to_bert
from regard.models.gpt import GPT, from_gpt2, to_gpt2
from regard.models.llama import Llama
from regard.models.llama_names import from_llama, to_llama
from regard.models.marian import from_marian
from regard.models.pegasus import from_pegasus, to_published
from regard.models.published import Fields
from regard.models.t5 import T5
from regard.models.t5_names import from_t5, to_t5
from regard.models.transformer import Transformer
from regard.models.vit import ViT
from regard.models.vit_names import from_vit, to_vit


@final
@dataclass(frozen=True, kw_only=True)
class Family:
    """How checkpoints of a family are read, written and used.

    Args:
        read: makes the module of config.json's fields and the tensors.
        write: gives the fields and tensors of a module.
        module: the class of its modules.
        job: the job that a checkpoint loads for, a key of `regard.tasks.registry.JOBS`.
        tokenizer: of `hub_tokenizer.CLASSES`, the class of its tokenizers where the folder names none; empty for a
            family that reads no text.
        fields: what is made of each field of its config.json.
        unread: files of a vocabulary that is not read, since the family counts its tokens in a way of its own.
    """

    read: Callable[[Mapping[str, Any], Mapping[str, Tensor]], nn.Module]
    write: Callable[[Any], tuple[dict[str, Any], dict[str, Tensor]]]
    module: type[nn.Module]
    job: str
    tokenizer: str
    fields: Fields
    unread: tuple[str, ...] = ()


BERT = {"read": from_bert, "write": to_bert, "module": Bert, "job": "encode"}
LLAMA = {"read": from_llama, "write": to_llama, "module": Llama, "job": "complete"}
ENCODERS = {
    "bert": "BertTokenizer",
    "distilbert": "BertTokenizer",
    "roberta": "RobertaTokenizer",
    "xlm-roberta": "XLMRobertaTokenizer",
}
FAMILIES: dict[str, Family] = {
    **{name: Family(**BERT, tokenizer=kind, fields=bert_names.FIELDS[name]) for name, kind in ENCODERS.items()},
    "gpt2": Family(
        read=from_gpt2, write=to_gpt2, module=GPT, job="complete", tokenizer="GPT2Tokenizer", fields=gpt.KNOWN
    ),
    **{
        name: Family(**LLAMA, tokenizer=kind, fields=llama_names.KNOWN[name])
        for name, kind in (("llama", "LlamaTokenizer"), ("mistral", "LlamaTokenizer"), ("qwen2", "Qwen2Tokenizer"))
    },
    "marian": Family(
        read=from_marian,
        write=to_published,
        module=Transformer,
        job="translate",
        tokenizer="MarianTokenizer",
        fields=marian.KNOWN,
    ),
    "pegasus": Family(
        read=from_pegasus,
        write=to_published,
        module=Transformer,
        job="translate",
        tokenizer="T5Tokenizer",
        fields=pegasus.KNOWN,
        unread=("spiece.model",),
    ),
    "t5": Family(read=from_t5, write=to_t5, module=T5, job="translate", tokenizer="T5Tokenizer", fields=t5_names.KNOWN),
    **{
        name: Family(read=from_vit, write=to_vit, module=ViT, job="pictures", tokenizer="", fields=fields)
        for name, fields in vit_names.FIELDS.items()
    },
}
