"""The families of published checkpoints, by the `model_type` of their config.json."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
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


@final
@dataclass(frozen=True, kw_only=True)
class Family:
    """How checkpoints of a family are read, written and used.

    Args:
        read: makes the module of config.json's fields and the tensors.
        write: gives the fields and tensors of a module.
        module: the class of its modules.
        job: the job that a checkpoint loads for, a key of `regard.tasks.registry.JOBS`.
        tokenizer: of `hub_tokenizer.CLASSES`, the class of its tokenizers where the folder names none.
    """

    read: Callable[[Mapping[str, Any], Mapping[str, Tensor]], nn.Module]
    write: Callable[[Any], tuple[dict[str, Any], dict[str, Tensor]]]
    module: type[nn.Module]
    job: str
    tokenizer: str


BERT = {"read": from_bert, "write": to_bert, "module": Bert, "job": "encode"}
LLAMA = {"read": from_llama, "write": to_llama, "module": Llama, "job": "complete"}
FAMILIES: dict[str, Family] = {
    **dict.fromkeys(("bert", "distilbert"), Family(**BERT, tokenizer="BertTokenizer")),
    "gpt2": Family(read=from_gpt2, write=to_gpt2, module=GPT, job="complete", tokenizer="GPT2Tokenizer"),
    **dict.fromkeys(("llama", "mistral"), Family(**LLAMA, tokenizer="LlamaTokenizer")),
    "qwen2": Family(**LLAMA, tokenizer="Qwen2Tokenizer"),
    "marian": Family(
        read=from_marian, write=to_marian, module=Transformer, job="translate", tokenizer="MarianTokenizer"
    ),
    "roberta": Family(**BERT, tokenizer="RobertaTokenizer"),
    "xlm-roberta": Family(**BERT, tokenizer="XLMRobertaTokenizer"),
    "t5": Family(read=from_t5, write=to_t5, module=T5, job="translate", tokenizer="T5Tokenizer"),
}
