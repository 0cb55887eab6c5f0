"""How large pages and pictures of attention are, and how fast: a page in headless Chromium, a picture by matplotlib.

The page is of 12 x 12 heads, recorded as they read random tokens. Its first paint is what the browser reports; "drawn"
is the first frame with all maps. An interaction goes from the event to the next frame, the median of each kind; the
slowest kind counts.
"""

import json
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from common import Peak, fresh

sys.path.insert(0, str(Path(__file__).parent.parent))  # the client of the browser is that of the tests

import regard as rg
from regard.lens import picture
from regard.lens.page import page
from regard.lens.view import HeatMap
from tests.lens.browser import Browser, chromium

MIB, MB = 2**20, 1e6
LOADS, REPEATS = 7, 9
LAYERS, HEADS = 12, 12

TIMED = """globalThis.timed = async event => {
  const start = performance.now();
  event();
  await new Promise(done => requestAnimationFrame(() => {
    const channel = new MessageChannel();
    channel.port1.onmessage = done;
    channel.port2.postMessage(0);
  }));
  return performance.now() - start;
}"""
POINTED = "dispatchEvent(new PointerEvent('pointerover', {{bubbles: true}}))"
INTERACTIONS = {  # what is done in repeat {i}
    "another head": "document.querySelectorAll('.thumbnail')[15 + 9 * {i}].click()",
    "pointing at a word": "document.querySelectorAll('#rows-words .word')[100 + 7 * {i}]." + POINTED,
    "pointing at a cell": (
        "(area => {{ const box = area.getBoundingClientRect(); area.dispatchEvent(new PointerEvent('pointermove', "
        "{{clientX: box.x + 300 + 20 * {i}, clientY: box.y + 300}})) }})(document.querySelector('.canvas'))"
    ),
    "the next words": "document.querySelectorAll('#rows-words .turn button')[({i} + 1) % 2].click()",
    "other colors": "at('colors').selectedIndex ^= 1, at('colors').dispatchEvent(new Event('change'))",
    "a table and back": "at('as-table').click()",
}


@torch.no_grad()
def written(tokens: int, file: Path) -> float:
    """Write the page of a recording; its size in MB."""
    torch.manual_seed(0)
    config = transformers.BertConfig(
        hidden_size=8 * HEADS, num_attention_heads=HEADS, num_hidden_layers=LAYERS, intermediate_size=96,
        max_position_embeddings=tokens,
    )  # fmt: skip
    model = transformers.BertModel(config).eval()
    with rg.record(model) as recording:
        model(input_ids=torch.randint(0, 30_000, (1, tokens)))
    file.write_text(page(recording.view([f"token{i}" for i in range(tokens)])), encoding="utf-8")
    return file.stat().st_size / MB


def loads(browser: Browser, file: Path) -> dict[str, float]:
    """Median milliseconds from the start of loading to the first paint, and to all maps."""
    times: dict[str, list[float]] = {"first paint": [], "drawn": []}
    for _ in range(LOADS):
        browser.open(file)
        browser.wait("performance.getEntriesByName('drawn').length > 0")
        for name, entry in (("first paint", "first-contentful-paint"), ("drawn", "drawn")):
            times[name].append(browser.run(f"performance.getEntriesByName('{entry}')[0].startTime"))
    return {name: statistics.median(some) for name, some in times.items()}


def interactions(browser: Browser) -> dict[str, float]:
    """Median milliseconds of each kind."""
    browser.run(TIMED)
    medians = {}
    for name, action in INTERACTIONS.items():
        times = [browser.run(f"timed(() => {{ {action.format(i=i)} }})") for i in range(REPEATS)]
        medians[name] = round(statistics.median(times), 1)
    return medians


def drawn_picture(tokens: int) -> dict[str, float]:
    """Seconds, MiB above an import of matplotlib and pixels of the longer side of a PNG."""
    import matplotlib.figure  # noqa: F401

    names = [f"w{i}" for i in range(tokens)]
    weights = torch.rand(tokens, tokens, generator=torch.Generator().manual_seed(0)).softmax(-1)
    heat_map = HeatMap(rows=names, columns=names, row_axis="text", column_axis="text", weights=weights, title="A map")
    with tempfile.TemporaryDirectory() as folder:
        path, start = Path(folder) / "map.png", time.perf_counter()
        with Peak() as peak:
            picture.save(heat_map, path)
        seconds = time.perf_counter() - start
        return {"s": seconds, "MiB": peak.bytes / MIB, "pixels": max(struct.unpack(">II", path.read_bytes()[16:24]))}


def cases() -> Iterator[dict[str, Any]]:
    """Pages and pictures."""
    executable = chromium()
    if executable is None:
        raise SystemExit("no Chromium on this machine: pages cannot be timed")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "page.html"
        about = f"page of {LAYERS} x {HEADS} heads"
        yield {"case": f"{about}, 300 tokens", "unit": "MB", "value": round(written(300, file), 2), "bar": 3}
        yield {"case": f"{about}, 10,000 tokens", "unit": "MB", "value": round(written(10_000, file), 2), "bar": 20}
        with Browser(executable) as browser:
            times = loads(browser, file)
            each = interactions(browser)
            if errors := browser.errors():
                raise SystemExit(f"the page's scripts failed: {errors}")
    for name, milliseconds in times.items():
        value = round(milliseconds / 1e3, 3)
        yield {"case": f"{about}, 10,000 tokens: {name}", "unit": "seconds", "value": value, "bar": 2}
    slowest = max(each.values())
    yield {"case": f"{about}, 10,000 tokens: interaction", "unit": "ms", "value": slowest, "bar": 100, "each": each}
    result = fresh(__file__, "1000")
    for unit, name, bar in (
        ("s", "time", 5),
        ("MiB", "memory above matplotlib's", 500),
        ("pixels", "longer side", 4000),
    ):
        yield {"case": f"PNG of 1,000 tokens: {name}", "unit": unit, "value": round(result[unit], 2), "bar": bar}


if __name__ == "__main__":  # a picture, in a process of its own
    torch.set_num_threads(1)
    print(json.dumps(drawn_picture(int(sys.argv[1]))))
