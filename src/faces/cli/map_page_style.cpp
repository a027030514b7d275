#include "faces/cli/map_page.hpp"

namespace extmem::cli {

std::string_view map_page_style() {
  return R"(
:root { color-scheme: light dark; --ink: #1c2024; --dim: #667; --paper: #fff; --line: #ccd; --free: #f2f3f6;
  --slab: #d9dfe8; --cached: #a9bdd6; --other: #9a9a9a; --untagged: #5f6b7a; --iova: #3f7cac; --zone: #7a4fa3; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e6ea; --dim: #99a; --paper: #15181c; --line: #3a3f48;
  --free: #22262c; --slab: #343c48; --cached: #46618a; --other: #777; --untagged: #9aa7b8; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 1500px; font: 14px/1.45 system-ui, sans-serif; color: var(--ink);
  background: var(--paper); }
h1 { font-size: 1.25rem; margin: 0 0 .2rem; }
p { margin: .2rem 0 .8rem; color: var(--dim); }
table { border-collapse: collapse; margin: .4rem 0 1rem; }
th, td { padding: .15rem .7rem .15rem 0; text-align: right; white-space: nowrap; }
th { font-weight: normal; color: var(--dim); border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; }
#tools, #legend { display: flex; flex-wrap: wrap; gap: .4rem; margin: .4rem 0; align-items: center; }
button, select { font: inherit; color: inherit; background: var(--free); border: 1px solid var(--line); border-radius: 4px;
  padding: .1rem .5rem; cursor: pointer; }
button[aria-pressed=true] { outline: 2px solid var(--iova); }
.swatch { display: inline-block; width: .8em; height: .8em; margin-right: .35em; vertical-align: -1px; border-radius: 2px;
  border: 1px solid var(--line); }
section { margin: 0 0 1.1rem; }
section h2 { font-size: .95rem; margin: 0 0 .15rem; font-weight: 600; }
section h2 span { font-weight: normal; color: var(--dim); }
canvas { display: block; width: 100%; height: 96px; border: 1px solid var(--line); cursor: crosshair; touch-action: none; }
canvas:focus { outline: 2px solid var(--iova); }
.range { color: var(--dim); font-size: .85rem; display: flex; justify-content: space-between; }
#tip { position: fixed; z-index: 2; max-width: 30rem; padding: .5rem .7rem; background: var(--paper); color: var(--ink);
  border: 1px solid var(--line); border-radius: 6px; box-shadow: 0 4px 18px #0004; pointer-events: none;
  font-size: .85rem; overflow-wrap: anywhere; }
#tip[hidden] { display: none; }
#tip b { display: block; }
)";
}

std::string_view map_page_body() {
  return R"(<h1 id="title"></h1>
<p id="about"></p>
<table id="heaps"></table>
<div id="tools">
<label>Heap <select id="heap"></select></label>
<button id="out" title="Zoom out">&minus;</button><button id="in" title="Zoom in">+</button><button id="all">Whole regions</button>
<span>Wheel zooms, dragging moves, a click pins the details. Keys, in a region: + and - zoom, arrows move, 0 shows all,
n and p tell the next piece and the one before, Enter what is in the middle, Escape ends that.</span>
</div>
<div id="legend"></div>
<main id="regions"></main>
<div id="tip" role="status" hidden></div>
<noscript>This map is drawn by a script in the page, which is switched off here.</noscript>
)";
}

}  // namespace extmem::cli
