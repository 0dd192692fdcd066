// The picture of the fleet on a canvas: members, links, seeds, gossip and votes. It reads a model
// and a layout. What it shows is also in the list of nodes, which is for everybody.

import { Layout } from './layout.js';
import { FADE_MS } from './model.js';

const COLORS = ['ink', 'soft', 'line', 'card', 'accent', 'good', 'warn', 'bad', 'node', 'edge'];
const PULSE_MS = 650;
const PULSES_MAX = 160;
const SAYS_MS = 2600;
const JOIN_MS = 1600;
const STEP_BUDGET_MS = 7;
const SEEDS_HEIGHT = 74;
const FONT = '12px system-ui, sans-serif';

/** See the top of this file. */
export class Graph {
  layout = new Layout();
  selected = null;
  hovered = null;
  found = null;
  #canvas;
  #context;
  #fleet;
  #now;
  #colors = {};
  #probe;
  #view = { x: 0, y: 0, scale: 1 };
  #isOwnView = false;
  #size = { width: 0, height: 0, ratio: 1 };
  #pulses = [];
  #joined = new Map();
  #running = false;
  #still;
  #shown = [];

  /** `now` returns the time by the model's clock; `onChoose(endpoint)` is called on a choice. */
  constructor(canvas, fleet, now, { onChoose, onHover }) {
    this.#canvas = canvas;
    this.#context = canvas.getContext('2d');
    this.#fleet = fleet;
    this.#now = now;
    this.onChoose = onChoose;
    this.onHover = onHover;
    this.#still = matchMedia('(prefers-reduced-motion: reduce)');
    this.#probe = document.createElement('span');
    this.#probe.className = 'hidden';
    this.#probe.setAttribute('aria-hidden', 'true');
    canvas.after(this.#probe);
    this.recolor();
    new ResizeObserver(() => this.#resize()).observe(canvas);
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.recolor());
    this.#listen();
  }

  /** Reads the colors of the style anew. */
  recolor() {
    for (const name of COLORS) {
      this.#probe.style.color = `var(--${name})`;
      this.#colors[name] = getComputedStyle(this.#probe).color;
    }
    this.wake();
  }

  /** Takes changed members and links. */
  graph() {
    const now = this.#now();
    const isShown = (it) => !it.endedAt || now - it.endedAt < FADE_MS;
    const members = [...this.#fleet.members.values()].filter(isShown);
    const ids = members.map((it) => it.endpoint).sort();
    const edges = [...this.#fleet.links.values()].map((it) => [it.a, it.b]);
    const key = `${ids.join()}|${edges.map((it) => it.join()).sort().join(' ')}`;
    this.#shown = members;
    if (key !== this.key) {
      const isFirst = this.key === undefined;
      this.key = key;
      this.layout.set(ids, edges);
      const end = performance.now() + (this.#still.matches ? 1500 : isFirst ? 120 : 0);
      this.layout.settle(() => performance.now() > end);
      if (this.#still.matches) while (this.layout.isWarm && ids.length < 400) this.layout.step();
    }
    this.wake();
  }

  /** Takes what happened, for pulses and signs. */
  news(news) {
    if (this.#still.matches || document.hidden) return this.wake();
    const own = this.#fleet.node?.endpoint;
    const at = performance.now();
    for (const it of news) {
      if (it.kind === 'joined') this.#joined.set(it.endpoint, at);
      if (it.kind === 'gossip') {
        for (const [from, n] of Object.entries(it.heard)) this.#pulse(from, own, n, at);
        const near = it.made ? this.#fleet.neighborsOf(own).slice(0, 16) : [];
        for (const to of near) this.#pulse(own, to.endpoint, 1, at);
      }
      if (it.kind === 'voted') {
        for (const seed of this.#fleet.seeds.values()) {
          if (seed.id === it.seed) this.#pulse(seed.endpoint, it.endpoint, 1, at, it.yes);
        }
      }
    }
    this.wake();
  }

  #pulse(from, to, n, at, yes = null) {
    for (let i = 0; i < Math.min(n, 3); i += 1) {
      if (this.#pulses.length >= PULSES_MAX) return;
      this.#pulses.push({ from, to, at: at + i * 90, yes });
    }
  }

  wake() {
    if (this.#running || document.hidden) return;
    this.#running = true;
    requestAnimationFrame((time) => this.#frame(time));
  }

  #frame(time) {
    this.#running = false;
    const end = performance.now() + STEP_BUDGET_MS;
    const isWarm = this.layout.isWarm;
    if (isWarm) {
      this.layout.step();
      if (performance.now() < end - 4) this.layout.step();
    }
    const moves = this.#isOwnView ? false : this.#fit(isWarm && !this.#still.matches);
    const fades = this.#draw(time);
    this.#pulses = this.#pulses.filter((it) => time - it.at < PULSE_MS);
    for (const [id, at] of this.#joined) if (time - at > JOIN_MS) this.#joined.delete(id);
    if (isWarm || moves || this.#pulses.length || this.#joined.size) this.wake();
    else if (fades) setTimeout(() => this.wake(), this.#still.matches ? 1000 : 50);
  }

  // ---- places on the screen

  #resize() {
    const box = this.#canvas.getBoundingClientRect();
    if (!box.width) return;
    const ratio = window.devicePixelRatio || 1;
    this.#size = { width: box.width, height: box.height, ratio };
    this.#canvas.width = Math.round(box.width * ratio);
    this.#canvas.height = Math.round(box.height * ratio);
    if (!this.#isOwnView) this.#fit(false);
    this.#running = false;
    this.wake();
  }

  #fit(smoothly) {
    const { width, height } = this.#size;
    if (!width) return false;
    const box = this.layout.bounds();
    const [wide, high] = [box.right - box.left, box.bottom - box.top];
    const margin = Math.min(70, width / 7);
    const top = this.#fleet.seeds.size ? SEEDS_HEIGHT : 20;
    const room = { x: width - 2 * margin, y: height - top - 64 };
    const scale = Math.min(room.x / Math.max(wide, 1), room.y / Math.max(high, 1), 2.4);
    const target = {
      scale,
      x: width / 2 - ((box.left + box.right) / 2) * scale,
      y: top + 24 + room.y / 2 - ((box.top + box.bottom) / 2) * scale,
    };
    const part = smoothly ? 0.2 : 1;
    let rest = 0;
    for (const key of ['scale', 'x', 'y']) {
      const way = target[key] - this.#view[key];
      this.#view[key] += way * part;
      rest = Math.max(rest, Math.abs(way) * (key === 'scale' ? 50 : 1));
    }
    return smoothly && rest > 0.5;
  }

  /** Shows all of it again. */
  fit() {
    this.#isOwnView = false;
    this.layout.warm(0.02);
    this.wake();
  }

  zoom(factor, at = { x: this.#size.width / 2, y: this.#size.height / 2 }) {
    const view = this.#view;
    const scale = Math.min(8, Math.max(0.05, view.scale * factor));
    view.x = at.x - ((at.x - view.x) * scale) / view.scale;
    view.y = at.y - ((at.y - view.y) * scale) / view.scale;
    view.scale = scale;
    this.#isOwnView = true;
    this.wake();
  }

  #seedPlace(endpoint) {
    const all = [...this.#fleet.seeds.keys()];
    const at = all.indexOf(endpoint);
    if (at < 0) return null;
    const gap = Math.min(150, (this.#size.width - 40) / all.length);
    return { x: this.#size.width / 2 + (at - (all.length - 1) / 2) * gap, y: 34 };
  }

  /** Place on the screen, in CSS pixels. */
  place(endpoint) {
    const at = this.layout.place(endpoint);
    if (!at) return this.#seedPlace(endpoint);
    const { x, y, scale } = this.#view;
    return { x: at.x * scale + x, y: at.y * scale + y };
  }

  #radius(member) {
    const n = this.#shown.length;
    const base = n > 600 ? 2.4 : n > 150 ? 4 : n > 40 ? 6 : 9;
    const zoomed = Math.min(1.8, Math.max(0.8, Math.sqrt(this.#view.scale)));
    return (base + Math.sqrt(member.degree) * (n > 150 ? 1.1 : 1.6)) * zoomed;
  }

  // ---- drawing

  #draw(time) {
    const { width, height, ratio } = this.#size;
    const c = this.#context;
    if (!width) return false;
    c.setTransform(ratio, 0, 0, ratio, 0, 0);
    c.clearRect(0, 0, width, height);
    c.font = FONT;
    c.textAlign = 'center';
    c.textBaseline = 'middle';
    const now = this.#now();
    this.#drawLinks(c);
    const fades = this.#drawSeeds(c, now);
    this.#drawPulses(c, time);
    return this.#drawMembers(c, now, time) || fades;
  }

  #drawLinks(c) {
    const { selected, hovered, found } = this;
    const n = this.#fleet.links.size;
    const marked = [];
    c.lineWidth = n > 1500 ? 0.6 : 1;
    c.strokeStyle = this.#colors.edge;
    c.globalAlpha = n > 1500 ? 0.35 : n > 400 ? 0.5 : 0.9;
    if (selected || found) c.globalAlpha *= 0.5;
    c.beginPath();
    const halves = [];
    for (const it of this.#fleet.links.values()) {
      const [a, b] = [this.place(it.a), this.place(it.b)];
      if (!a || !b) continue;
      const isMarked = [it.a, it.b].some((end) => end === selected || end === hovered);
      if (isMarked) marked.push([a, b]);
      else if (!it.both) halves.push([a, b]);
      else this.#path(c, a, b);
    }
    c.stroke();
    c.setLineDash([3, 4]);
    this.#lines(c, halves);
    c.setLineDash([]);
    c.globalAlpha = 1;
    c.strokeStyle = this.#colors.accent;
    c.lineWidth = 1.6;
    this.#lines(c, marked);
  }

  #path(c, a, b) {
    c.moveTo(a.x, a.y);
    c.lineTo(b.x, b.y);
  }

  #lines(c, all) {
    c.beginPath();
    for (const [a, b] of all) this.#path(c, a, b);
    c.stroke();
  }

  #drawSeeds(c, now) {
    let says = false;
    const own = this.place(this.#fleet.node?.endpoint);
    for (const it of this.#fleet.seeds.values()) {
      const at = this.#seedPlace(it.endpoint);
      if (own && it.linked && this.#fleet.node.role === 'peer') {
        c.globalAlpha = 0.55;
        c.strokeStyle = this.#colors.edge;
        c.lineWidth = 1;
        c.setLineDash([2, 5]);
        this.#lines(c, [[{ x: at.x, y: at.y + 12 }, own]]);
        c.setLineDash([]);
        c.globalAlpha = 1;
      }
      const isOwn = it.endpoint === this.#fleet.node?.endpoint;
      c.beginPath();
      c.roundRect(at.x - 11, at.y - 11, 22, 22, 5);
      c.fillStyle = it.linked || isOwn ? this.#colors.ink : this.#colors.card;
      c.fill();
      c.strokeStyle = this.#colors[this.selected === it.endpoint ? 'accent' : 'ink'];
      c.lineWidth = this.selected === it.endpoint ? 4 : 1.5;
      if (!it.linked && !isOwn) c.setLineDash([3, 3]);
      c.stroke();
      c.setLineDash([]);
      c.fillStyle = it.linked || isOwn ? this.#colors.card : this.#colors.ink;
      c.fillText(String(it.id ?? '?'), at.x, at.y + 1);
      const word = isOwn ? ' (this)' : it.linked ? '' : ' (no link)';
      this.#label(c, `seed ${it.id ?? ''}${word}`, at.x, at.y + 22, 'soft');
      if (it.says && now - it.says.at < SAYS_MS) {
        says = true;
        const text = it.says.yes ? '✓ yes' : '✕ no';
        this.#pill(c, text, at.x, at.y - 22, it.says.yes ? 'good' : 'bad');
      }
    }
    return says;
  }

  #drawPulses(c, time) {
    for (const it of this.#pulses) {
      const [a, b] = [this.place(it.from), this.place(it.to)];
      const part = (time - it.at) / PULSE_MS;
      if (!a || !b || part < 0 || part > 1) continue;
      const eased = part * part * (3 - 2 * part);
      c.globalAlpha = Math.min(1, 3 * (1 - part));
      c.fillStyle = this.#colors[it.yes === null ? 'accent' : it.yes ? 'good' : 'bad'];
      c.beginPath();
      c.arc(a.x + (b.x - a.x) * eased, a.y + (b.y - a.y) * eased, it.yes === null ? 3 : 5, 0, 7);
      c.fill();
    }
    c.globalAlpha = 1;
  }

  #drawMembers(c, now, time) {
    const n = this.#shown.length;
    const sorted = [...this.#shown].sort((a, b) => b.degree - a.degree);
    const named = n <= 45 || this.#view.scale > 1.6 ? n : n > 400 ? 10 : 16;
    let fades = false;
    const labels = [];
    sorted.forEach((it, rank) => {
      const at = this.place(it.endpoint);
      if (!at || !this.layout.place(it.endpoint)) return;
      const age = it.endedAt ? now - it.endedAt : 0;
      if (age > FADE_MS) return;
      if (it.endedAt) fades = true;
      const isDim = this.found && !this.found.has(it.endpoint);
      c.globalAlpha = (it.endedAt ? 1 - age / FADE_MS : 1) * (isDim ? 0.22 : 1);
      const radius = this.#radius(it);
      this.#member(c, it, at, radius, time);
      const isMarked = [this.selected, this.hovered].includes(it.endpoint);
      const isTold = isMarked || it.state !== 'alive' || this.found?.has(it.endpoint);
      const isOwn = it.endpoint === this.#fleet.node?.endpoint;
      if (rank < named || isTold || isOwn) labels.push([it, at, radius, c.globalAlpha, isOwn]);
    });
    for (const [it, at, radius, alpha, isOwn] of labels) {
      c.globalAlpha = alpha;
      const name = `${this.#name(it.endpoint)}${isOwn ? ' (this node)' : ''}`;
      this.#label(c, name, at.x, at.y + radius + 10, 'ink');
      const state = stateText(it);
      const color = it.state === 'suspected' ? 'warn' : it.state === 'removed' ? 'bad' : 'soft';
      if (state) this.#pill(c, state, at.x, at.y - radius - 14, color);
    }
    c.globalAlpha = 1;
    return fades;
  }

  #member(c, it, { x, y }, radius, time) {
    const colors = this.#colors;
    const isOwn = it.endpoint === this.#fleet.node?.endpoint;
    const joined = this.#joined.get(it.endpoint);
    if (joined !== undefined) {
      const part = Math.min(1, Math.max(0, (time - joined) / JOIN_MS));
      c.save();
      c.globalAlpha *= 1 - part;
      this.#ring(c, x, y, radius + 4 + part * 22, colors.good, 2);
      c.restore();
    }
    c.beginPath();
    c.arc(x, y, radius, 0, 7);
    c.fillStyle = { alive: colors.node, suspected: colors.warn }[it.state] ?? colors.card;
    c.fill();
    if (it.state === 'removed' || it.state === 'left') {
      if (it.state === 'left') c.setLineDash([3, 3]);
      this.#ring(c, x, y, radius, it.state === 'left' ? colors.soft : colors.bad, 2);
      c.setLineDash([]);
    } else if (radius > 3.5) this.#ring(c, x, y, radius, colors.card, 1.5);
    if (it.state === 'removed') {
      const r = Math.max(3, radius * 0.55);
      c.lineWidth = 2.5;
      c.strokeStyle = colors.bad;
      this.#lines(c, [[{ x: x - r, y: y - r }, { x: x + r, y: y + r }],
        [{ x: x - r, y: y + r }, { x: x + r, y: y - r }]]);
    }
    if (it.state === 'suspected') {
      c.setLineDash([4, 3]);
      this.#ring(c, x, y, radius + 4, colors.warn, 2);
      c.setLineDash([]);
      c.fillStyle = colors.card;
      c.font = `bold ${Math.round(Math.max(9, radius * 1.2))}px system-ui, sans-serif`;
      c.fillText('!', x, y + 0.5);
      c.font = FONT;
    }
    if (isOwn) this.#ring(c, x, y, radius + 3.5, colors.ink, 1.5);
    if (this.selected === it.endpoint) this.#ring(c, x, y, radius + 6, colors.accent, 3);
    else if (this.hovered === it.endpoint) this.#ring(c, x, y, radius + 5, colors.accent, 1.5);
  }

  #ring(c, x, y, radius, color, width) {
    c.beginPath();
    c.arc(x, y, radius, 0, 7);
    c.strokeStyle = color;
    c.lineWidth = width;
    c.stroke();
  }

  #label(c, text, x, y, color) {
    c.lineWidth = 3.5;
    c.lineJoin = 'round';
    c.strokeStyle = this.#colors.card;
    c.strokeText(text, x, y);
    c.fillStyle = this.#colors[color];
    c.fillText(text, x, y);
  }

  #pill(c, text, x, y, color) {
    const wide = c.measureText(text).width + 14;
    c.beginPath();
    c.roundRect(x - wide / 2, y - 10, wide, 20, 10);
    c.fillStyle = this.#colors[color];
    c.fill();
    c.fillStyle = this.#colors.card;
    c.fillText(text, x, y + 0.5);
  }

  #name(endpoint) {
    const name = this.#fleet.nameOf(endpoint);
    if (name) return name;
    return this.#shown.length > 6 && this.isOneHost ? `:${endpoint.split(':').at(-1)}` : endpoint;
  }

  /** True if all members have one address, so that ports say enough. */
  get isOneHost() {
    const host = (it) => it.slice(0, it.lastIndexOf(':'));
    const first = this.#shown[0] && host(this.#shown[0].endpoint);
    return this.#shown.every((it) => host(it.endpoint) === first);
  }

  // ---- pointer and keys

  /** The node at a point, the nearest one first. */
  #at(x, y) {
    let best = null;
    let nearest = Infinity;
    const take = (endpoint, radius) => {
      const at = this.place(endpoint);
      if (!at) return;
      const far = Math.hypot(at.x - x, at.y - y) - radius;
      if (far < 9 && far < nearest) [best, nearest] = [endpoint, far];
    };
    for (const it of this.#shown) take(it.endpoint, this.#radius(it));
    for (const it of this.#fleet.seeds.keys()) take(it, 12);
    return best;
  }

  #listen() {
    const canvas = this.#canvas;
    const pointers = new Map();
    let moved = 0;
    const local = (event) => {
      const box = canvas.getBoundingClientRect();
      return { x: event.clientX - box.left, y: event.clientY - box.top };
    };
    canvas.addEventListener('pointerdown', (event) => {
      pointers.set(event.pointerId, local(event));
      moved = 0;
    });
    canvas.addEventListener('pointermove', (event) => {
      const at = local(event);
      const before = pointers.get(event.pointerId);
      if (!before) return this.#hover(this.#at(at.x, at.y));
      const others = [...pointers].filter(([id]) => id !== event.pointerId);
      moved += Math.hypot(at.x - before.x, at.y - before.y);
      pointers.set(event.pointerId, at);
      if (others.length) {
        const other = others[0][1];
        const far = (it) => Math.hypot(it.x - other.x, it.y - other.y) || 1;
        this.zoom(far(at) / far(before), other);
      } else if (moved > 4) {
        // Only a drag captures the pointer; a click stays a click.
        canvas.setPointerCapture(event.pointerId);
        this.#isOwnView = true;
        this.#view.x += at.x - before.x;
        this.#view.y += at.y - before.y;
        this.wake();
      }
    });
    const end = (event) => pointers.delete(event.pointerId);
    for (const name of ['pointerup', 'pointercancel', 'pointerleave']) {
      canvas.addEventListener(name, end);
    }
    canvas.addEventListener('pointerleave', () => this.#hover(null));
    canvas.addEventListener('click', (event) => {
      const at = local(event);
      if (moved <= 4) this.onChoose(this.#at(at.x, at.y));
    });
    canvas.addEventListener('wheel', (event) => {
      // A plain wheel scrolls the page, as everywhere.
      if (!event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      this.zoom(Math.exp(-event.deltaY / 300), local(event));
    }, { passive: false });
    canvas.addEventListener('keydown', (event) => this.#key(event));
    canvas.addEventListener('blur', () => this.#hover(null));
  }

  #hover(endpoint) {
    if (endpoint === this.hovered) return;
    this.hovered = endpoint;
    this.#canvas.classList.toggle('over', endpoint !== null);
    this.onHover(endpoint);
    this.wake();
  }

  #key(event) {
    const ways = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };
    const way = ways[event.key];
    if (way) this.#hover(this.#toward(way) ?? this.hovered);
    else if (event.key === 'Enter' || event.key === ' ') this.onChoose(this.hovered);
    else if (event.key === 'Escape') this.onChoose(null);
    else if (event.key === '+' || event.key === '=') this.zoom(1.3);
    else if (event.key === '-') this.zoom(1 / 1.3);
    else if (event.key === '0') this.fit();
    else return;
    event.preventDefault();
  }

  #toward([dx, dy]) {
    const from = this.hovered ?? this.selected ?? this.#fleet.node?.endpoint;
    const here = this.place(from);
    if (!this.hovered || !here) return here ? from : this.#shown[0]?.endpoint;
    const all = [...this.#shown.map((it) => it.endpoint), ...this.#fleet.seeds.keys()];
    let best = null;
    let least = Infinity;
    for (const it of all) {
      const at = this.place(it);
      if (!at || it === from) continue;
      const along = (at.x - here.x) * dx + (at.y - here.y) * dy;
      const aside = Math.abs((at.x - here.x) * dy) + Math.abs((at.y - here.y) * dx);
      const cost = along + 2 * aside;
      if (along > 2 && cost < least) [best, least] = [it, cost];
    }
    return best;
  }
}

/** The state of a member in words, empty while it is alive. */
export function stateText(it) {
  if (it.state === 'suspected') {
    return it.needed ? `${it.count} of ${it.needed} confirm` : 'suspected';
  }
  return it.state === 'alive' ? '' : it.state;
}
