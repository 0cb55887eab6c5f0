"""How many files of the package does a call pass through: attention, a training step, a translation?

Counted are the files whose Python functions run during the call, and not what runs when a module is imported. Each call
is the first of its kind in a process of its own, so that nothing is remembered from an earlier one. `--list` names the
files; `--source FOLDER` counts those of another checkout's `src`; `--imports` counts what runs at imports too.
"""

import argparse
import contextlib
import importlib.util
import io
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType
from typing import Any

SOURCE = Path(__file__).parents[1] / "src"
FUNCTION = 0x2  # flag of the code of a function, which that of a module or class has not
SENTENCE = "This package contains the documentation."


class Called:
    """The files of the package whose functions were called.

    Args:
        imports: whether functions count that are called while a module of the package is being imported.
    """

    def __init__(self, *, imports: bool) -> None:
        import regard

        self.root, self.imports = str(Path(regard.__file__).parent), imports
        self.seen: set[CodeType] = set()

    def note(self, frame: Any, event: str, argument: Any) -> None:
        """What the interpreter calls at each call and return."""
        code = frame.f_code
        if event != "call" or code in self.seen or not code.co_filename.startswith(self.root):
            return
        if code.co_flags & FUNCTION and (self.imports or not self.importing(frame)):
            self.seen.add(code)

    def importing(self, frame: Any) -> bool:
        """Whether a function is called, by way of any number of others, from the body of a module of the package."""
        while frame is not None:
            if frame.f_code.co_name == "<module>" and frame.f_code.co_filename.startswith(self.root):
                return True
            frame = frame.f_back
        return False

    @property
    def files(self) -> list[str]:
        """Their paths in the package."""
        return sorted({str(Path(code.co_filename).relative_to(self.root)) for code in self.seen})


@contextlib.contextmanager
def recorded(called: Called) -> Iterator[None]:
    """Note the calls in every thread, backward passes included."""
    threading.setprofile(called.note)
    sys.setprofile(called.note)
    try:
        yield
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]


def attention(called: Called) -> None:
    """Plain attention, the first call in this process."""
    import torch

    from regard import attend

    query, key, value = torch.randn(3, 1, 8, 16, 64)
    with recorded(called):
        attend(query, key, value)


def training_step(called: Called) -> None:
    """A step of a small Transformer on a few pairs: batch, forward, backward, optimizer."""
    with tempfile.TemporaryDirectory() as folder:
        pairs = Path(folder, "pairs.tsv")
        pairs.write_text("".join(f"page {i}\tpagina {i}\n" for i in range(100)))
        step = task_step(pairs) if importlib.util.find_spec("regard.train.trainer") else older_step(pairs)
        with recorded(called):
            step()


def task_step(pairs: Path) -> Callable[[], Any]:
    """The step of a task's trainer."""
    from regard.data.sampler import Position
    from regard.tasks.translate import Translate
    from regard.train.options import TrainOptions
    from regard.train.trainer import Trainer, make_optimizer

    options = TrainOptions(files=(str(pairs),), vocab_size=300, size="small")
    task = Translate(options)
    task.prepare(pairs.with_name("data"), lambda doing, rows: None)
    module = task.build()
    trainer = Trainer(task, module, make_optimizer(module, options), options)
    return lambda: trainer.step(trainer.next_batches(Position()), 1, 1e-3)


def older_step(pairs: Path) -> Callable[[], Any]:
    """The same in a checkout from before there were tasks."""
    from regard.data.prepare import prepare
    from regard.models.seq2seq import Vocabulary
    from regard.models.transformer import Transformer, TransformerConfig
    from regard.train.loop import Order, Progress, Trainer, make_optimizer
    from regard.train.options import TrainOptions

    options = TrainOptions(files=(str(pairs),), vocab_size=300, size="small")
    prepared = prepare([str(pairs)], pairs.with_name("data"), vocab_size=300)
    vocabulary = Vocabulary(size=prepared.tokenizer.size)
    module = Transformer(TransformerConfig.from_preset("small", vocabulary, norm="pre"))
    order = Order(prepared.train, options)
    trainer = Trainer(module, make_optimizer(module, options), options)
    return lambda: trainer.step(order, order.next(Progress()), 1, 1e-3)


def translation(called: Called) -> None:
    """`regard translate` with the model that the package ships, from the command line's first function on."""
    from regard.cli.main import main

    output = io.StringIO()
    with recorded(called), contextlib.redirect_stdout(output), contextlib.suppress(SystemExit):
        main(["translate", SENTENCE])
    if not output.getvalue().strip():
        raise SystemExit("regard translate wrote nothing: nothing to count")


CALLS = {"attend": attention, "training step": training_step, "regard translate": translation}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, default=SOURCE, help="folder that the package stands in")
    parser.add_argument("--list", action="store_true", help="name the files")
    parser.add_argument("--imports", action="store_true", help="count also what runs when modules are imported")
    parser.add_argument("--call", choices=CALLS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.call is not None:
        called = Called(imports=given.imports)
        CALLS[given.call](called)
        print("\n".join(called.files))
        return
    environment = {**os.environ, "PYTHONPATH": str(given.source.resolve())}
    for call in CALLS:
        command = [sys.executable, __file__, "--call", call, *(["--imports"] if given.imports else [])]
        done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
        names = done.stdout.splitlines()
        print(f"{call}: {len(names)}")
        if given.list:
            print("".join(f"  {name}\n" for name in names), end="")


if __name__ == "__main__":
    main()
