"""No file is too long to be read in one sitting: aim for 300 lines, split before 600."""

from tests.structure.source import ROOT

LINES = 600
SOURCES = {".py", ".pyi", ".c", ".cc", ".cpp", ".cu", ".h", ".hpp", ".js", ".css", ".html"}  # not recorded data


def test_no_file_is_over_600_lines() -> None:
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for folder in ("src", "tests", "benchmarks")
        for path in sorted((ROOT / folder).rglob("*"))
        if path.suffix in SOURCES
    }
    assert lengths
    assert {path: lines for path, lines in lengths.items() if lines > LINES} == {}
