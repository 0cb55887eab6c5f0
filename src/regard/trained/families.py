"""The families of published checkpoints, by the `model_type` of their config.json."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, final

from torch import Tensor, nn

from regard.models.marian import from_marian, to_marian
from regard.models.transformer import Transformer
from regard.trained.translator import Translator


@final
@dataclass(frozen=True, kw_only=True)
class Family:
    """How checkpoints of a family are read, written and used.

    Args:
        read: makes the module of config.json's fields and the tensors.
        write: gives the fields and tensors of a module.
        module: the class of its modules.
        job: makes the object that `regard.load` gives: of module, tokenizer (None if the folder has none) and config.
        roles: tokens by role where the folder's files don't say them, if the vocabulary has them.
    """

    read: Callable[[Mapping[str, Any], Mapping[str, Tensor]], nn.Module]
    write: Callable[[Any], tuple[dict[str, Any], dict[str, Tensor]]]
    module: type[nn.Module]
    job: Callable[[Any, Any, Mapping[str, Any]], Any]
    roles: Mapping[str, str] = field(default_factory=dict)


FAMILIES: dict[str, Family] = {
    "marian": Family(read=from_marian, write=to_marian, module=Transformer, job=Translator),
}
# What a folder of regard's own loads as, by its task.
JOBS: dict[str, Callable[[Any, Any, Mapping[str, Any]], Any]] = {"translate": Translator}
