"""The module of C++ kernels: which instruction set runs, and whose threads."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import regard as rg
from regard import kernels

MAPPED = """
import re
def runtimes():
    return {line.split()[-1] for line in open("/proc/self/maps") if re.search("gomp|iomp|libomp", line)}
"""


def run(code: str, **environment: str) -> str:
    """What a new process prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_best_instruction_set_runs() -> None:
    assert kernels.missing() is None
    sets = kernels.module().isas()
    assert sets[0] == "baseline"
    if "REGARD_ISA" not in os.environ:
        assert kernels.isa() == sets[-1]


@pytest.mark.parametrize("isa", [] if kernels.missing() else kernels.module().isas())
def test_a_lesser_instruction_set_by_the_environment(isa: str) -> None:
    code = """
import torch, regard as rg
from regard import kernels
torch.manual_seed(0)
q, k, v = (torch.randn(2, 3, 70, 33, dtype=torch.float64).float() for _ in range(3))
found = rg.attend(q, k, v, pattern=rg.Causal(), backend="native")
exact = rg.attend(q.double(), k.double(), v.double(), pattern=rg.Causal(), backend="reference")
print(kernels.isa(), bool((found - exact).abs().max() < 5e-6))
"""
    assert run(code, REGARD_ISA=isa) == f"{isa} True"


@pytest.mark.parametrize("order", [("torch", "regard"), ("regard", "torch")])
def test_one_openmp_runtime_whatever_is_imported_first(order: tuple[str, str]) -> None:
    code = f"""{MAPPED}
import {order[0]}
import {order[1]}
from regard import kernels
kernels.module()
assert kernels.module().runtime_path() in runtimes(), (kernels.module().runtime_path(), runtimes())
print(len(runtimes()), kernels.module().threads(2), kernels.module().threads(1))
"""
    assert run(code, OMP_NUM_THREADS="2") == "1 2 1"


OTHER_RUNTIME = """
int omp_get_thread_num(void) { return 0; }
int omp_get_num_threads(void) { return 99; }
int omp_in_parallel(void) { return 0; }
void GOMP_parallel(void (*work)(void *), void *data, unsigned threads, unsigned flags) { work(data); }
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="makes a library with a C compiler")
def test_the_runtime_of_torch_where_another_package_loaded_its_own(tmp_path: Path) -> None:
    (tmp_path / "other.c").write_text(OTHER_RUNTIME)
    other = tmp_path / "libgomp-other.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(other), str(tmp_path / "other.c")], check=True, timeout=60)
    code = f"""
import ctypes
ctypes.CDLL({str(other)!r})
import torch
from regard import kernels
print(kernels.module().threads(2), "libgomp-other" in kernels.module().runtime_path())
"""
    assert run(code, OMP_NUM_THREADS="2") == "2 False"


def test_the_threads_that_torch_is_told() -> None:
    code = """
import threading, torch, regard as rg
from pathlib import Path
torch.set_num_threads(1)
q = torch.randn(2, 8, 512, 64)
before = len(list(Path("/proc/self/task").iterdir()))
rg.attend(q, q, q, backend="native")
print(len(list(Path("/proc/self/task").iterdir())) - before)
torch.set_num_threads(2)
rg.attend(q, q, q, backend="native")
print(len(list(Path("/proc/self/task").iterdir())) - before)
"""
    assert run(code, OMP_NUM_THREADS="2").split() == ["0", "1"]


def test_without_the_module() -> None:
    code = """
import os, sys
os.environ.pop("REGARD_NATIVE", None)  # as the run with sanitizers has it
sys.modules["regard.kernels._native"] = None
import torch, regard as rg
from regard import kernels
q = torch.randn(1, 2, 5, 4)
print(kernels.missing())
print(rg.plan(q, q, q).explain())
print(tuple(rg.attend(q, q, q).shape))
"""
    text = run(code)
    assert "installed without its C++ kernels" in text
    assert "not native: kernels: installed without" in text
    assert text.endswith("(1, 2, 5, 4)")


def test_the_plan_names_the_instruction_set() -> None:
    q = torch.randn(1, 2, 5, 4)
    assert f"native ({kernels.isa()})" in rg.plan(q, q, q, backend="native").explain()


def test_no_symbol_is_shared_by_instruction_sets() -> None:
    """A weak function of two instruction sets would be linked from one of them, and may not run on the processor."""
    objects = sorted(Path(__file__).parents[2].glob("build/*/CMakeFiles/regard_*.dir/src/regard/kernels/isa.cpp.o"))
    if not objects:
        pytest.skip("no object files of a build with make")
    for path in objects:
        lines = subprocess.run(["nm", "-C", str(path)], capture_output=True, text=True, check=True).stdout.splitlines()
        weak = [line for line in lines if re.search(r" [WVu] ", line)]  # of the standard library too
        assert not [x for x in weak if not re.search(r"regard::(baseline|avx2|avx512|avx512_bf16|amx)::", x)], path


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("length", [1, 3, 100, 300])
def test_bitwise_the_same(dtype: torch.dtype, length: int) -> None:
    """Again, on one thread and two, alone and in a batch with longer ones; forward and backward."""
    torch.manual_seed(0)
    lengths = torch.tensor([37, 300, 129])
    q, k, v, g = (torch.randn(3, 4, n, 24).to(dtype) for n in (length, 300, 300, length))

    def results(rows: slice, threads: int) -> list[torch.Tensor]:
        torch.set_num_threads(threads)
        inputs = [x[rows].clone().requires_grad_() for x in (q, k, v)]
        output = rg.attend(*inputs, pattern=rg.KeyLengths(lengths[rows]), backend="native")
        return [output.detach(), *torch.autograd.grad(output, inputs, g[rows])]

    threads = torch.get_num_threads()
    try:
        first = results(slice(None), 1)
        for count in (1, 2):
            for found, expected in zip(results(slice(None), count), first, strict=True):
                assert torch.equal(found, expected)
            for b in range(3):
                for found, expected in zip(results(slice(b, b + 1), count), first, strict=True):
                    assert torch.equal(found, expected[b : b + 1])
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(
    "values",
    [
        {"pattern": rg.Causal() & rg.Documents(torch.tensor([[0, 0, 1, 1, 1]]))},
        {"normalizer": rg.Entmax(1.5)},
        {"normalizer": rg.Sigmoid(bias=-1.0)},
        {"normalizer": rg.Softmax(sink=torch.tensor([0.5, 0.1])), "bias": rg.ALiBi(torch.tensor([0.5, 0.25]))},
        {"normalizer": rg.Softmax(prior=rg.Gaussian(torch.tensor([0.0, 1, 2, 3, 4]), sigma=2.0)), "dropout": 0.3},
        {"score": rg.Additive(torch.ones(2, 3))},
        {"score": rg.Cosine(scale=2.0), "bias": rg.TensorBias(torch.ones(5, 5, requires_grad=True))},
    ],
    ids=lambda values: " ".join(map(str, values.values()))[:50],
)
def test_another_default_device_changes_nothing(values: dict[str, object]) -> None:
    inputs = [torch.randn(2, 2, 5, 3, generator=torch.Generator().manual_seed(i)).requires_grad_() for i in range(3)]
    incoming = torch.randn(2, 2, 5, 3, generator=torch.Generator().manual_seed(9))

    def run() -> list[torch.Tensor]:
        summary = rg.Summary(expected_key=True, key_mass=True)
        output, result = rg.attend(*inputs, backend="native", seed=4, summary=summary, **values)
        with torch.no_grad():
            plain = rg.attend(*inputs, backend="native", seed=4, **values)
        return [output, result.expected_key, result.key_mass, plain, *torch.autograd.grad(output, inputs, incoming)]

    expected = run()
    with torch.device("meta"):  # a kernel that wrote to memory of another device would end the process
        found = run()
    for some, others in zip(found, expected, strict=True):
        assert some.equal(others)
