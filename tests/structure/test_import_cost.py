"""What all public names load besides torch: at most half of torch's own time, so nothing heavy may come along.

Counted in modules, for a time says nothing on a busy machine.
"""

import json
import subprocess
import sys

PACKAGES = {"regard", "numpy", "tokenizers", "safetensors"}
HEAVY = {"torch._dynamo", "torch._inductor", "sympy", "transformers", "matplotlib", "sacrebleu", "babel", "pyarrow"}


def loaded(statement: str) -> set[str]:
    code = f"import json, sys; {statement}; print(json.dumps(list(sys.modules)))"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(process.stdout))


def test_import_loads_torch_and_three_small_packages() -> None:
    modules = loaded("import regard; [getattr(regard, name) for name in regard.__all__]")
    beside_torch = {name.partition(".")[0] for name in modules - loaded("import torch, numpy")}
    assert beside_torch - sys.stdlib_module_names <= PACKAGES
    assert not HEAVY & modules


def test_what_is_heavy_is_found() -> None:
    assert "torch._dynamo" in loaded("import torch._dynamo")
