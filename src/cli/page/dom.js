// Helpers for the document: elements, formats, small pictures. Foreign text becomes text nodes
// and attributes only, never markup.

const SVG = 'http://www.w3.org/2000/svg';

/** Makes an element. `props`: attributes; `class`, `text`, and `on…` handlers. */
export function el(tag, props = {}, ...children) {
  return fill(document.createElement(tag), props, children);
}

/** Makes an SVG element in the same way. */
export function svg(tag, props = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), props, children);
}

function fill(node, props, children) {
  for (const [key, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (key === 'text') node.textContent = value;
    else if (key.startsWith('on')) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value === true ? '' : value);
  }
  node.append(...children.filter((it) => it !== null && it !== undefined && it !== false));
  return node;
}

/** Sets a text only if it differs, so that selections and screen readers are not disturbed. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Sets an attribute only if it differs; `null` takes it away. */
export function setAttr(node, name, value) {
  if (value === null || value === undefined || value === false) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

const rowsOf = new WeakMap();

/** Keeps the children of `parent` in step with `items`: one element for each key, reused. */
export function keyed(parent, items, keyOf, make, update) {
  const rows = rowsOf.get(parent) ?? new Map();
  rowsOf.set(parent, rows);
  const wanted = new Set();
  let place = parent.firstElementChild;
  for (const item of items) {
    const key = keyOf(item);
    if (wanted.has(key)) continue;
    wanted.add(key);
    let row = rows.get(key);
    if (!row) rows.set(key, (row = make(item)));
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

/** Replaces all children. */
export function replace(parent, ...children) {
  parent.replaceChildren(...children.filter((it) => it !== null && it !== undefined));
}

/** Says that there is nothing, and why. */
export function empty(text, more) {
  return el('p', { class: 'empty' }, text, more ? el('span', { text: more }) : null);
}

/** A span of time in a word: `4 s`, `3 min`, `2 h`, `5 d`. */
export function span(ms) {
  if (ms === null || ms === undefined || Number.isNaN(ms)) return '–';
  const seconds = Math.max(0, ms) / 1000;
  if (seconds < 1) return `${Math.round(Math.max(0, ms))} ms`;
  if (seconds < 90) return `${Math.floor(seconds)} s`;
  if (seconds < 5400) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

/** Time since `at`. */
export function ago(at, now) {
  if (!at) return '–';
  return now - at < 1000 ? 'just now' : `${span(now - at)} ago`;
}

/** Clock time of the browser's zone. */
export function clock(at, long = false) {
  if (!at) return '';
  const date = new Date(at);
  const two = (it) => String(it).padStart(2, '0');
  const time = `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
  if (!long) return time;
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  return `${day} ${time}.${String(date.getMilliseconds()).padStart(3, '0')}`;
}

/** A number of bytes with its unit. */
export function bytes(count) {
  if (typeof count !== 'number') return '–';
  if (count < 1024) return `${count} B`;
  const units = ['KiB', 'MiB', 'GiB', 'TiB'];
  let at = -1;
  let value = count;
  do {
    value /= 1024;
    at += 1;
  } while (value >= 1024 && at < units.length - 1);
  return `${value < 10 ? value.toFixed(2) : value < 100 ? value.toFixed(1) : Math.round(value)} ${
    units[at]
  }`;
}

/** A number with thin separators between thousands. */
export function number(value) {
  if (value === null || value === undefined) return '–';
  if (typeof value !== 'number') return String(value);
  if (!Number.isInteger(value)) return String(Math.round(value * 1000) / 1000);
  return String(value).replace(/\B(?=(\d{3})+$)/g, '\u2009');
}

/** A rate per second. */
export function rate(value) {
  if (!value) return '0/s';
  return `${value < 10 ? Math.round(value * 10) / 10 : Math.round(value)}/s`;
}

/** A round trip given in microseconds. */
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
  if (items.length < 2) return items.join('');
  return `${items.slice(0, -1).join(', ')} and ${items.at(-1)}`;
}

/** An empty sparkline, to be given to `drawSpark`. */
export function spark(label) {
  const line = svg('polyline', { class: 'spark-line' });
  const limit = svg('line', { class: 'spark-limit', x1: 0, x2: 60, visibility: 'hidden' });
  const box = { class: 'spark', viewBox: '0 0 60 16', preserveAspectRatio: 'none' };
  return svg('svg', { ...box, role: 'img', 'aria-label': label }, limit, line);
}

/** Draws values into a sparkline, oldest first, with an optional limit as a dashed line. */
export function drawSpark(box, values, limit, label) {
  const top = Math.max(1e-9, ...values, limit ? limit * 1.2 : 0);
  const y = (value) => (15 - (value / top) * 14).toFixed(1);
  const step = values.length > 1 ? 60 / (values.length - 1) : 0;
  const points = values.map((value, at) => `${(at * step).toFixed(1)},${y(value)}`).join(' ');
  setAttr(box.lastChild, 'points', points);
  setAttr(box.firstChild, 'visibility', limit ? 'visible' : 'hidden');
  if (limit) for (const end of ['y1', 'y2']) setAttr(box.firstChild, end, y(limit));
  if (label) setAttr(box, 'aria-label', label);
}

/** A table with a header; returns the table and its body. */
export function table(caption, columns) {
  const cells = columns.map((it) =>
    typeof it === 'string' ? el('th', { scope: 'col', text: it }) : it,
  );
  const body = el('tbody');
  const head = el('thead', {}, el('tr', {}, ...cells));
  const whole = el('table', {}, el('caption', { class: 'hidden', text: caption }), head, body);
  return { box: el('div', { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': caption },
    whole), body };
}

/** A link to the page of a node in the fleet view. */
export function nodeLink(endpoint, text) {
  return el('a', { href: `#/fleet?node=${encodeURIComponent(endpoint)}`, class: 'node-name',
    text: text ?? endpoint });
}

/** Calls `draw` once in the next frame, however often it is asked to. */
export function coalesced(draw) {
  let waits = false;
  return () => {
    if (waits) return;
    waits = true;
    const run = () => {
      waits = false;
      draw();
    };
    // Frames stop in a hidden tab; nothing is to pile up there.
    if (document.hidden) setTimeout(run, 200);
    else requestAnimationFrame(run);
  };
}
