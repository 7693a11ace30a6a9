"""How a page looks, by day and by night."""

from __future__ import annotations

from mobilesam_core.pages.markup import Markup

_LIGHT = ("#2563eb", "#d97706", "#059669", "#7c3aed", "#dc2626", "#0891b2", "#be185d", "#4d7c0f")
_DARK = ("#60a5fa", "#fbbf24", "#34d399", "#a78bfa", "#f87171", "#22d3ee", "#f472b6", "#a3e635")


def _colors(values: tuple[str, ...]) -> str:
    return " ".join(f"--c{number}: {value};" for number, value in enumerate(values))


STYLE = Markup(
    f"""
:root {{ color-scheme: light dark; --page: #ffffff; --card: #f6f7f9; --text: #1c2330; --soft: #5b6472;
  --line: #dfe3e8; --good: #047857; --bad: #b91c1c; --warn: #fef3c7; --warn-line: #d97706; {_colors(_LIGHT)} }}
@media (prefers-color-scheme: dark) {{ :root {{ --page: #12161d; --card: #1b212b; --text: #e5e9f0; --soft: #9aa5b5;
  --line: #323b49; --good: #34d399; --bad: #f87171; --warn: #3a2f12; --warn-line: #fbbf24; {_colors(_DARK)} }} }}
* {{ box-sizing: border-box; }}
body {{ margin: 0 auto; max-width: 1160px; padding: 1.5rem 1rem 3rem; background: var(--page); color: var(--text);
  font: 15px/1.5 system-ui, sans-serif; }}
h1 {{ margin: 0; font-size: 1.6rem; overflow-wrap: anywhere; }}
h2 {{ margin: 2.2rem 0 .8rem; font-size: 1.2rem; }}
h3 {{ margin: .8rem 0 .4rem; font-size: .9rem; font-weight: 600; color: var(--soft); }}
header p, .note {{ margin: .3rem 0; color: var(--soft); }}
.note {{ font-size: .87rem; max-width: 75ch; }}
.warning {{ padding: .6rem .9rem; background: var(--warn); border-left: 4px solid var(--warn-line); }}
.tiles {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(230px, 1fr)); gap: .8rem; margin-top: 1.2rem; }}
.tile {{ padding: .7rem .9rem; background: var(--card); border: 1px solid var(--line); border-radius: 8px; }}
.tile h3 {{ margin: 0; }}
.tile strong {{ font-size: 1.5rem; }}
.before, .change {{ white-space: nowrap; }} .before {{ color: var(--soft); }}
.change {{ margin-left: .5rem; }} .good {{ color: var(--good); }} .bad {{ color: var(--bad); }}
.charts {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); gap: 1rem; }}
figure {{ margin: 0; min-width: 0; }}
.charts figure, .calibration > figure {{ padding: .7rem; background: var(--card); border: 1px solid var(--line);
  border-radius: 8px; }}
figcaption {{ font-size: .87rem; color: var(--soft); overflow-wrap: anywhere; }}
.charts figcaption, .calibration > figure > figcaption {{ font-weight: 600; }}
svg {{ display: block; width: 100%; height: auto; }}
svg text {{ font-size: 11px; fill: var(--soft); }}
.grid {{ stroke: var(--line); }}
.line {{ fill: none; stroke: var(--c); stroke-width: 1.7; stroke-linejoin: round; }}
.dashed {{ stroke-dasharray: 5 4; }}
.ideal {{ stroke: var(--soft); stroke-dasharray: 3 4; }}
.dot {{ fill: var(--c); }} .calibration .dot {{ fill-opacity: .65; }}
{" ".join(f".s{number} {{ --c: var(--c{number}); }}" for number in range(len(_LIGHT)))}
.legend {{ display: flex; flex-wrap: wrap; gap: .1rem .9rem; margin: .3rem 0 0; padding: 0; list-style: none;
  font-size: .8rem; }}
.legend i {{ display: inline-block; width: 16px; margin-right: .35rem; border-top: 3px solid var(--c);
  vertical-align: middle; }}
.legend .dashed {{ border-top-style: dashed; }}
img {{ display: block; width: 100%; border-radius: 4px; }}
.pair {{ display: grid; gap: .5rem; margin-top: 1.2rem; }}
.worst {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(190px, 1fr)); gap: .8rem; }}
.worst img {{ height: 200px; object-fit: contain; background: var(--card); }}
.calibration {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 340px), 1fr)); gap: 1rem;
  align-items: start; margin-top: .8rem; }}
.scroll {{ overflow-x: auto; margin-bottom: .8rem; }}
table {{ border-collapse: collapse; font-size: .87rem; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .25rem .7rem; border-bottom: 1px solid var(--line); text-align: right; }}
.tables td, .tables th {{ padding: .25rem .4rem; }}
th {{ color: var(--soft); font-weight: 600; vertical-align: bottom; }}
th:first-child, td:first-child, .facts td {{ text-align: left; }}
.facts td {{ vertical-align: top; overflow-wrap: anywhere; }}
.facts td:first-child {{ color: var(--soft); white-space: nowrap; }}
pre {{ margin: 0; padding: .8rem; max-height: 30rem; overflow: auto; background: var(--card);
  border: 1px solid var(--line); border-radius: 8px; font-size: .82rem; }}
"""
)
