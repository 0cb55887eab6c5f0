"""The figures of README and docs are those of the committed benchmark results."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_figures_are_those_of_the_results() -> None:
    spec = importlib.util.spec_from_file_location("figures", ROOT / "benchmarks" / "figures.py")
    assert spec is not None
    assert spec.loader is not None
    figures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(figures)
    for page in figures.PAGES:
        text = (ROOT / page).read_text()
        assert figures.START in text
        assert figures.END in text
        assert figures.updated(page) == text, "run: python benchmarks/figures.py"
