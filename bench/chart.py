"""Bars as SVG, in plain code: a plotting library would be the heaviest dependency of all."""

from dataclasses import dataclass
from html import escape

_LABEL, _BARS, _VALUE = 130, 220, 60
_LINE, _HEAD, _GAP = 22, 34, 24
_COLOURS = ("#4472a8", "#a9c1dc")  # the second part of a bar is lighter
_OWN_COLOURS = ("#c0504d", "#e3aeac")


@dataclass(frozen=True)
class Row:
    """A bar: its parts one after the other, highlighted or not."""

    label: str
    parts: list[float]
    own: bool = False


@dataclass(frozen=True)
class Panel:
    """Bars under a title, on one scale; ``form`` writes their sums."""

    title: str
    rows: list[Row]
    form: str


def drawn(panels: list[Panel]) -> str:
    """The panels in two columns; those without a bar are left out."""
    shown = [panel for panel in panels if panel.rows]
    width = _LABEL + _BARS + _VALUE
    parts = []
    top = _GAP
    for start in range(0, len(shown), 2):
        pair = shown[start : start + 2]
        for column, panel in enumerate(pair):
            parts += _panel(panel, _GAP + column * (width + _GAP), top)
        top += _HEAD + max(len(panel.rows) for panel in pair) * _LINE + _GAP
    across = 2 * width + 3 * _GAP
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {across} {top}" width="{across}" height="{top}" '
        'font-family="sans-serif" font-size="12">\n'
        f'<rect width="{across}" height="{top}" fill="white"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _panel(panel: Panel, left: int, top: int) -> list[str]:
    most = max(sum(row.parts) for row in panel.rows) or 1
    lines = [f'<text x="{left}" y="{top + 12}" font-size="14" font-weight="bold">{escape(panel.title)}</text>']
    for number, row in enumerate(panel.rows):
        y = top + _HEAD + number * _LINE
        weight = ' font-weight="bold"' if row.own else ""
        lines.append(f'<text x="{left + _LABEL - 8}" y="{y + 12}" text-anchor="end"{weight}>{escape(row.label)}</text>')
        x = float(left + _LABEL)
        for part, colour in zip(row.parts, _OWN_COLOURS if row.own else _COLOURS, strict=False):
            length = part / most * _BARS
            lines.append(f'<rect x="{x:.1f}" y="{y}" width="{length:.1f}" height="16" fill="{colour}"/>')
            x += length
        lines.append(f'<text x="{x + 6:.1f}" y="{y + 12}">{panel.form.format(sum(row.parts))}</text>')
    return lines
