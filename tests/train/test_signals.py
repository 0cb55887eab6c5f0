"""A run that receives a signal saves its last step, prints how to resume, and exits with the signal's code."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from regard.train import checkpoint
from tests.train.made import pairs

SECONDS = 90  # that a process may take to get to its first steps
FLAGS = (
    "--steps 100000 --evaluate-every 5 --checkpoint-every 50000 --vocab-size 300 --batch-tokens 128 --threads 1 "
    "--model.embed_dim 16 --model.ffn_dim 32 --model.num_heads 2 --model.encoder_layers 1 --model.decoder_layers 1"
)

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no such signals here")


def command(folder: Path) -> list[str]:
    data = folder / "pairs.tsv"
    if not data.exists():
        pairs(data)
    return [sys.executable, "-m", "regard", "train", str(data), "--out", str(folder / "run"), *FLAGS.split()]


def wait_for_steps(folder: Path, running) -> None:
    """Until the run has evaluated once more than before."""
    metrics = folder / "run" / "metrics.jsonl"
    before, start = metrics.stat().st_size if metrics.exists() else 0, time.monotonic()
    while not metrics.exists() or metrics.stat().st_size <= before:
        assert running(), "the run has ended by itself"
        assert time.monotonic() - start < SECONDS
        time.sleep(0.05)


def last_step(folder: Path) -> int:
    found = checkpoint.newest(folder / "run" / "checkpoints")
    assert found is not None
    step: int = found.state["step"]
    return step


def test_each_signal_writes_a_checkpoint_and_says_how_to_go_on(tmp_path: Path) -> None:
    step = 0
    for number, code in ((signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)):
        process = subprocess.Popen(command(tmp_path), stderr=subprocess.PIPE, text=True)
        wait_for_steps(tmp_path, lambda process=process: process.poll() is None)
        process.send_signal(number)
        _, said = process.communicate(timeout=SECONDS)
        assert process.returncode == code, said
        assert f"stopped at step {last_step(tmp_path):,} of 100,000; the same command resumes from there" in said
        assert (f"resuming from step {step:,}, " in said) is (step > 0)
        assert last_step(tmp_path) > step
        step = last_step(tmp_path)
        assert "Traceback" not in said


def test_a_terminal_that_is_closed_loses_nothing(tmp_path: Path) -> None:
    import pty

    child, terminal = pty.fork()
    if child == 0:
        os.execv(sys.executable, command(tmp_path))
    wait_for_steps(tmp_path, lambda: os.waitpid(child, os.WNOHANG)[0] == 0)
    os.close(terminal)  # the kernel sends SIGHUP, and nothing can be written any more
    start = time.monotonic()
    while os.waitpid(child, os.WNOHANG)[0] == 0:
        assert time.monotonic() - start < SECONDS
        time.sleep(0.05)
    assert last_step(tmp_path) >= 5  # only a signal writes a checkpoint here


def test_a_signal_that_is_ignored_stays_so(tmp_path: Path) -> None:
    """As under nohup."""
    ignoring = (
        "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN); os.execv(sys.executable, sys.argv[1:])"
    )
    process = subprocess.Popen([sys.executable, "-c", ignoring, *command(tmp_path)], stderr=subprocess.PIPE, text=True)
    wait_for_steps(tmp_path, lambda: process.poll() is None)
    process.send_signal(signal.SIGHUP)
    wait_for_steps(tmp_path, lambda: process.poll() is None)
    process.terminate()
    process.communicate(timeout=SECONDS)
    assert process.returncode == 143
