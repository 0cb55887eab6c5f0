"""What notebooks show by themselves: a heat map as a small table, and a page in a frame."""

from dataclasses import dataclass
from html import escape
from typing import final

from regard.lens.text import printable, shortened
from regard.lens.view import HeatMap

MOST_WORDS = 40  # of a side; the others are left out
LONGEST_WORD = 24  # columns of a terminal
LEAST_SHOWN = 0.05  # the least weight that is written as a number
DARK = 0.55  # the share of the largest weight from which numbers are white
STYLE = """<style>
.regard-map { border-collapse: collapse; font: 12px sans-serif; width: auto }
.regard-map caption { text-align: left; padding: 4px 0; white-space: nowrap }
.regard-map th { font-weight: normal; text-align: right; padding: 2px 6px; background: none }
.regard-map thead th { writing-mode: vertical-rl; transform: rotate(180deg); text-align: left; padding: 6px 2px }
.regard-map td { width: 24px; height: 20px; padding: 0; text-align: center; border: 1px solid #8883 }
</style>"""


@final
@dataclass(frozen=True, repr=False)
class Frame:
    """A page inside a notebook, which needs no server and no network.

    Args:
        html: the whole page.
        height: of the frame, in pixels.
    """

    html: str
    height: int

    def _repr_html_(self) -> str:
        """As notebooks show it; the page's scripts reach nothing outside of the frame."""
        return (
            f'<iframe srcdoc="{escape(self.html)}" sandbox="allow-scripts allow-downloads" title="What a model attends '
            f'to" style="width: 100%; height: {self.height}px; border: 0"></iframe>'
        )

    def __repr__(self) -> str:
        return f"Frame({len(self.html):,} characters of HTML; a notebook shows them)"


def table(heat_map: HeatMap) -> str:
    """A table whose cells are as blue as their weights are large; it needs no network and runs no script.

    Args:
        heat_map: what to show.

    Returns:
        HTML, in which nothing of the words is taken for markup.
    """
    sides = [heat_map.rows, heat_map.columns]
    rows, columns = ([escape(shortened(printable(word), LONGEST_WORD)) for word in side[:MOST_WORDS]] for side in sides)
    weights = heat_map.weights.detach().double()[: len(rows), : len(columns)].tolist()
    max_weight = max(max(map(max, weights), default=0.0), 1e-9)
    caption = f"{heat_map.title}: {heat_map.row_axis} down, {heat_map.column_axis} across, in percent"
    if max(map(len, sides)) > MOST_WORDS:
        caption += f"; the first {len(rows)} of {len(sides[0])} by {len(columns)} of {len(sides[1])} words"
    head = "".join(f"<th>{word}</th>" for word in columns)
    body = "\n".join(
        f"<tr><th>{word}</th>{''.join(_cell(weight, weight / max_weight) for weight in row)}</tr>"
        for word, row in zip(rows, weights, strict=True)
    )
    return f"""{STYLE}
<table class="regard-map"><caption>{escape(caption)}</caption>
<thead><tr><td></td>{head}</tr></thead>
<tbody>
{body}
</tbody></table>"""


def _cell(weight: float, share: float) -> str:
    ink = ";color:#fff" if share >= DARK else ""
    number = f"{100 * weight:.0f}" if weight >= LEAST_SHOWN else ""
    return f'<td style="background:rgba(19,90,158,{share:.2f}){ink}">{number}</td>'
