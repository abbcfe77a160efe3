"""Pages that say how good the tables are: static HTML, each in one file, without script or anything foreign. Pure.

Values come from rows that anybody may have written, so everything that is shown is escaped.
"""

import datetime as dt
from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

from lakehouse.quality.expectations import Expectation
from lakehouse.quality.memory import Failure, Point, TableMemory

PLOT_WIDTH: Final = 760  # px
PLOT_HEIGHT: Final = 180  # px
_MARGIN: Final = 34  # px; room for the labels of the axes
_STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; width: 100%; margin: 1rem 0 }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid #ddd; vertical-align: top }
.bad { color: #a11; font-weight: 600 } .good { color: #175 } .hint { color: #850 }
code { background: #f3f3f3; padding: 0 .2rem; overflow-wrap: anywhere } svg { width: 100%; height: auto }
"""


def table_page(
    name: str, memory: TableMemory, expected: Sequence[Expectation], broken: Mapping[str, str], now_ms: int
) -> str:
    """Return the page of one table; `expected` are the rules in force."""
    checked = f"{memory.rows_checked:,} of {memory.rows_committed:,} committed rows looked at"
    whole = f"whole table asked {_time(memory.whole_at_ms)}" if memory.whole_at_ms else "whole table not asked yet"
    body = [
        f"<h1>{escape(name)}</h1>",
        f"<p>Contract <code>{escape(memory.contract)}</code>; {checked}; {whole}. {_verdict(memory)}</p>",
        _broken(broken),
        "<h2>Share of rules met</h2>",
        _plot(memory.points),
        "<h2>What was not met</h2>",
        _failures(memory.failures),
        "<h2>Rules in force</h2>",
        _rules(expected),
        f'<p><a href="index.html">All tables</a>. Written {_time(now_ms)}.</p>',
    ]
    return _page(name, body)


def index_page(tables: Mapping[str, TableMemory], broken: Mapping[str, str], now_ms: int) -> str:
    """Return the page that names all tables, the ones in trouble first."""
    ordered = sorted(tables, key=lambda name: (not _wrong(tables[name]), name))
    rows = [
        f'<tr><td><a href="{escape(name)}.html">{escape(name)}</a></td><td>{_verdict(tables[name])}</td>'
        f"<td>{tables[name].rows_checked:,}</td><td>{_last(tables[name])}</td></tr>"
        for name in ordered
    ]
    head = "<tr><th>table</th><th>newest look</th><th>rows looked at</th><th>when</th></tr>"
    body = ["<h1>Data quality</h1>", _broken(broken), f"<table>{head}{''.join(rows)}</table>"]
    return _page("Data quality", [*body, f"<p>Written {_time(now_ms)}.</p>"])


def _page(title: str, body: Sequence[str]) -> str:
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head>\n<body>\n" + "\n".join(part for part in body if part) + "\n</body></html>\n"
    )


def _newest(memory: TableMemory) -> list[Failure]:
    """What the newest look of each scope did not find met."""
    at = {point.scope: point.at_ms for point in memory.points}  # they are in the order of time
    return [failure for failure in memory.failures if failure.at_ms == at.get(failure.scope)]


def _wrong(memory: TableMemory) -> bool:
    return any(failure.severity == "error" for failure in _newest(memory))


def _verdict(memory: TableMemory) -> str:
    if not memory.points:
        return "Not looked at yet."
    newest = _newest(memory)
    wrong = sum(failure.severity == "error" for failure in newest)
    if wrong:
        return f'<span class="bad">{wrong} rules not met.</span>'
    if newest:
        return f'<span class="hint">Sound; {len(newest)} hints.</span>'
    return '<span class="good">All rules are met.</span>'


def _last(memory: TableMemory) -> str:
    return _time(memory.points[-1].at_ms) if memory.points else ""


def _broken(broken: Mapping[str, str]) -> str:
    if not broken:
        return ""
    items = "".join(f"<li><code>{escape(name)}</code>: {escape(why)}</li>" for name, why in sorted(broken.items()))
    return f'<p class="bad">Files that cannot be followed; what they said last stays in force:</p><ul>{items}</ul>'


def _failures(failures: Sequence[Failure]) -> str:
    if not failures:
        return "<p>Nothing so far.</p>"
    head = "<tr><th>when</th><th>asked of</th><th>rule</th><th>rows failed</th><th>examples</th></tr>"
    return f"<table>{head}{''.join(map(_failure, failures))}</table>"


def _failure(one: Failure) -> str:
    kind = "bad" if one.severity == "error" else "hint"
    found = f"could not be asked: {escape(one.error)}" if one.error else f"{one.failed:,} of {one.rows:,}"
    shown = " ".join(f"<code>{escape(text)}</code>" for text in one.examples)
    return (
        f"<tr><td>{_time(one.at_ms)}</td><td>{escape(one.scope)}</td>"
        f'<td><span class="{kind}">{escape(one.rule)}</span><br>{escape(one.words)} ({escape(one.source)})</td>'
        f"<td>{found}</td><td>{shown}</td></tr>"
    )


def _rules(expected: Sequence[Expectation]) -> str:
    rows = "".join(
        f"<tr><td><code>{escape(one.rule)}</code></td><td>{escape(one.text)}</td><td>{one.severity.value}</td>"
        f"<td>{one.source.value}</td></tr>"
        for one in expected
    )
    return f"<table><tr><th>rule</th><th>in words</th><th>severity</th><th>expected by</th></tr>{rows}</table>"


def _plot(points: Sequence[Point]) -> str:
    """A line from look to look, as SVG; 0 at the bottom, 1 at the top."""
    asked = [point for point in points if point.rules]
    if not asked:
        return "<p>No look yet.</p>"
    first, last = asked[0].at_ms, asked[-1].at_ms
    width, height = PLOT_WIDTH - 2 * _MARGIN, PLOT_HEIGHT - 2 * _MARGIN

    def place(point: Point) -> tuple[float, float]:
        x = _MARGIN + width * (point.at_ms - first) / max(1, last - first)
        return round(x, 1), round(_MARGIN + height * (1 - point.met / point.rules), 1)

    places = [place(point) for point in asked]
    line = " ".join(f"{x},{y}" for x, y in places)
    dots = "".join(
        f'<circle cx="{x}" cy="{y}" r="3" fill="#a11"><title>{_time(p.at_ms)}: {p.met} of {p.rules}</title></circle>'
        for p, (x, y) in zip(asked, places, strict=True)
        if p.met < p.rules
    )
    right, bottom = PLOT_WIDTH - _MARGIN, PLOT_HEIGHT - _MARGIN
    return (
        f'<svg viewBox="0 0 {PLOT_WIDTH} {PLOT_HEIGHT}" role="img" aria-label="Share of rules met over time">'
        f'<path d="M{_MARGIN} {_MARGIN}V{bottom}H{right}" fill="none" stroke="#999"/>'
        f'<text x="4" y="{_MARGIN + 4}" font-size="11">100 %</text><text x="12" y="{bottom}" font-size="11">0 %</text>'
        f'<text x="{_MARGIN}" y="{bottom + 18}" font-size="11">{_time(first)}</text>'
        f'<text x="{right}" y="{bottom + 18}" font-size="11" text-anchor="end">{_time(last)}</text>'
        f'<polyline points="{line}" fill="none" stroke="#175" stroke-width="2"/>{dots}</svg>'
    )


def _time(at_ms: int) -> str:
    return dt.datetime.fromtimestamp(at_ms / 1_000, dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
