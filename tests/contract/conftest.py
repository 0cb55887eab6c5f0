"""The contract's option and its count of cases."""

from collections import Counter

import pytest

from tests.contract import cases, sparse


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="the contract's whole product instead of a sample")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    # The option is known only where tests/contract is on the command line.
    whole = metafunc.config.getoption("--full", default=False)
    if "case" in metafunc.fixturenames:
        metafunc.parametrize("case", (*(cases.full() if whole else cases.sample()), *cases.large()), ids=str)
    if "sparse_case" in metafunc.fixturenames:
        metafunc.parametrize("sparse_case", sparse.full() if whole else sparse.sample(), ids=str)
    if "summary_case" in metafunc.fixturenames:
        every = (*cases.summarized(), *cases.large())
        metafunc.parametrize("summary_case", every if whole else every[::3], ids=str)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many cases ran on each backend, and how many were refused for each reason."""
    reports = [r for kind in ("passed", "failed", "skipped") for r in terminalreporter.stats.get(kind, [])]
    noted = Counter(note for r in reports if r.when == "call" for note in r.user_properties)
    if noted:
        terminalreporter.section("contract")
        for (what, which), count in sorted(noted.items()):
            terminalreporter.line(f"{what:8} {which:60} {count:6}")
