"""Registry of published checkpoint families by `model_type`, the field of config.json."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, final

from torch import Tensor, nn

from regard.models import bert_names, gpt, llama_names, marian, pegasus, t5_names, vit_names, whisper_names
from regard.models.bert import Bert
from regard.models.bert_names import from_bert, to_bert
from regard.models.gpt import GPT, from_gpt2, to_gpt2
from regard.models.llama import Llama
from regard.models.llama_names import from_llama, to_llama
from regard.models.marian import from_marian
from regard.models.pegasus import from_pegasus, to_published
from regard.models.published import ConfigFields
from regard.models.t5 import T5
from regard.models.t5_names import from_t5, to_t5
from regard.models.transformer import Transformer
from regard.models.vit import ViT
from regard.models.vit_names import from_vit, to_vit
from regard.models.whisper import Whisper
from regard.models.whisper_names import from_whisper, to_whisper


@final
@dataclass(frozen=True, kw_only=True)
class Family:
    """A family of published checkpoints.

    Args:
        read: builds the module, from the fields of config.json and the tensors.
        write: converts a module to fields and tensors.
        module: class of its modules.
        job: the job of its checkpoints, a key of `regard.tasks.registry.JOBS`.
        tokenizer: default tokenizer class, a key of `hub_tokenizer.CLASSES`; empty for a family that
            reads no text.
        fields: known fields of its config.json.
        unread: vocabulary files that are not supported.
    """

    read: Callable[[Mapping[str, Any], Mapping[str, Tensor]], nn.Module]
    write: Callable[[Any], tuple[dict[str, Any], dict[str, Tensor]]]
    module: type[nn.Module]
    job: str
    tokenizer: str
    fields: ConfigFields
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
    **{name: Family(**BERT, tokenizer=kind, fields=bert_names.CONFIG_FIELDS[name]) for name, kind in ENCODERS.items()},
    "gpt2": Family(
        read=from_gpt2, write=to_gpt2, module=GPT, job="complete", tokenizer="GPT2Tokenizer", fields=gpt.CONFIG_FIELDS
    ),
    **{
        name: Family(**LLAMA, tokenizer=kind, fields=llama_names.CONFIG_FIELDS[name])
        for name, kind in (("llama", "LlamaTokenizer"), ("mistral", "LlamaTokenizer"), ("qwen2", "Qwen2Tokenizer"))
    },
    "marian": Family(
        read=from_marian,
        write=to_published,
        module=Transformer,
        job="translate",
        tokenizer="MarianTokenizer",
        fields=marian.CONFIG_FIELDS,
    ),
    "pegasus": Family(
        read=from_pegasus,
        write=to_published,
        module=Transformer,
        job="translate",
        tokenizer="T5Tokenizer",
        fields=pegasus.CONFIG_FIELDS,
        unread=("spiece.model",),
    ),
    "t5": Family(
        read=from_t5, write=to_t5, module=T5, job="translate", tokenizer="T5Tokenizer", fields=t5_names.CONFIG_FIELDS
    ),
    **{
        name: Family(read=from_vit, write=to_vit, module=ViT, job="pictures", tokenizer="", fields=fields)
        for name, fields in vit_names.FIELDS.items()
    },
    "whisper": Family(
        read=from_whisper,
        write=to_whisper,
        module=Whisper,
        job="transcribe",
        tokenizer="WhisperTokenizer",
        fields=whisper_names.CONFIG_FIELDS,
    ),
}
