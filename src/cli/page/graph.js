// The picture of a fleet on a canvas: members, links, seeds, gossip, votes. It reads a model. All
// that it shows is in the list of nodes too, which is for everybody.

import { Layout } from './layout.js';
import { FADE_MS } from './model.js';

const COLORS = ['ink', 'soft', 'card', 'accent', 'good', 'warn', 'bad', 'node', 'edge'];
const PULSE_MS = 650;
const PULSES_MAX = 160;
const SAYS_MS = 2600;
const JOIN_MS = 1600;
const SEEDS_HIGH = 70;
const FONT = 'px system-ui, sans-serif';
const WAYS = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };

/** The state of a member in words; empty while it is alive. */
export function stateText(it) {
	if (it.state === 'suspected' && it.needed) return `${it.count} of ${it.needed} confirm`;
	return it.state === 'alive' ? '' : it.state;
}

export class Graph {
	selected = null;
	/** Endpoints that a search found, or null. */
	found = null;
	#layout = new Layout();
	#canvas;
	#c;
	#fleet;
	#on;
	#colors = {};
	#probe;
	#still = matchMedia('(prefers-reduced-motion: reduce)');
	#view = { x: 0, y: 0, scale: 1 };
	#isMoved = false;
	#size = { width: 0, height: 0 };
	#pulses = [];
	#joined = new Map();
	#shown = [];
	#ghosts = new Map();
	#hovered = null;
	#key = null;
	#graphs = 0;
	#links = document.createElement('canvas');
	#look = null;
	#isWaiting = false;
	#isOneHost = false;

	/** `on`: { now(), choose(endpoint), hover(endpoint) }. */
	constructor(canvas, fleet, on) {
		this.#canvas = canvas;
		this.#c = canvas.getContext('2d');
		this.#fleet = fleet;
		this.#on = on;
		this.#probe = document.createElement('span');
		this.#probe.className = 'hidden';
		canvas.after(this.#probe);
		this.recolor();
		new ResizeObserver(() => this.#resize()).observe(canvas);
		document.addEventListener('visibilitychange', () => this.wake());
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
	update() {
		const now = this.#on.now();
		const { members, links } = this.#fleet;
		this.#shown = [...members.values()]
			.filter((it) => !it.endedAt || now - it.endedAt < FADE_MS)
			.sort((a, b) => b.degree - a.degree);
		const hosts = this.#shown.map((it) => it.endpoint.replace(/:\d+$/, ''));
		this.#isOneHost = hosts.length > 6 && hosts.every((it) => it === hosts[0]);
		// One that loses its links is to stay where it was: it is no part of the graph.
		const ghosts = this.#shown.filter((it) => it.state !== 'alive').map((it) => it.endpoint);
		const before = this.#ghosts;
		this.#ghosts = new Map(ghosts.map((it) =>
			[it, before.get(it) ?? this.#layout.place(it) ?? { x: 0, y: 0 }]));
		const alive = this.#shown.filter((it) => it.state === 'alive');
		const ids = alive.map((it) => it.endpoint).sort();
		const ends = [...links.values()].map((it) => [it.a, it.b]);
		const key = `${ids}|${ends.map(String).sort()}`;
		if (key !== this.#key) {
			this.#layout.set(ids, ends, before);
			const limit = this.#still.matches ? 1500 : this.#key === null ? 120 : 0;
			const end = performance.now() + limit;
			this.#layout.settle(() => performance.now() > end);
			this.#key = key;
			this.#graphs += 1;
		}
		this.wake();
	}

	/** Takes what happened, for pulses and rings. */
	news(news) {
		const own = this.#fleet.node?.endpoint;
		const at = performance.now();
		for (const it of this.#still.matches || document.hidden ? [] : news) {
			if (it.kind === 'joined') this.#joined.set(it.endpoint, at);
			if (it.kind === 'gossip') {
				for (const [from, to] of it.hops) this.#pulse(from, to, 1, at);
				for (const [from, n] of Object.entries(it.heard)) this.#pulse(from, own, n, at);
				const near = it.made ? this.#fleet.neighborsOf(own).slice(0, 16) : [];
				for (const to of near) this.#pulse(own, to.endpoint, 1, at);
			}
			for (const seed of it.kind === 'voted' ? this.#fleet.seeds.values() : []) {
				const color = it.yes ? 'good' : 'bad';
				if (seed.id === it.seed) this.#pulse(seed.endpoint, it.endpoint, 1, at, color);
			}
		}
		this.wake();
	}

	#pulse(from, to, n, at, color = 'accent') {
		for (let i = 0; i < Math.min(n, 3) && this.#pulses.length < PULSES_MAX; i += 1) {
			this.#pulses.push({ from, to, at: at + i * 90, color });
		}
	}

	/** Draws in the next frame, and goes on as long as something moves. */
	wake() {
		if (this.#isWaiting || document.hidden) return;
		this.#isWaiting = true;
		requestAnimationFrame((time) => this.#frame(time));
	}

	#frame(time) {
		this.#isWaiting = false;
		const { isWarm } = this.#layout;
		const start = performance.now();
		if (isWarm) this.#layout.step();
		if (isWarm && performance.now() - start < 3) this.#layout.step();
		const moves = !this.#isMoved && this.#fit(isWarm);
		this.#pulses = this.#pulses.filter((it) => time - it.at < PULSE_MS);
		for (const [id, at] of this.#joined) if (time - at > JOIN_MS) this.#joined.delete(id);
		const fades = this.#draw(time);
		if (isWarm || moves || this.#pulses.length || this.#joined.size) this.wake();
		else if (fades) setTimeout(() => this.wake(), this.#still.matches ? 1000 : 60);
	}

	// ---- places on the screen

	#resize() {
		const { width, height } = this.#canvas.getBoundingClientRect();
		if (!width) return;
		this.#size = { width, height };
		this.#canvas.width = Math.max(1, width * devicePixelRatio);
		this.#canvas.height = Math.max(1, height * devicePixelRatio);
		if (!this.#isMoved) this.#fit(false);
		this.wake();
	}

	/** Moves the view towards one that shows all; true if it is on its way. */
	#fit(smoothly) {
		const { width, height } = this.#size;
		const { left, right, top, bottom } = this.#layout.bounds([...this.#ghosts.values()]);
		const head = this.#fleet.seeds.size ? SEEDS_HIGH : 0;
		const margin = Math.min(70, width / 7);
		const [wide, high] = [width - 2 * margin, height - head - 90];
		const scale = Math.min(wide / (right - left + 1), high / (bottom - top + 1), 2.4);
		const target = { scale, x: width / 2 - ((left + right) / 2) * scale,
			y: head + 40 + high / 2 - ((top + bottom) / 2) * scale };
		let rest = 0;
		for (const [name, value] of Object.entries(target)) {
			const way = value - this.#view[name];
			this.#view[name] += smoothly && !this.#still.matches ? way * 0.2 : way;
			rest = Math.max(rest, Math.abs(way));
		}
		return smoothly && rest > 0.5;
	}

	/** Shows all of it again. */
	fit() {
		this.#isMoved = false;
		this.#layout.warm(0.02);
		this.wake();
	}

	zoom(factor, at = { x: this.#size.width / 2, y: this.#size.height / 2 }) {
		const view = this.#view;
		const scale = Math.min(8, Math.max(0.05, view.scale * factor));
		view.x = at.x - ((at.x - view.x) * scale) / view.scale;
		view.y = at.y - ((at.y - view.y) * scale) / view.scale;
		view.scale = scale;
		this.#isMoved = true;
		this.wake();
	}

	#place(endpoint) {
		const at = this.#ghosts.get(endpoint) ?? this.#layout.place(endpoint);
		const { x, y, scale } = this.#view;
		return at ? { x: at.x * scale + x, y: at.y * scale + y } : this.#seedPlace(endpoint);
	}

	#seedPlace(endpoint) {
		const all = [...this.#fleet.seeds.keys()];
		const at = all.indexOf(endpoint);
		const gap = Math.min(150, this.#size.width / all.length);
		return at < 0 ? null : { x: this.#size.width / 2 + (at - (all.length - 1) / 2) * gap, y: 38 };
	}

	#radius({ degree }) {
		const n = this.#shown.length;
		const least = n > 600 ? 2.4 : n > 150 ? 4 : n > 40 ? 6 : 9;
		const zoomed = Math.min(1.8, Math.max(0.8, Math.sqrt(this.#view.scale)));
		return (least + Math.sqrt(degree) * (n > 150 ? 1.1 : 1.6)) * zoomed;
	}

	#isOwn({ endpoint }) {
		return endpoint === this.#fleet.node?.endpoint;
	}

	// ---- drawing; true if something fades

	#draw(time) {
		const c = this.#c;
		c.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
		c.clearRect(0, 0, this.#size.width, this.#size.height);
		c.font = `12${FONT}`;
		c.textAlign = 'center';
		c.textBaseline = 'middle';
		const now = this.#on.now();
		this.#showLinks(c);
		const says = this.#drawSeeds(c, now);
		for (const it of this.#pulses) this.#drawPulse(c, it, time);
		c.globalAlpha = 1;
		return this.#drawMembers(c, now, time) || says;
	}

	/** Draws the links, which are most of the work, anew only if something about them changed. */
	#showLinks(c) {
		const { width, height } = this.#canvas;
		const { x, y, scale } = this.#view;
		const { selected, found } = this;
		const look = [this.#graphs, x, y, scale, width, height, selected, this.#hovered,
			Boolean(found), this.#colors.edge].join();
		if (this.#layout.isWarm || look !== this.#look) {
			this.#look = this.#layout.isWarm ? null : look;
			Object.assign(this.#links, { width, height });
			const under = this.#links.getContext('2d');
			under.scale(devicePixelRatio, devicePixelRatio);
			this.#drawLinks(under);
		}
		c.drawImage(this.#links, 0, 0, this.#size.width, this.#size.height);
	}

	#drawLinks(c) {
		const n = this.#fleet.links.size;
		const [plain, half, marked] = [[], [], []];
		for (const { a, b, both } of this.#fleet.links.values()) {
			const isMarked = [a, b].some((it) => it === this.selected || it === this.#hovered);
			(isMarked ? marked : both ? plain : half).push([this.#place(a), this.#place(b)]);
		}
		const dim = this.selected || this.found ? 0.5 : 1;
		c.globalAlpha = (n > 1500 ? 0.35 : n > 400 ? 0.5 : 0.9) * dim;
		this.#lines(c, plain, 'edge', n > 1500 ? 0.6 : 1);
		this.#lines(c, half, 'edge', 1, [3, 4]);
		c.globalAlpha = 1;
		this.#lines(c, marked, 'accent', 1.6);
	}

	#lines(c, all, color, width, dash = []) {
		this.#pen(c, color, width, dash);
		for (const [a, b] of all) {
			if (!a || !b) continue;
			c.moveTo(a.x, a.y);
			c.lineTo(b.x, b.y);
		}
		c.stroke();
	}

	#pen(c, color, width, dash = []) {
		c.beginPath();
		c.strokeStyle = this.#colors[color];
		c.lineWidth = width;
		c.setLineDash(dash);
	}

	#drawSeeds(c, now) {
		const own = this.#fleet.node;
		let says = false;
		for (const it of this.#fleet.seeds.values()) {
			const { x, y } = this.#seedPlace(it.endpoint);
			const isIn = it.linked || this.#isOwn(it);
			if (it.linked && own?.role === 'peer') {
				this.#lines(c, [[{ x, y: y + 32 }, this.#place(own.endpoint)]], 'edge', 1, [2, 5]);
			}
			const isMarked = [this.selected, this.#hovered].includes(it.endpoint);
			this.#pen(c, isMarked ? 'accent' : 'ink', isMarked ? 4 : 1.5, isIn ? [] : [3, 3]);
			c.roundRect(x - 11, y - 11, 22, 22, 5);
			this.#fill(c, isIn ? 'ink' : 'card');
			c.stroke();
			this.#text(c, it.id ?? '?', x, y + 1, isIn ? 'card' : 'ink');
			const note = this.#isOwn(it) ? ' (this node)' : isIn ? '' : ' (no link)';
			this.#label(c, `seed ${it.id ?? ''}${note}`, x, y + 22, 'soft');
			if (!it.says || now - it.says.at > SAYS_MS) continue;
			says = true;
			const { yes } = it.says;
			this.#pill(c, yes ? '✓ yes' : '✕ no', x, y - 23, yes ? 'good' : 'bad');
		}
		return says;
	}

	#drawPulse(c, { from, to, at, color }, time) {
		const [a, b] = [this.#place(from), this.#place(to)];
		const part = (time - at) / PULSE_MS;
		if (!a || !b || part < 0) return;
		const way = part * part * (3 - 2 * part);
		c.globalAlpha = Math.min(1, 3 * (1 - part));
		c.beginPath();
		c.arc(a.x + (b.x - a.x) * way, a.y + (b.y - a.y) * way, color === 'accent' ? 3 : 5, 0, 7);
		this.#fill(c, color);
	}

	#drawMembers(c, now, time) {
		const n = this.#shown.length;
		const named = n <= 45 || this.#view.scale > 1.6 ? n : n > 400 ? 10 : 16;
		const labels = [];
		const draw = (it, rank) => {
			const at = this.#place(it.endpoint);
			const rest = it.endedAt ? 1 - (now - it.endedAt) / FADE_MS : 1;
			if (!at || rest <= 0) return;
			const isFound = this.found?.has(it.endpoint);
			c.globalAlpha = rest * (this.found && !isFound ? 0.22 : 1);
			const radius = this.#radius(it);
			this.#member(c, it, at, radius, time);
			const isMarked = [this.selected, this.#hovered].includes(it.endpoint) || isFound;
			if (rank < named || isMarked || this.#isOwn(it)) labels.push([it, at, radius]);
		};
		const isPlain = (it) => it.state === 'alive';
		this.#shown.filter(isPlain).forEach(draw);
		for (const it of labels) this.#caption(c, ...it);
		labels.length = 0;
		// On top, as nothing is to hide them.
		for (const it of this.#shown.filter((one) => !isPlain(one))) {
			draw(it, -1);
			for (const one of labels.splice(0)) this.#caption(c, ...one);
		}
		c.globalAlpha = 1;
		return this.#shown.some((it) => it.endedAt);
	}

	#caption(c, it, { x, y }, radius) {
		const name = this.#fleet.nameOf(it.endpoint)
			?? (this.#isOneHost ? it.endpoint.replace(/^.*:/, ':') : it.endpoint);
		const text = this.#isOwn(it) ? `${name} (this node)` : name;
		this.#label(c, text, x, y + radius + 11, 'ink');
		const color = { suspected: 'warn', removed: 'bad' }[it.state] ?? 'soft';
		if (it.state !== 'alive') this.#pill(c, stateText(it), x, y - radius - 15, color);
	}

	#member(c, it, { x, y }, radius, time) {
		const joined = (time - this.#joined.get(it.endpoint)) / JOIN_MS;
		if (joined > 0) {
			c.save();
			c.globalAlpha *= 1 - joined;
			this.#ring(c, x, y, radius + 4 + joined * 22, 'good', 2);
			c.restore();
		}
		this.#ring(c, x, y, radius, 'card', radius > 3.5 ? 3 : 0.5);
		this.#fill(c, { alive: 'node', suspected: 'warn' }[it.state] ?? 'card');
		if (it.state === 'left') this.#ring(c, x, y, radius, 'soft', 2, [3, 3]);
		if (it.state === 'removed') {
			const r = radius * 0.5;
			this.#ring(c, x, y, radius, 'bad', 2);
			this.#lines(c, [[{ x: x - r, y: y - r }, { x: x + r, y: y + r }],
				[{ x: x - r, y: y + r }, { x: x + r, y: y - r }]], 'bad', 2.5);
		}
		if (it.state === 'suspected') {
			this.#ring(c, x, y, radius + 4, 'warn', 2, [4, 3]);
			c.font = `bold ${Math.max(9, radius * 1.2)}${FONT}`;
			this.#text(c, '!', x, y, 'card');
			c.font = `12${FONT}`;
		}
		if (this.#isOwn(it)) this.#ring(c, x, y, radius + 3.5, 'ink', 1.5);
		if (this.selected === it.endpoint) this.#ring(c, x, y, radius + 6, 'accent', 3);
		else if (this.#hovered === it.endpoint) this.#ring(c, x, y, radius + 5, 'accent', 2);
	}

	#ring(c, x, y, radius, color, width, dash) {
		this.#pen(c, color, width, dash);
		c.arc(x, y, radius, 0, 7);
		c.stroke();
	}

	#fill(c, color) {
		c.fillStyle = this.#colors[color];
		c.fill();
	}

	#text(c, text, x, y, color) {
		c.fillStyle = this.#colors[color];
		c.fillText(text, x, y);
	}

	#label(c, text, x, y, color) {
		this.#pen(c, 'card', 3.5);
		c.lineJoin = 'round';
		c.strokeText(text, x, y);
		this.#text(c, text, x, y, color);
	}

	#pill(c, text, x, y, color) {
		const wide = c.measureText(text).width + 14;
		c.beginPath();
		c.roundRect(x - wide / 2, y - 10, wide, 20, 10);
		this.#fill(c, color);
		this.#text(c, text, x, y + 0.5, 'card');
	}

	// ---- pointer and keys

	get #all() {
		return [...this.#shown.map((it) => it.endpoint), ...this.#fleet.seeds.keys()];
	}

	/** The endpoint that costs least by `cost(place)`; infinite ones do not count. */
	#best(cost) {
		let [best, least] = [null, Infinity];
		for (const it of this.#all) {
			const at = this.#place(it);
			const price = at ? cost(at, it) : Infinity;
			if (price < least) [best, least] = [it, price];
		}
		return best;
	}

	#at({ x, y }) {
		return this.#best((at, endpoint) => {
			const member = this.#fleet.members.get(endpoint);
			const far = Math.hypot(at.x - x, at.y - y) - (member ? this.#radius(member) : 12);
			return far < 9 ? far : Infinity;
		});
	}

	#toward([dx, dy]) {
		const from = this.#hovered ?? this.selected ?? this.#fleet.node?.endpoint;
		const here = this.#place(from);
		if (!this.#hovered || !here) return here ? from : this.#all[0];
		return this.#best((at) => {
			const along = (at.x - here.x) * dx + (at.y - here.y) * dy;
			const aside = Math.abs((at.x - here.x) * dy) + Math.abs((at.y - here.y) * dx);
			return along > 2 ? along + 2 * aside : Infinity;
		});
	}

	#hover(endpoint) {
		if (endpoint === this.#hovered) return;
		this.#hovered = endpoint;
		this.#canvas.classList.toggle('over', endpoint !== null);
		this.#on.hover(endpoint);
		this.wake();
	}

	#listen() {
		const canvas = this.#canvas;
		const held = new Map();
		let moved = 0;
		const on = (names, act) => {
			for (const name of names.split(' ')) {
				canvas.addEventListener(name, (event) => {
					const box = canvas.getBoundingClientRect();
					act(event, { x: event.clientX - box.left, y: event.clientY - box.top });
				}, { passive: false });
			}
		};
		on('pointerdown', (event, at) => {
			held.set(event.pointerId, at);
			moved = 0;
		});
		on('pointermove', (event, at) => {
			const before = held.get(event.pointerId);
			if (!before) return this.#hover(this.#at(at));
			moved += Math.hypot(at.x - before.x, at.y - before.y);
			held.set(event.pointerId, at);
			const other = [...held].find(([id]) => id !== event.pointerId)?.[1];
			const far = (it) => Math.hypot(it.x - other.x, it.y - other.y) || 1;
			if (other) return this.zoom(far(at) / far(before), other);
			if (moved < 4) return null;
			canvas.setPointerCapture(event.pointerId);
			this.#isMoved = true;
			this.#view.x += at.x - before.x;
			this.#view.y += at.y - before.y;
			return this.wake();
		});
		on('pointerup pointercancel pointerleave', (event) => held.delete(event.pointerId));
		on('pointerleave', () => this.#hover(null));
		on('click', (_, at) => moved < 4 && this.#on.choose(this.#at(at)));
		on('wheel', (event, at) => {
			// A plain wheel scrolls the page, as everywhere.
			if (!event.ctrlKey && !event.metaKey) return;
			event.preventDefault();
			this.zoom(Math.exp(-event.deltaY / 300), at);
		});
		on('blur', () => this.#hover(null));
		on('keydown', (event) => this.#press(event));
	}

	#press(event) {
		const acts = {
			Enter: () => this.#on.choose(this.#hovered), ' ': () => this.#on.choose(this.#hovered),
			Escape: () => this.#on.choose(null), '+': () => this.zoom(1.3),
			'-': () => this.zoom(1 / 1.3), 0: () => this.fit(),
		};
		const way = WAYS[event.key];
		const act = way ? () => this.#hover(this.#toward(way) ?? this.#hovered) : acts[event.key];
		if (!act) return;
		event.preventDefault();
		act();
	}
}
