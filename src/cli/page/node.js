// The node that serves this page: its health, counters, status, and raw log lines.

import { bytes, clock, count, el, empty, keyed, number, rate, setAttr, setText, span,
  table } from './dom.js';

const EVERY_MS = 5000;
const DEPTH_MAX = 3;
/** Sections that other views show. */
const ELSEWHERE = new Set(['topology', 'chat', 'rollout', 'order', 'shares']);

/** See the top of this file. */
export class NodeView {
  #c;
  #status = null;
  #asked = 0;
  #paused = null;

  constructor(section, context) {
    this.#c = context;
    this.said = el('p', { class: 'summary' });
    this.health = el('p', { class: 'note', id: 'health' });
    this.search = el('input', { id: 'node-search', type: 'search', placeholder: 'Find a value',
      'aria-label': 'Find a value', autocomplete: 'off', oninput: () => this.#values() });
    this.zeros = el('input', { type: 'checkbox', id: 'zeros', onchange: () => this.#values() });
    this.groups = el('div', { class: 'groups' });
    this.none = empty('Nothing has that name.');
    this.pause = el('button', { type: 'button', class: 'quiet', id: 'log-pause', text: 'Pause',
      'aria-pressed': 'false', onclick: () => this.#pause() });
    this.level = el('select', { 'aria-label': 'Lines', id: 'log-level',
      onchange: () => this.update(new Set()) },
    el('option', { value: '', text: 'all lines' }), el('option', { value: 'info', text: 'without debug' }),
    el('option', { value: 'warn', text: 'warnings alone' }));
    this.lines = el('ol', { id: 'log-lines', class: 'lines', tabindex: 0,
      'aria-label': 'Log lines, newest first' });
    this.noLines = empty('No line was logged since this page was opened.');
    section.append(
      el('div', { class: 'top' }, el('h1', { id: 'title-node', text: 'Node' }), this.said),
      this.health,
      el('p', { class: 'links' }, ...[['/status', 'status'], ['/metrics', 'metrics'],
        ['/healthz', 'health'], ['/readyz', 'readiness']]
        .map(([href, text]) => el('a', { href, text }))),
      el('div', { class: 'tools' }, this.search,
        el('label', { class: 'check' }, this.zeros, 'show zeros too')),
      this.groups, this.none,
      el('div', { class: 'card' }, el('div', { class: 'top' }, el('h2', { text: 'Log of this node' }),
        this.level, this.pause), this.lines, this.noLines));
  }

  show() {
    this.#ask();
  }

  async #ask() {
    if (Date.now() - this.#asked < EVERY_MS - 100) return;
    this.#asked = Date.now();
    try {
      this.#status = await this.#c.connection.status();
    } catch {
      // The banner tells of a node that does not answer.
      return;
    }
    this.#values();
  }

  update(changes) {
    const { node, quorum } = this.#c.fleet;
    if (changes.has('services')) this.#ask();
    if (node) {
      setText(this.said, `${node.role} ${node.endpoint} · version ${node.version} · up for ${
        span(node.uptime_ms)}`);
      const seeds = quorum?.seeds ? ` Linked with ${quorum.linked} of ${count(quorum.seeds, 'seed')}.`
        : '';
      setText(this.health, node.healthy ? `✓ Healthy.${seeds}`
        : `▲ Not healthy: ${node.trouble ?? 'it does not say why'}.${seeds}`);
      setAttr(this.health, 'class', `note ${node.healthy ? 'good' : 'bad'}`);
    }
    if (!this.#status) this.#values();
    this.#lines();
  }

  // ---- values

  #values() {
    const { fleet, now } = this.#c;
    const query = this.search.value.trim().toLowerCase();
    const groups = new Map();
    const source = this.#status ?? { counters: fleet.counters };
    for (const [name, value] of Object.entries(source)) {
      if (!ELSEWHERE.has(name)) collect(groups, [name], value);
    }
    const isShown = (it) => {
      if (query) return `${it.group} ${it.name}`.toLowerCase().includes(query);
      return this.zeros.checked || (it.value !== 0 && it.value !== '0' && it.value !== '');
    };
    const all = [...groups].map(([name, rows]) => ({ name, rows: rows.filter(isShown) }))
      .filter((it) => it.rows.length);
    this.none.hidden = all.length > 0;
    const at = now();
    keyed(this.groups, all, (it) => it.name, (it) => {
      const { box, body } = table(it.name, ['Name', 'Value', 'Now']);
      return Object.assign(el('div', { class: 'card' }, el('h2', { text: it.name }), box), { body });
    }, (card, it) => keyed(card.body, it.rows, (row) => row.name, (row) => el('tr', {},
      el('th', { scope: 'row', text: row.name }), el('td', { class: 'number' }),
      el('td', { class: 'number' })), (line, row) => {
      setText(line.children[1], shown(row));
      const series = fleet.rates.get(row.key) ?? fleet.rates.get(row.path);
      const per = series?.rate(at) ?? 0;
      setText(line.children[2], per ? rate(per) : '');
    }));
  }

  // ---- log

  #pause() {
    this.#paused = this.#paused ? null : [...this.#c.fleet.log];
    setAttr(this.pause, 'aria-pressed', String(Boolean(this.#paused)));
    setText(this.pause, this.#paused ? 'Go on' : 'Pause');
    this.update(new Set());
  }

  #lines() {
    const least = { warn: ['warn', 'error'], info: ['info', 'warn', 'error'] }[this.level.value];
    const all = (this.#paused ?? this.#c.fleet.log)
      .filter((it) => !least || least.includes(it.level));
    this.noLines.hidden = all.length > 0;
    this.lines.hidden = !all.length;
    keyed(this.lines, all, (it) => it.number, (it) => el('li', { class: it.level,
      'data-event': it.event }, el('time', { text: clock(it.ts_ms, true).slice(11) }),
    el('b', { text: it.level }), el('span', { text: it.message })));
  }
}

/** Puts the values below `value` into groups of one level, with readable names. */
function collect(groups, path, value) {
  const isDeep = value !== null && typeof value === 'object' && path.length < DEPTH_MAX;
  if (isDeep && !Array.isArray(value)) {
    for (const [name, inner] of Object.entries(value)) collect(groups, [...path, name], inner);
    return;
  }
  const group = path.length === 1 ? 'node' : path.slice(0, -1).join(' ').replaceAll('_', ' ');
  const key = path.at(-1);
  const more = { key, path: path.join('_'), name: key.replaceAll('_', ' '), group, value };
  if (!groups.has(group)) groups.set(group, []);
  groups.get(group).push(more);
}

function shown({ key, value }) {
  if (value === null || value === undefined) return '–';
  if (typeof value === 'boolean') return value ? 'yes' : 'no';
  if (typeof value === 'number') {
    if (/bytes/.test(key)) return `${bytes(value)}`;
    if (/_ms$|_since$/.test(key)) return value > 1e12 ? clock(value, true) : span(value);
    return /incarnation|^pid$/.test(key) ? String(value) : number(value);
  }
  if (Array.isArray(value)) {
    const each = (it) => (typeof it === 'object' ? Object.values(it).join(' ') : String(it));
    return value.map(each).join(', ') || 'none';
  }
  if (Array.isArray(value.buckets) && value.count !== undefined) {
    const mean = value.count ? Math.round((10 * value.sum) / value.count) / 10 : 0;
    return `${number(value.count)} times, mean ${mean}`;
  }
  const text = Object.entries(value).map(([name, it]) => `${name}: ${it}`).join(', ');
  return text || 'none';
}

