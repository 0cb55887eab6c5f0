"""The families of published checkpoints, by the `model_type` of their config.json."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, final

from torch import Tensor, nn

from regard.models.bert import Bert
from regard.models.bert_names import from_bert, to_bert
from regard.models.gpt import GPT, from_gpt2, to_gpt2
from regard.models.llama import Llama
from regard.models.llama_names import from_llama, to_llama
from regard.models.marian import from_marian, to_marian
from regard.models.t5 import T5
from regard.models.t5_names import from_t5, to_t5
from regard.models.transformer import Transformer

END = "<|endoftext|>"  # GPT-2's only mark


@final
@dataclass(frozen=True, kw_only=True)
class Family:
    """How checkpoints of a family are read, written and used.

    Args:
        read: makes the module of config.json's fields and the tensors.
        write: gives the fields and tensors of a module.
        module: the class of its modules.
        job: the job that a checkpoint loads for, a key of `regard.tasks.registry.JOBS`.
        roles: tokens by role where the folder's files don't say them, if the vocabulary has them.
    """

    read: Callable[[Mapping[str, Any], Mapping[str, Tensor]], nn.Module]
    write: Callable[[Any], tuple[dict[str, Any], dict[str, Tensor]]]
    module: type[nn.Module]
    job: str
    roles: Mapping[str, str] = field(default_factory=dict)


BERT = {"read": from_bert, "write": to_bert, "module": Bert, "job": "encode"}
ROBERTA_ROLES = {
    "unk": "<unk>", "pad": "<pad>", "bos": "<s>", "eos": "</s>", "cls": "<s>", "sep": "</s>", "mask": "<mask>",
}  # fmt: skip
FAMILIES: dict[str, Family] = {
    **dict.fromkeys(("bert", "distilbert"), Family(**BERT)),
    "gpt2": Family(
        read=from_gpt2, write=to_gpt2, module=GPT, job="complete", roles={"bos": END, "eos": END, "unk": END}
    ),
    **dict.fromkeys(
        ("llama", "mistral", "qwen2"), Family(read=from_llama, write=to_llama, module=Llama, job="complete")
    ),
    "marian": Family(read=from_marian, write=to_marian, module=Transformer, job="translate"),
    **dict.fromkeys(("roberta", "xlm-roberta"), Family(**BERT, roles=ROBERTA_ROLES)),
    "t5": Family(read=from_t5, write=to_t5, module=T5, job="translate"),
}
