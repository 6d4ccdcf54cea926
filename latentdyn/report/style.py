"""How a report looks: on paper, on a screen, on a phone."""

from __future__ import annotations

__all__ = ["CSS"]

CSS = """
:root { --ink: #222; --soft: #666; --line: #ddd; --accent: #0072b2; }
* { box-sizing: border-box; }
body { color: var(--ink); background: #fff; margin: 0 auto; max-width: 54rem;
  padding: 1.5rem 1rem 4rem; font: 1rem/1.5 system-ui, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .4rem; }
h2 { font-size: 1.2rem; margin: 2.4rem 0 .6rem; padding-bottom: .2rem;
  border-bottom: 2px solid var(--accent); }
.lead { color: var(--soft); margin: 0 0 1rem; }
nav { font-size: .9rem; } nav a { color: var(--accent); margin-right: .9rem; }
figure { margin: 0; } img { width: 100%; height: auto; display: block; }
figcaption, p.note { color: var(--soft); font-size: .9rem; margin-top: .4rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; width: 100%; margin: .4rem 0 1rem; }
th, td { text-align: left; padding: .25rem .6rem .25rem 0; vertical-align: top;
  border-bottom: 1px solid var(--line); font-variant-numeric: tabular-nums; }
tr.good td:first-child { color: #009e73; } tr.care td:first-child { color: #b07000; }
tr.poor td:first-child, tr.broken td:first-child { color: #d55e00; font-weight: bold; }
summary { cursor: pointer; color: var(--soft); font-size: .9rem; }
@media print {
  body { max-width: none; padding: 0; font-size: 10.5pt; } nav { display: none; }
  figure, tr { break-inside: avoid; } h2 { break-after: avoid; }
}
"""
