"""The families of published checkpoints, by the `model_type` of their config.json."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, final

from torch import Tensor, nn

from regard.models import bert_names, gpt, llama_names, marian, pegasus, t5_names
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
from regard.trained.completer import Completer
from regard.trained.encoder import Encoder
from regard.trained.translator import Translator

END = "<|endoftext|>"  # GPT-2's only mark


@final
@dataclass(frozen=True, kw_only=True)
class Family:
    """How checkpoints of a family are read, written and used.

    Args:
        read: makes the module of config.json's fields and the tensors.
        write: gives the fields and tensors of a module.
        module: the class of its modules.
        job: makes the object that `regard.load` gives: of module, tokenizer (None if the folder has none) and config.
        fields: what is made of each field of its config.json.
        roles: tokens by role where the folder's files don't say them, if the vocabulary has them.
        unread: files of a vocabulary that is not read, since the family counts its tokens in a way of its own.
    """

    read: Callable[[Mapping[str, Any], Mapping[str, Tensor]], nn.Module]
    write: Callable[[Any], tuple[dict[str, Any], dict[str, Tensor]]]
    module: type[nn.Module]
    job: Callable[[Any, Any, Mapping[str, Any]], Any]
    fields: Fields
    roles: Mapping[str, str] = field(default_factory=dict)
    unread: tuple[str, ...] = ()


BERT = {"read": from_bert, "write": to_bert, "module": Bert, "job": Encoder}
ROBERTA_ROLES = {
    "unk": "<unk>", "pad": "<pad>", "bos": "<s>", "eos": "</s>", "cls": "<s>", "sep": "</s>", "mask": "<mask>",
}  # fmt: skip
FAMILIES: dict[str, Family] = {
    **{name: Family(**BERT, fields=bert_names.FIELDS[name]) for name in ("bert", "distilbert")},
    "gpt2": Family(
        read=from_gpt2,
        write=to_gpt2,
        module=GPT,
        job=Completer,
        fields=gpt.KNOWN,
        roles={"bos": END, "eos": END, "unk": END},
    ),
    **{
        name: Family(read=from_llama, write=to_llama, module=Llama, job=Completer, fields=llama_names.KNOWN[name])
        for name in ("llama", "mistral", "qwen2")
    },
    "marian": Family(read=from_marian, write=to_published, module=Transformer, job=Translator, fields=marian.KNOWN),
    "pegasus": Family(
        read=from_pegasus,
        write=to_published,
        module=Transformer,
        job=Translator,
        fields=pegasus.KNOWN,
        unread=("spiece.model",),
    ),
    **{
        name: Family(**BERT, fields=bert_names.FIELDS[name], roles=ROBERTA_ROLES) for name in ("roberta", "xlm-roberta")
    },
    "t5": Family(read=from_t5, write=to_t5, module=T5, job=Translator, fields=t5_names.KNOWN),
}
# What a folder of regard's own loads as, by its task.
JOBS: dict[str, Callable[[Any, Any, Mapping[str, Any]], Any]] = {
    "translate": Translator,
    "complete": Completer,
    "encode": Encoder,
}
