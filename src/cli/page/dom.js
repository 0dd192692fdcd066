// Helpers for the document. Foreign text becomes text nodes and attributes, never markup.

const SVG = 'http://www.w3.org/2000/svg';

/** Makes an element: `h('p#id.class', { attribute: value, onclick: f }, 'text', child)`. */
export function h(what, props, ...children) {
	const [, tag, id, classes] = /^(\w+)(?:#([\w-]+))?([.\w-]*)$/.exec(what);
	const isSvg = /^(svg|circle|rect|path|polyline|line|text)$/.test(tag);
	const node = isSvg ? document.createElementNS(SVG, tag) : document.createElement(tag);
	if (id) node.id = id;
	if (classes) node.setAttribute('class', classes.slice(1).replaceAll('.', ' '));
	for (const [key, value] of Object.entries(props ?? {})) {
		if (key.startsWith('on')) node.addEventListener(key.slice(2), value);
		else attr(node, key, value);
	}
	node.append(...children.filter((it) => it !== null && it !== undefined && it !== false));
	return node;
}

/** Sets a text if it differs, so that selections and screen readers are not disturbed. */
export function say(node, text) {
	if (node.textContent !== text) node.textContent = text;
}

/** Sets an attribute if it differs; nothing or `false` takes it away. */
export function attr(node, name, value) {
	if (value === null || value === undefined || value === false) node.removeAttribute(name);
	else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

const known = new WeakMap();

/** Keeps the children of `parent` in step with `items`: one element for each key, reused. */
export function keyed(parent, items, keyOf, make, update) {
	const rows = known.get(parent) ?? new Map();
	known.set(parent, rows);
	const wanted = new Set();
	let place = parent.firstElementChild;
	for (const item of items) {
		const key = keyOf(item);
		if (wanted.has(key)) continue;
		wanted.add(key);
		const row = rows.get(key) ?? make(item);
		rows.set(key, row);
		update?.(row, item);
		if (row === place) place = place.nextElementSibling;
		else parent.insertBefore(row, place);
	}
	for (const [key, row] of rows) {
		if (wanted.has(key)) continue;
		row.remove();
		rows.delete(key);
	}
}

/** Sets the texts of the cells of a row, from the second one on; `null` leaves one alone. */
export function cells(row, ...texts) {
	texts.forEach((text, at) => text === null || say(row.children[at + 1], text));
}

/** A row with a head and `n` cells. */
export function line(head, n, props) {
	const rest = Array.from({ length: n }, () => h('td.number'));
	return h('tr', props, h('th', { scope: 'row' }, head), ...rest);
}

/** A table in a box that scrolls; `columns` are texts or elements. */
export function table(caption, columns) {
	const head = columns.map((it) => (it.tagName ? it : h('th', { scope: 'col' }, it)));
	const body = h('tbody');
	const whole = h('table', null, h('caption.hidden', null, caption),
		h('thead', null, h('tr', null, ...head)), body);
	const props = { tabindex: 0, role: 'region', 'aria-label': caption };
	return { box: h('div.scroll', props, whole), body };
}

/** The head of a view: its title, and a line that says how it stands. */
export function title(name, text, said) {
	return h('div.top', null, h(`h1#title-${name}`, null, text), said);
}

export function card(heading, ...children) {
	return h('div.card', null, heading && h('h2', null, heading), ...children);
}

/** Says that there is nothing, and the command that changes it. */
export function none(text, command) {
	return h('p.empty', null, text, command && h('code', null, command));
}

export function button(id, text, onclick) {
	return h(`button${id}.quiet`, { type: 'button', onclick }, text);
}

/** A link to a node in the view of the fleet. */
export function nodeLink(endpoint, text = endpoint) {
	return h('a.name', { href: `#/fleet?node=${encodeURIComponent(endpoint)}` }, text);
}

/** A line with a clock time, for lists of what happened. */
export function timed(at, text, kind = '') {
	return h('li', { class: kind }, h('time', null, clock(at)), h('span', null, text));
}

/** A span of time: `4 s`, `3 min`, `2 h`, `5 d`. */
export function span(ms) {
	if (!Number.isFinite(ms)) return '–';
	const s = Math.max(0, ms) / 1000;
	if (s < 1) return `${Math.round(s * 1000)} ms`;
	if (s < 90) return `${Math.floor(s)} s`;
	if (s < 5400) return `${Math.floor(s / 60)} min`;
	return s < 172800 ? `${Math.floor(s / 3600)} h` : `${Math.floor(s / 86400)} d`;
}

export function ago(at, now) {
	return !at ? '–' : now - at < 1000 ? 'just now' : `${span(now - at)} ago`;
}

const two = (it, n = 2) => String(it).padStart(n, '0');

/** Clock time in the zone of the browser, for people. */
export function clock(at, withMillis) {
	if (!at) return '';
	const it = new Date(at);
	const text = `${two(it.getHours())}:${two(it.getMinutes())}:${two(it.getSeconds())}`;
	return withMillis ? `${text}.${two(it.getMilliseconds(), 3)}` : text;
}

export function day(at) {
	const it = new Date(at);
	return `${it.getFullYear()}-${two(it.getMonth() + 1)}-${two(it.getDate())}`;
}

export function bytes(n) {
	if (typeof n !== 'number') return '–';
	const at = Math.min(4, Math.floor(Math.log2(Math.max(1, n)) / 10));
	const value = n / 1024 ** at;
	return `${at && value < 100 ? value.toFixed(1) : Math.round(value)} ${
		['B', 'KiB', 'MiB', 'GiB', 'TiB'][at]}`;
}

/** A number, with thin spaces between thousands. */
export function number(value) {
	if (typeof value !== 'number') return String(value ?? '–');
	if (!Number.isInteger(value)) return String(Math.round(value * 1000) / 1000);
	return String(value).replace(/\B(?=(\d{3})+$)/g, '\u2009');
}

export function rate(value) {
	return `${value < 10 ? Math.round(value * 10) / 10 : Math.round(value)}/s`;
}

export function roundTrip(us) {
	if (typeof us !== 'number') return '–';
	return us < 1000 ? `${us} µs` : `${(us / 1000).toFixed(us < 10000 ? 1 : 0)} ms`;
}

/** `1 link`, `2 links`. */
export function count(n, word) {
	return `${number(n)} ${word}${n === 1 ? '' : 's'}`;
}

/** `1`, `1 and 2`, `1, 2 and 3`. */
export function list(items) {
	return items.length < 2 ? items.join('') : `${items.slice(0, -1).join(', ')} and ${items.at(-1)}`;
}

/** An empty sparkline, for `draw`. */
export function spark() {
	return h('svg.spark', { viewBox: '0 0 60 16', preserveAspectRatio: 'none', role: 'img' },
		h('line.spark-limit', { x2: 60 }), h('polyline.spark-line'));
}

/** Draws values, oldest first, and a limit, if there is one, as a dashed line. */
export function draw(picture, values, label, limit) {
	const top = Math.max(1e-9, ...values, limit ? limit * 1.2 : 0);
	const y = (value) => (15 - (value / top) * 14).toFixed(1);
	const wide = 60 / Math.max(1, values.length - 1);
	const points = values.map((value, at) => `${(at * wide).toFixed(1)},${y(value)}`);
	attr(picture.lastChild, 'points', points.join(' '));
	for (const end of ['y1', 'y2']) attr(picture.firstChild, end, limit ? y(limit) : -9);
	attr(picture, 'aria-label', label);
}

/** Returns a function that lets `run` run once in the next frame, however often it is called. */
export function coalesced(run) {
	let waits = false;
	const go = () => {
		waits = false;
		run();
	};
	return () => {
		// A hidden tab has no frames, and nothing is to pile up there.
		if (!waits) document.hidden ? setTimeout(go, 200) : requestAnimationFrame(go);
		waits = true;
	};
}
