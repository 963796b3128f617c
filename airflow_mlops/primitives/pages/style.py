"""The style sheet of a report, for light and dark."""

from __future__ import annotations

STYLE = """
:root { color-scheme: light dark; --ground: #fbfbfa; --sheet: #fff; --ink: #1d2329; --soft: #616a73; --line: #e3e6e9;
  --c0: #2563c9; --c1: #c9701c; --c2: #8a4fbe; --good: #16794a; --bad: #b3261e; --warn: #94610a; }
@media (prefers-color-scheme: dark) { :root { --ground: #14171a; --sheet: #1c2024; --ink: #e8eaec; --soft: #9aa4ad;
  --line: #31373d; --c0: #74a8ff; --c1: #f0a35e; --c2: #c79bf0; --good: #5fd39a; --bad: #ff8a80; --warn: #e8bd5f; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1040px; margin: 0 auto; padding: 32px 20px 64px; }
h1 { font-size: 26px; margin: 0 0 8px; overflow-wrap: anywhere; }
h2 { font-size: 17px; margin: 0 0 12px; }
section { background: var(--sheet); border: 1px solid var(--line); border-radius: 10px; padding: 18px 20px; margin-top: 18px; }
.verdict { display: inline-block; font-weight: 600; padding: 3px 12px; border-radius: 99px; border: 1px solid; margin: 0 0 14px; }
.good { color: var(--good); } .bad { color: var(--bad); } .warn { color: var(--warn); }
.notice { border-left: 3px solid var(--warn); padding: 8px 14px; background: var(--sheet); overflow-wrap: anywhere; }
.note, small { color: var(--soft); font-size: 13px; } td .note { display: block; } td b, th { white-space: nowrap; }
dl { display: flex; flex-wrap: wrap; gap: 8px 28px; margin: 0; }
dt { color: var(--soft); font-size: 12px; } dd { margin: 0; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th { text-align: left; color: var(--soft); font-weight: 500; font-size: 13px; }
th, td { padding: 6px 12px 6px 0; border-bottom: 1px solid var(--line); vertical-align: top; overflow-wrap: anywhere; }
tr:last-child td { border-bottom: 0; } .number { text-align: right; white-space: nowrap; }
details { margin-top: 10px; } summary { cursor: pointer; color: var(--soft); }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 400px), 1fr)); gap: 20px; }
figure { margin: 0; } figcaption { font-weight: 600; margin-bottom: 4px; } svg { width: 100%; height: auto; display: block; }
figure .note { margin: 4px 0 0; } .legend { margin: 2px 0 0; font-size: 13px; display: flex; gap: 16px; }
.key { display: inline-block; width: 10px; height: 10px; border-radius: 3px; margin-right: 6px; background: var(--key); }
.key.c0 { --key: var(--c0); } .key.c1 { --key: var(--c1); } .key.c2 { --key: var(--c2); }
svg text { font: 11px system-ui, sans-serif; fill: var(--soft); } .axis { fill: var(--ink); }
.middle { text-anchor: middle; } .end { text-anchor: end; }
.grid { stroke: var(--line); } .guide { stroke: var(--soft); stroke-dasharray: 4 4; }
.curve { fill: none; stroke-width: 1.8; stroke-linejoin: round; } .area { opacity: .16; stroke: none; }
.cloud { opacity: .45; } .error { stroke-width: 1.4; opacity: .6; } .whisker { stroke: var(--ink); stroke-width: 1.4; opacity: .7; }
.mark { stroke-width: 3; } .bar { opacity: .75; }
.curve.c0, .error.c0, .mark.c0 { stroke: var(--c0); } .curve.c1, .error.c1, .mark.c1 { stroke: var(--c1); }
.curve.c2, .error.c2, .mark.c2 { stroke: var(--c2); }
.area.c0, .dot.c0, .cloud.c0, .bar.c0 { fill: var(--c0); } .area.c1, .dot.c1, .cloud.c1, .bar.c1 { fill: var(--c1); }
.area.c2, .dot.c2, .cloud.c2, .bar.c2 { fill: var(--c2); }
"""
