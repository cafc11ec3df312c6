#include "experiments/report/style.h"

namespace laptopdiff::report {

// Colours are variables, so that tables and drawings follow the reader's setting. c0 is the teacher, c1 to c8 are
// settings; marks have 3:1 against both backgrounds, text 4.5:1.
const char* const kStyle = R"css(
:root {
  color-scheme: light dark;
  --paper: #fbfbfa; --card: #ffffff; --ink: #1b2129; --soft: #56606c; --line: #dfe3e8; --grid: #eceff2; --accent:
    #1f5fbf;
  --good: #18794e; --bad: #b42318;
  --k-resnet: #2f6fd0; --k-transformer: #d4700a; --k-attention: #2c8f57;
  --c0: #4a5360; --c1: #1f6fd1; --c2: #d0640c; --c3: #23875a; --c4: #a63fb5; --c5: #c2362f; --c6: #0f8290; --c7:
    #8c6a1f; --c8: #6457d6;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #12151a; --card: #1a1f26; --ink: #e7ebf0; --soft: #a2adba; --line: #323a45; --grid: #262d36; --accent:
      #7db2ff;
    --good: #5fce94; --bad: #ff8b7e;
    --k-resnet: #6ba3f7; --k-transformer: #f0a04b; --k-attention: #5cc78b;
    --c0: #b4bfcc; --c1: #69a7ff; --c2: #f59b4b; --c3: #4fc48a; --c4: #d883e6; --c5: #ff7d73; --c6: #45c4d3; --c7:
      #d0aa55; --c8: #a59bff;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-behavior: smooth; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI",
  Roboto, "Helvetica Neue", Arial, sans-serif; }
header, main, footer { max-width: 1080px; margin: 0 auto; padding: 0 20px; }
header { padding-top: 44px; }
h1 { font-size: clamp(1.6rem, 4.5vw, 2.35rem); line-height: 1.18; letter-spacing: -0.015em; margin: 0 0 10px;
  text-wrap: balance; }
h2 { font-size: 1.45rem; line-height: 1.25; letter-spacing: -0.01em; margin: 0 0 10px; }
h3 { font-size: 1.05rem; margin: 26px 0 4px; }
h3 small { font-weight: 400; color: var(--soft); margin-left: 6px; }
p { max-width: 80ch; margin: 8px 0 14px; }
a { color: var(--accent); }
code, pre { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size:
  0.88em; overflow-wrap: anywhere; }
pre { margin: 0; padding: 12px; overflow-wrap: normal; }
.kicker { color: var(--soft); margin: 0 0 6px; font-size: 0.9rem; }
.lead { font-size: 1.1rem; max-width: 80ch; }
.made { color: var(--soft); font-size: 0.86rem; max-width: none; }
nav ul { list-style: none; display: flex; flex-wrap: wrap; gap: 6px; padding: 0; margin: 18px 0 8px; }
nav a { display: block; padding: 5px 12px; border: 1px solid var(--line); border-radius: 999px; background:
  var(--card); text-decoration: none; font-size: 0.88rem; }
nav a:hover, nav a:focus-visible { border-color: var(--accent); }
section { padding: 34px 0 8px; border-top: 1px solid var(--line); margin-top: 30px; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(180px, 1fr)); gap: 12px; margin: 20px 0 6px; }
.card { background: var(--card); border: 1px solid var(--line); border-top: 4px solid var(--c); border-radius: 8px;
  padding: 12px 14px; min-width: 0; }
.card p { margin: 0 0 8px; color: var(--soft); font-size: 0.82rem; }
.card .name { color: inherit; margin: 0; font-size: 0.98rem; font-weight: 650; line-height: 1.35; overflow-wrap:
  anywhere; }
.card dl { margin: 0; }
.card dl div { display: flex; flex-direction: row-reverse; justify-content: space-between; align-items: baseline; gap:
  8px; }
.card dt { color: var(--soft); font-size: 0.82rem; text-align: right; }
.card dd { margin: 0; font-variant-numeric: tabular-nums; font-size: 0.92rem; }
.card dl div:first-child { margin-bottom: 6px; flex-direction: column-reverse; align-items: flex-start; gap: 0; }
.card dl div:first-child dd { font-size: 1.55rem; font-weight: 650; line-height: 1.2; }
.worse { color: var(--bad); } .better { color: var(--good); }
figure { margin: 14px 0 22px; }
figcaption { color: var(--soft); font-size: 0.88rem; max-width: 94ch; margin-top: 6px; }
.scroll { overflow-x: auto; max-width: 100%; border-radius: 6px; }
.scroll:focus-visible, summary:focus-visible, a:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
table { border-collapse: collapse; font-size: 0.9rem; background: var(--card); min-width: min(100%, 420px); }
th, td { padding: 7px 12px; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
thead th { font-size: 0.82rem; color: var(--soft); font-weight: 600; vertical-align: bottom; white-space: nowrap; }
tbody th { font-weight: 600; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
th small, td small { display: block; color: var(--soft); font-weight: 400; font-size: 0.78rem; }
td small.worse { color: var(--bad); } td small.better { color: var(--good); }
table.quality { width: 100%; }
table.quality thead th:not(:first-child) { text-align: right; }
.quality th:first-child, .pictures th:first-child { position: sticky; left: 0; background: var(--card); z-index: 1; }
.fact { font-family: ui-monospace, Menlo, Consolas, monospace; font-size: 0.82rem; }
.share { display: inline-block; height: 9px; background: var(--accent); border-radius: 2px; opacity: 0.75; }
.pictures td { padding: 4px; } .pictures th { font-size: 0.82rem; } .pictures tbody th { font-weight: 400; min-width:
  110px; max-width: 190px; vertical-align: middle; padding: 4px 10px 4px 6px; }
.pictures thead th { vertical-align: top; white-space: normal; overflow-wrap: anywhere; min-width: 92px;
  max-width: 104px; padding: 7px 6px 7px 4px; }
.band { display: block; width: 84px; height: 4px; border-radius: 2px; background: var(--c); margin-bottom: 5px; }
.pictures img { display: block; width: 84px; height: 84px; object-fit: contain; border-radius: 4px; background:
  var(--grid); }
.pixels { image-rendering: pixelated; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 4px 18px; padding: 0; margin: 6px 0 8px; font-size:
  0.86rem; color: var(--soft); }
.legend li { display: flex; align-items: center; gap: 7px; min-width: 0; overflow-wrap: anywhere; }
.legend svg { flex: none; width: auto; height: 14px; }
.swatch { display: inline-block; flex: none; width: 11px; height: 11px; border-radius: 3px; background: var(--c);
  margin-right: 7px; }
.legend .swatch { margin-right: 0; }
.sign { font-weight: 700; color: var(--ink); }
.dash { width: 24px; border-top: 2px dashed var(--soft); }
.hatched { background: repeating-linear-gradient(45deg, var(--soft) 0 1.5px, transparent 1.5px 4px); border: 1px solid
  var(--soft); }
.plain { padding-left: 20px; color: var(--soft); font-size: 0.9rem; }
.plain strong { color: var(--ink); }
.missing { color: var(--soft); font-style: italic; border-left: 3px solid var(--line); padding-left: 12px; }
details { border: 1px solid var(--line); border-radius: 8px; background: var(--card); margin: 12px 0; }
summary { cursor: pointer; padding: 9px 14px; font-size: 0.92rem; }
details > *:not(summary) { margin-left: 14px; margin-right: 14px; margin-bottom: 12px; }
footer { color: var(--soft); font-size: 0.86rem; padding-top: 24px; padding-bottom: 60px; }
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 400px), 1fr)); gap: 14px; }
.panels.wide { grid-template-columns: minmax(0, 1fr); }
.panel { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 8px; min-width: 0; }
.maps { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 470px), 1fr)); gap: 14px; }
.maps figure { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 12px; margin: 0;
  min-width: 0; }
svg { display: block; width: 100%; height: auto; font-family: inherit; }
.panel svg { margin: 0 auto; }
.scroll > svg { min-width: 600px; } .maps .scroll > svg { min-width: 420px; }
svg text { font-size: 12px; fill: var(--ink); }
svg .tick { font-size: 11px; fill: var(--soft); font-variant-numeric: tabular-nums; }
svg .halo { paint-order: stroke; stroke: var(--card); stroke-width: 4px; }
svg .label { fill: var(--soft); } svg .strong { font-weight: 650; }
svg .middle { text-anchor: middle; } svg .end { text-anchor: end; }
svg .grid { stroke: var(--grid); stroke-width: 1; } svg .axis { stroke: var(--soft); stroke-width: 1; }
svg .fill { fill: var(--c); } svg .stroke { stroke: var(--c); fill: none; stroke-width: 1.5; } svg .thick {
  stroke-width: 3; stroke-linecap: round; }
svg .series { stroke-width: 2; stroke-linejoin: round; }
svg .d1 { stroke-dasharray: none; } svg .d2 { stroke-dasharray: 7 3; } svg .d3 { stroke-dasharray: 2 3; } svg .d0 {
  stroke-dasharray: 9 3 2 3; }
svg .reference { stroke: var(--soft); stroke-width: 1.3; stroke-dasharray: 4 4; }
svg .whisker { stroke: var(--ink); stroke-width: 1.1; } svg .faint { fill: var(--soft); opacity: 0.55; }
svg .cross { stroke: var(--ink); stroke-width: 1.6; stroke-linecap: round; }
svg .bar:hover, svg .cell:hover, svg .part:hover { filter: brightness(1.15); }
svg .point { stroke: var(--card); stroke-width: 1; fill: var(--c); fill-opacity: 0.9; }
svg .cell { stroke: var(--c); stroke-width: 1; rx: 3px; } svg .cell-text { font-size: 11px; font-weight: 600; } svg
  .gone { fill: var(--soft); paint-order: stroke; stroke: var(--card); stroke-width: 5px; }
svg .bypassed { fill: transparent; } svg .cell ~ .cross { stroke: var(--soft); stroke-width: 1.2; }
svg .dropped { fill: url(#hatch); stroke: var(--soft); stroke-dasharray: 3 2; }
svg .hatch { stroke: var(--soft); stroke-width: 1.6; }
svg .skip { stroke: var(--soft); stroke-width: 1; stroke-dasharray: 3 4; } svg .skip-head { stroke: var(--soft);
  stroke-width: 1; }
svg .part { stroke: var(--card); stroke-width: 1; } svg .part-text { fill: #fff; font-size: 11px; font-weight: 600;
  pointer-events: none; }
.defs { position: absolute; width: 0; height: 0; }
.resnet { --c: var(--k-resnet); } .transformer { --c: var(--k-transformer); } .attention { --c: var(--k-attention); }
.audit-solver { --c: var(--c1); } .audit-random { --c: var(--c2); } .audit-preset { --c: var(--c4); } .audit-spec { --c: var(--c3); }
.c0 { --c: var(--c0); } .c1 { --c: var(--c1); } .c2 { --c: var(--c2); } .c3 { --c: var(--c3); } .c4 { --c: var(--c4); }
.c5 { --c: var(--c5); } .c6 { --c: var(--c6); } .c7 { --c: var(--c7); } .c8 { --c: var(--c8); }
@media (max-width: 600px) {
  header, main, footer { padding-left: 14px; padding-right: 14px; }
  header { padding-top: 24px; }
  .cards { grid-template-columns: repeat(auto-fit, minmax(155px, 1fr)); gap: 8px; }
  .card { padding: 10px; } .card dt, .card dd { white-space: nowrap; } .card dt { font-size: 0.76rem; } .card dd {
    font-size: 0.84rem; }
  .panel svg .tick, .panel svg .label { font-size: 14px; }
  th, td { padding: 6px 8px; }
  .pictures img { width: 64px; height: 64px; } .pictures thead th { min-width: 72px; max-width: 84px; font-size:
    0.72rem; } .pictures tbody th { min-width: 84px; max-width: 100px; font-size: 0.74rem; }
  .quality th:first-child { max-width: 120px; overflow-wrap: anywhere; }
}
@media print { nav { display: none; } .scroll { overflow: visible; } section { break-inside: auto; } figure {
  break-inside: avoid; } }
)css";

}  // namespace laptopdiff::report
