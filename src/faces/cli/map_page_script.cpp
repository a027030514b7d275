#include "faces/cli/map_page.hpp"

namespace extmem::cli {

std::string_view map_page_script() {
  return R"js('use strict';
const data = JSON.parse(document.getElementById('data').textContent);
const OFFSET = 0, BYTES = 1, KIND = 2, HELD = 3, CACHED = 4, FREE = 5, SIZE = 6, COUNT = 7, ZONE = 8, TAGS = 9;
const KINDS = ['free', 'span', 'slab', 'memzone', 'several small pieces'];
const COLORS = ['#4da3a8', '#8a86c9', '#c94f7c', '#5fb8dd', '#8f2d5b', '#58a65c', '#b8a13a', '#a06cc0',
  '#d0803d', '#3d6fd0', '#7a9a2e', '#c05050', '#2e9a7a', '#b05fb0', '#8a6d3b', '#5070a0'];
const $ = id => document.getElementById(id);
const css = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const make = (name, text, parent) => {
  const element = document.createElement(name);
  if (text !== undefined) element.textContent = text;
  if (parent) parent.append(element);
  return element;
};
const size = bytes => {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let unit = 0, value = bytes;
  while (value >= 1024 && unit < units.length - 1) { value /= 1024; ++unit; }
  return (Number.isInteger(value) ? value : value.toFixed(1)) + ' ' + units[unit];
};
const hex = n => '0x' + n.toString(16);
const share = (part, whole) => whole === 0 ? '0 %' : (part / whole * 100).toFixed(1) + ' %';
const tagName = i => i === 0 ? '(untagged)' : data.tags[i][0];

// Tags by the bytes that they hold: the largest ones have colours.
const order = data.tags.map((tag, i) => i).filter(i => data.tags[i][1] > 0).sort((a, b) => data.tags[b][1] - data.tags[a][1]);
const colorOf = new Map();
for (const i of order) {
  if (i === 0) colorOf.set(0, '--untagged');
  else if (colorOf.size - (colorOf.has(0) ? 1 : 0) < COLORS.length) colorOf.set(i, COLORS[colorOf.size - (colorOf.has(0) ? 1 : 0)]);
}
let chosen = null;  // the tag that stands out
const paint = i => {
  const color = colorOf.get(i) || '--other';
  return color.startsWith('--') ? css(color) : color;
};

// ---- one region ----------------------------------------------------------------------------------------
class Region {
  constructor(region) {
    this.r = region;
    this.from = 0;
    this.to = region.bytes;
    this.pin = null;
    this.box = make('section', undefined, $('regions'));
    this.box.dataset.slot = region.slot;
    const title = make('h2', 'Region ' + region.slot + ' ', this.box);
    const heap = data.heaps.find(h => h.id === region.heap);
    let held = 0;
    for (const p of region.pieces) held += p[HELD];
    make('span', [heap ? heap.name : '?', region.kind, size(region.bytes), 'OS pages ' + size(region.osPage),
      region.node >= 0 ? 'node ' + region.node : null, share(held, region.bytes) + ' held',
      region.runs ? region.runs + (region.runs === 1 ? ' IOVA run' : ' IOVA runs') : 'no IOVAs',
      region.draining ? 'draining' : null].filter(x => x).join(', '), title);
    this.canvas = make('canvas', undefined, this.box);
    this.canvas.tabIndex = 0;
    this.canvas.setAttribute('role', 'img');
    this.canvas.setAttribute('aria-label', 'Map of region ' + region.slot + '; n and p tell one piece after the other');
    this.range = make('div', undefined, this.box);
    this.range.className = 'range';
    this.left = make('span', '', this.range);
    this.middle = make('span', '', this.range);
    this.right = make('span', '', this.range);
    this.canvas.addEventListener('wheel', e => { e.preventDefault(); this.zoom(e.deltaY < 0 ? 0.8 : 1.25, this.at(e)); }, {passive: false});
    this.canvas.addEventListener('pointerdown', e => { this.drag = {x: e.clientX, from: this.from, moved: false}; });
    this.canvas.addEventListener('pointermove', e => this.move(e));
    this.canvas.addEventListener('pointerup', e => this.up(e));
    this.canvas.addEventListener('pointerleave', () => { this.drag = null; if (this.pin === null) hideTip(); });
    this.canvas.addEventListener('dblclick', () => this.whole());
    this.canvas.addEventListener('keydown', e => this.key(e));
  }
  at(e) {
    const box = this.canvas.getBoundingClientRect();
    const part = Math.min(Math.max((e.clientX - box.left) / box.width, 0), 0.999999);
    return Math.floor(this.from + part * (this.to - this.from));
  }
  zoom(factor, center) {
    const least = Math.min(this.r.bytes, 1024);
    const length = Math.min(Math.max((this.to - this.from) * factor, least), this.r.bytes);
    const part = (center - this.from) / (this.to - this.from);
    this.show(center - part * length, length);
  }
  show(from, length) {
    this.from = Math.min(Math.max(0, Math.round(from)), this.r.bytes - Math.round(length));
    this.to = this.from + Math.round(length);
    this.draw();
  }
  whole() { this.show(0, this.r.bytes); }
  move(e) {
    if (this.drag && Math.abs(e.clientX - this.drag.x) > 3) this.drag.moved = true;
    if (this.drag && this.drag.moved) {
      const width = this.canvas.getBoundingClientRect().width;
      this.show(this.drag.from - (e.clientX - this.drag.x) / width * (this.to - this.from), this.to - this.from);
    }
    if (this.pin === null) showTip(this, this.at(e), e.clientX, e.clientY);
  }
  up(e) {
    const moved = this.drag && this.drag.moved;
    this.drag = null;
    if (moved) return;
    this.pin = this.pin === null ? this.at(e) : null;
    showTip(this, this.at(e), e.clientX, e.clientY);
    this.draw();
  }
  /// Pins the details of what lies there, as a click does; the view follows.
  point(offset) {
    const length = this.to - this.from;
    this.pin = Math.min(Math.max(offset, 0), this.r.bytes - 1);
    if (this.pin < this.from || this.pin >= this.to) this.show(this.pin - length / 2, length); else this.draw();
    const box = this.canvas.getBoundingClientRect();
    showTip(this, this.pin, box.left + (this.pin - this.from) / length * box.width, box.top + 40);
  }
  step(by) {
    const last = this.r.pieces.length - 1;
    const i = this.pin === null ? Region.find(this.r.pieces, this.from) : Region.find(this.r.pieces, this.pin) + by;
    const p = this.r.pieces[Math.min(Math.max(i, 0), last)];
    if (p) this.point(p[OFFSET] + Math.floor(p[BYTES] / 2));
  }
  unpin() { this.pin = null; hideTip(); this.draw(); }
  key(e) {
    const length = this.to - this.from;
    const acts = {'+': () => this.zoom(0.5, this.from + length / 2), '=': () => this.zoom(0.5, this.from + length / 2),
      '-': () => this.zoom(2, this.from + length / 2), '0': () => this.whole(),
      'ArrowLeft': () => this.show(this.from - length / 4, length), 'ArrowRight': () => this.show(this.from + length / 4, length),
      'n': () => this.step(1), 'p': () => this.step(-1),
      'Enter': () => this.pin === null ? this.point(this.from + Math.floor(length / 2)) : this.unpin(),
      'Escape': () => this.unpin()};
    if (!acts[e.key]) return;
    e.preventDefault();
    acts[e.key]();
  }
  /// The index of the last element that begins at or before an offset.
  static find(list, offset) {
    let low = 0, high = list.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (list[middle][0] <= offset) low = middle + 1; else high = middle;
    }
    return low - 1;
  }
  piece(offset) {
    const i = Region.find(this.r.pieces, offset);
    return i >= 0 && offset < this.r.pieces[i][OFFSET] + this.r.pieces[i][BYTES] ? this.r.pieces[i] : null;
  }
  run(offset) {
    const i = Region.find(this.r.iovas, offset);
    return i >= 0 && offset < this.r.iovas[i][0] + this.r.iovas[i][1] ? this.r.iovas[i] : null;
  }
  draw() {
    const ratio = window.devicePixelRatio || 1;
    const width = Math.max(Math.round(this.canvas.clientWidth), 1), height = 96, bar = 78;
    this.canvas.width = width * ratio;
    this.canvas.height = height * ratio;
    const g = this.canvas.getContext('2d');
    g.scale(ratio, ratio);
    const scale = width / (this.to - this.from);
    const x = offset => (offset - this.from) * scale;
    g.fillStyle = css('--free');
    g.fillRect(0, 0, width, bar);
    // A stack of shares: tags from the bottom, then cached, then free in slabs, then free.
    const stack = (left, right, parts, all) => {
      let y = bar;
      for (const [color, bytes, strong] of parts) {
        const h = bytes / all * bar;
        g.globalAlpha = chosen === null || strong ? 1 : 0.18;
        g.fillStyle = color;
        g.fillRect(left, y - h, Math.max(right - left, 1), h);
        y -= h;
      }
      g.globalAlpha = 1;
    };
    const partsOf = sums => {
      const parts = [];
      for (const i of order) if (sums.tags.has(i)) parts.push([paint(i), sums.tags.get(i), chosen === i]);
      parts.push([css('--zone'), sums.zone, false]);
      parts.push([css('--cached'), sums.cached, false]);
      parts.push([css('--slab'), sums.slab, false]);
      return parts;
    };
    const fresh = () => ({tags: new Map(), zone: 0, cached: 0, slab: 0, all: 0});
    const add = (sums, p, part) => {
      let tagged = 0;
      for (let i = TAGS; i < p.length; i += 2) {
        sums.tags.set(p[i], (sums.tags.get(p[i]) || 0) + p[i + 1] * part);
        tagged += p[i + 1];
      }
      sums.zone += (p[HELD] - tagged) * part;
      sums.cached += p[CACHED] * part;
      sums.slab += (p[BYTES] - p[HELD] - p[CACHED] - p[FREE]) * part;
      sums.all += p[BYTES] * part;
    };
    let column = -1, sums = fresh();
    const flush = () => { if (sums.all > 0) stack(column, column + 1, partsOf(sums), sums.all); sums = fresh(); };
    const pieces = this.r.pieces;
    for (let i = Math.max(Region.find(pieces, this.from), 0); i < pieces.length && pieces[i][OFFSET] < this.to; ++i) {
      const p = pieces[i], left = x(p[OFFSET]), right = x(p[OFFSET] + p[BYTES]);
      if (right <= 0) continue;
      if (right - left >= 2) {
        flush();
        column = -1;
        const one = fresh();
        add(one, p, 1);
        stack(Math.max(left, 0), Math.min(right, width), partsOf(one), one.all);
        if (right - left > 5) {
          g.fillStyle = css('--line');
          g.fillRect(left, 0, 0.5, bar);
        }
        if (p[ZONE] && right - left > 30) {
          g.fillStyle = css('--ink');
          g.font = '11px system-ui, sans-serif';
          g.save();
          g.beginPath();
          g.rect(left, 0, right - left, bar);
          g.clip();
          g.fillText(p[ZONE], Math.max(left, 0) + 3, 12);
          g.restore();
        }
      } else {
        const at = Math.floor(left);
        if (at !== column) { flush(); column = at; }
        add(sums, p, 1);
      }
    }
    flush();
    // Runs of IOVAs: neighbours in two shades.
    const runs = this.r.iovas;
    for (let i = Math.max(Region.find(runs, this.from), 0); i < runs.length && runs[i][0] < this.to; ++i) {
      if (!runs[i][2]) continue;
      const left = Math.max(x(runs[i][0]), 0), right = Math.min(x(runs[i][0] + runs[i][1]), width);
      if (right <= 0) continue;
      g.fillStyle = css('--iova');
      g.globalAlpha = i % 2 ? 0.55 : 1;
      g.fillRect(left, bar + 6, Math.max(right - left, 0.5), 8);
      g.globalAlpha = 1;
    }
    if (this.pin !== null && this.pin >= this.from && this.pin < this.to) {
      g.fillStyle = css('--ink');
      g.fillRect(x(this.pin), 0, 1, height);
    }
    this.left.textContent = hex(this.from);
    this.middle.textContent = this.from === 0 && this.to === this.r.bytes ? 'whole region' : size(this.to - this.from) + ' shown';
    this.right.textContent = hex(this.to);
  }
}

// ---- details -------------------------------------------------------------------------------------------
function hideTip() { $('tip').hidden = true; }
function showTip(region, offset, x, y) {
  const p = region.piece(offset), tip = $('tip');
  tip.textContent = '';
  if (!p) return hideTip();
  make('b', p[ZONE] ? 'memzone ' + p[ZONE] : KINDS[p[KIND]], tip);
  const line = text => make('div', text, tip);
  line('region ' + region.r.slot + ', ' + hex(p[OFFSET]) + ' to ' + hex(p[OFFSET] + p[BYTES]) + ', ' + size(p[BYTES]));
  if (p[KIND] === 2) line(p[COUNT] + ' objects of ' + size(p[SIZE]) + ', ' + share(p[HELD], p[BYTES]) + ' held');
  else if (p[KIND] === 4) line(p[COUNT] + ' pieces, ' + share(p[HELD], p[BYTES]) + ' held');
  const tags = [];
  for (let i = TAGS; i < p.length; i += 2) tags.push([p[i], p[i + 1]]);
  tags.sort((a, b) => b[1] - a[1]);
  for (const [i, bytes] of tags.slice(0, 8)) {
    const row = line('');
    const swatch = make('span', '', row);
    swatch.className = 'swatch';
    swatch.style.background = paint(i);
    row.append(tagName(i) + ': ' + size(bytes));
  }
  if (tags.length > 8) line('and ' + (tags.length - 8) + ' more tags');
  if (p[CACHED]) line('cached by threads: ' + size(p[CACHED]));
  const run = region.run(offset);
  if (run && run[2]) line('IOVA run ' + run[2] + ', ' + size(run[1]) + ', this byte ' + hex(BigInt(run[2]) + BigInt(offset - run[0])));
  else if (region.r.runs > region.r.iovas.length) line('IOVA: beyond the runs that the page has');
  else line('no IOVA known');
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  tip.style.left = Math.max(4, Math.min(x + 14, window.innerWidth - box.width - 8)) + 'px';
  tip.style.top = Math.max(4, y + 18 + box.height > window.innerHeight ? y - box.height - 12 : y + 18) + 'px';
}

// ---- the page ------------------------------------------------------------------------------------------
$('title').textContent = 'extmem: domain ' + data.domain;
const total = data.heaps.reduce((sum, h) => sum + h.total, 0), held = data.heaps.reduce((sum, h) => sum + h.held, 0);
$('about').textContent = size(held) + ' held of ' + size(total) + ' in ' + data.regions.length + ' regions; metadata ' +
  size(data.metadata) + (data.heaps.every(h => h.stable) ? '' : '; a heap was changed while it was read: figures are of no one instant');
const head = make('tr', undefined, $('heaps'));
for (const name of ['Heap', 'memory', 'held', 'objects', 'cached', 'free in slabs', 'free', 'longest free', 'most held'])
  make('th', name, head);
for (const h of data.heaps) {
  const row = make('tr', undefined, $('heaps'));
  for (const text of [h.name + (h.exact ? ' (exact)' : ''), size(h.total), size(h.held) + ' (' + share(h.held, h.total) + ')',
    h.objects.toLocaleString('en'), size(h.cached), size(h.slabFree), size(h.free), size(h.largest), size(h.peak)]) make('td', text, row);
}
const regions = data.regions.map(r => new Region(r));
if (!regions.length) make('p', 'There is no region to draw.', $('regions'));
make('option', 'all', $('heap')).value = '';
for (const h of data.heaps) make('option', h.name, $('heap')).value = h.id;
$('heap').onchange = () => {
  for (const r of regions) r.box.hidden = $('heap').value !== '' && String(r.r.heap) !== $('heap').value;
  drawAll();
};
const shownRegions = () => regions.filter(r => !r.box.hidden);
$('in').onclick = () => { for (const r of shownRegions()) r.zoom(0.5, (r.from + r.to) / 2); };
$('out').onclick = () => { for (const r of shownRegions()) r.zoom(2, (r.from + r.to) / 2); };
$('all').onclick = () => { for (const r of regions) r.whole(); };
function legend() {
  $('legend').textContent = '';
  const entry = (color, text, tag) => {
    const b = make('button', undefined, $('legend'));
    const swatch = make('span', '', b);
    swatch.className = 'swatch';
    swatch.style.background = color;
    b.append(text);
    if (tag === undefined) { b.disabled = true; return; }
    b.dataset.tag = tag;
    b.setAttribute('aria-pressed', chosen === tag);
    b.onclick = () => { chosen = chosen === tag ? null : tag; legend(); drawAll(); };
  };
  for (const i of order.slice(0, 60)) entry(paint(i), tagName(i) + ' ' + size(data.tags[i][1]), i);
  if (order.length > 60) make('span', 'and ' + (order.length - 60) + ' more', $('legend'));
  entry(css('--zone'), 'memzones');
  entry(css('--cached'), 'cached');
  entry(css('--slab'), 'free in slabs');
  entry(css('--free'), 'free');
  entry(css('--iova'), 'IOVA runs');
}
function drawAll() { for (const r of shownRegions()) r.draw(); }
legend();
drawAll();
new ResizeObserver(drawAll).observe($('regions'));
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => { legend(); drawAll(); });
document.documentElement.dataset.ready = 'yes';
)js";
}

}  // namespace extmem::cli
