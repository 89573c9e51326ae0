"""The report of a comparison as one HTML page: no file beside it, no request to anywhere, read with a keyboard too."""

from __future__ import annotations

from html import escape

from streamwork.cli.history import call_text, gap_text
from streamwork.cli.show import span
from streamwork.model.replay import CHANGES, DIFFERENCES, Compared, Comparison

# A browser shows so many rows without an effort.
_MOST_ROWS = 5_000

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #fff; --soft: #f2f4f7; --line: #c9d0d8; }
:root { --bad: #a3160c; --good: #12652f; --some: #7a4b00; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8eaed; --paper: #15181c; --soft: #22272e; --line: #454d57; }
  :root { --bad: #ff9c92; --good: #7fd79a; --some: #f0c06a; }
}
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); }
body { margin: 2rem auto; max-width: 80rem; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .4rem .6rem; border-bottom: 1px solid var(--line); }
thead th { background: var(--soft); position: sticky; top: 0; }
.n { text-align: right; font-variant-numeric: tabular-nums; }
th button { font: inherit; font-weight: bold; color: inherit; background: none; border: 0; cursor: pointer; }
:focus-visible { outline: 3px solid #2f6fde; outline-offset: 2px; }
th[aria-sort=ascending] button::after { content: " \\2191"; }
th[aria-sort=descending] button::after { content: " \\2193"; }
code, pre { font: 13px/1.45 ui-monospace, monospace; overflow-wrap: anywhere; }
pre { background: var(--soft); padding: .6rem; white-space: pre-wrap; }
.bad { color: var(--bad); font-weight: 600; }
.good { color: var(--good); font-weight: 600; }
.some { color: var(--some); font-weight: 600; }
form { display: flex; flex-wrap: wrap; gap: 1rem; margin: 1rem 0; }
label { display: flex; flex-direction: column; font-size: 14px; }
input, select { font: inherit; padding: .3rem; color: inherit; background: var(--paper); }
input, select { border: 1px solid var(--line); border-radius: 4px; }
"""

_SCRIPT = """
const at = id => document.querySelector(id);
const body = at('#rows tbody'), rows = [...body.rows], heads = [...document.querySelectorAll('#rows th')];
const [change, task, text] = ['#change', '#task', '#text'].map(at);
function filter() {
  const words = text.value.toLowerCase();
  let shown = 0;
  for (const row of rows) {
    const fits = (!change.value || row.dataset.change === change.value)
      && (!task.value || row.dataset.task === task.value) && row.textContent.toLowerCase().includes(words);
    row.hidden = !fits;
    shown += fits;
  }
  at('#said').textContent = `${shown.toLocaleString('en')} of ${rows.length.toLocaleString('en')} shown`;
}
function sort(place) {
  const head = heads[place], isUp = head.getAttribute('aria-sort') !== 'ascending';
  const value = row => { const c = row.cells[place]; return c.dataset.v === undefined ? c.textContent : +c.dataset.v };
  heads.forEach(one => one.setAttribute('aria-sort', 'none'));
  head.setAttribute('aria-sort', isUp ? 'ascending' : 'descending');
  rows.sort((a, b) => { const x = value(a), y = value(b); return (x < y ? -1 : x > y ? 1 : 0) * (isUp ? 1 : -1) });
  body.append(...rows);
}
[change, task, text].forEach(one => one.addEventListener('input', filter));
at('form').addEventListener('submit', event => event.preventDefault());
heads.forEach((head, place) => head.firstElementChild.addEventListener('click', () => sort(place)));
filter();
"""


def page(found: Comparison, name: str, made_at: str, allowed: frozenset[str]) -> str:
    """Return the page.

    Args:
        found: What it is about.
        name: Of the app.
        made_at: When, as text.
        allowed: Changes that are meant.
    """
    title = f"{name}: replay of {found.queue}"
    differences = found.differences(allowed)
    verdict = f"{differences:,} of {found.total:,} deliveries differ" if differences else "nothing differs"
    shown = found.different[:_MOST_ROWS]
    cut = (
        f"<p>The first {_MOST_ROWS:,} of {len(found.different):,}; --json has all.</p>"
        if shown != found.different
        else ""
    )
    gaps = "".join(f"<li>{escape(gap_text(gap))}</li>" for gap in found.gaps)
    kind = "bad" if differences else "good"
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>{escape(title)}</title><style>{_STYLE}</style></head><body><main>
<h1>{escape(title)}</h1>
<p class="{kind}">{verdict}{_allowed(found, allowed)}.</p>
<p>{found.total:,} past deliveries were run with the code of {escape(made_at)}, in {found.took_s:.1f} s.{_by(found)}</p>
<h2>Summary</h2>{_summary(found)}
{f"<h2>Not kept any more</h2><ul>{gaps}</ul>" if gaps else ""}
<h2>Deliveries that are not the same</h2>{cut}{_filters(shown)}
{_table(shown)}
</main><script>{_SCRIPT}</script></body></html>
"""


def _allowed(found: Comparison, allowed: frozenset[str]) -> str:
    meant = [
        f"{found.counts[change]:,} {change}" for change in CHANGES if change in allowed and found.counts.get(change)
    ]
    return f", {', '.join(meant)} apart, which was meant" if meant else ""


def _by(found: Comparison) -> str:
    count = found.by.get("size", 0)
    return (
        f" Of {count:,} the result is not kept any more (setting keep.result_s), so that only its size was compared."
        if count
        else ""
    )


def _kind(change: str) -> str:
    return "good" if change in ("same", "now_succeeds") else "bad" if change in DIFFERENCES - {"slower"} else "some"


def _summary(found: Comparison) -> str:
    rows = "".join(
        f'<tr><th scope="row" class="{_kind(change)}">{change}</th><td class="n">{found.counts[change]:,}</td></tr>'
        for change in CHANGES
        if found.counts.get(change)
    )
    return (
        '<table><thead><tr><th scope="col">change</th><th scope="col" class="n">deliveries</th></tr></thead>'
        f"<tbody>{rows}</tbody></table>"
    )


def _filters(shown: list[Compared]) -> str:
    def options(values: list[str]) -> str:
        return "".join(f"<option>{escape(value)}</option>" for value in values)

    changes = options([change for change in CHANGES if any(one.change == change for one in shown)])
    tasks = options(sorted({one.task for one in shown}))
    return (
        f'<form><label for="change">Change<select id="change"><option value="">all</option>{changes}</select></label>'
        f'<label for="task">Task<select id="task"><option value="">all</option>{tasks}</select></label>'
        '<label for="text">Contains<input id="text" type="search"></label></form>'
        '<p id="said" role="status" aria-live="polite"></p>'
    )


def _table(shown: list[Compared]) -> str:
    heads = "".join(
        f'<th scope="col" aria-sort="none"{" class=n" if name in ("then ms", "now ms") else ""}>'
        f'<button type="button">{name}</button></th>'
        for name in ("change", "call", "then", "now", "then ms", "now ms")
    )
    return (
        '<table id="rows"><caption>One row a delivery; a heading sorts.</caption>'
        f"<thead><tr>{heads}</tr></thead><tbody>{''.join(map(_row, shown))}</tbody></table>"
    )


def _row(one: Compared) -> str:
    diff = f"<details><summary>difference</summary><pre>{escape(one.diff)}</pre></details>" if one.diff else ""
    note = f"<br>{escape(one.note)}" if one.note else ""
    return (
        f'<tr data-change="{one.change}" data-task="{escape(one.task, quote=True)}">'
        f'<td class="{_kind(one.change)}">{one.change}</td>'
        f"<td><code>{escape(call_text(one.task, one.args, one.kwargs))}</code><br><small>{one.id}</small>"
        f"{note}{diff}</td>"
        f"<td>{escape(one.was)}</td><td>{escape(one.now)}</td>{_ms(one.was_ms)}{_ms(one.now_ms)}</tr>"
    )


def _ms(took_ms: float | None) -> str:
    return f'<td class="n" data-v="{-1 if took_ms is None else took_ms}">{span(took_ms) or "–"}</td>'
