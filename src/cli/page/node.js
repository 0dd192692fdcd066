// The node that serves this page: its health, its values, and the lines of its log.

import { attr, button, bytes, card, cells, clock, count, day, h, keyed, line, none, number, rate,
	say, span, table, title } from './dom.js';

const EVERY_MS = 4900;
/** Sections of the status that other views show. */
const ELSEWHERE = ['topology', 'neighbors', 'suspects', 'chat', 'rollout', 'order', 'shares'];
const LEVELS = { 'all lines': 'debug trace info warn error', 'without debug': 'info warn error',
	'warnings alone': 'warn error' };

export class NodeView {
	#c;
	#status = {};
	#askedAt = 0;
	#paused = null;

	constructor(section, context) {
		this.#c = context;
		this.said = h('p.soft');
		this.health = h('p#health.note');
		this.search = h('input#node-search', { type: 'search', placeholder: 'Find a value',
			'aria-label': 'Find a value', autocomplete: 'off', oninput: () => this.#showValues() });
		this.zeros = h('input#zeros', { type: 'checkbox', onchange: () => this.#showValues() });
		this.groups = h('div.groups');
		this.none = none('Nothing has that name.');
		this.level = h('select', { 'aria-label': 'Lines', onchange: () => this.#showLines() },
			...Object.entries(LEVELS).map(([text, value]) => h('option', { value }, text)));
		this.pause = button('#log-pause', 'Pause', () => this.#pause());
		this.lines = h('ol#log-lines', { tabindex: 0, 'aria-label': 'Log, newest first' });
		this.noLines = none('No line was logged since this page was opened.');
		section.append(title('node', 'Node', this.said), this.health,
			h('p.tools', null, ...['status', 'metrics', 'healthz', 'readyz'].map((it) =>
				h('a', { href: `/${it}` }, `/${it}`))),
			h('div.tools', null, this.search, h('label', null, this.zeros, ' show zeros too')),
			this.groups, this.none, card(null, h('div.top', null,
				h('h2', null, 'Log of this node'), this.level, this.pause), this.lines, this.noLines));
	}

	show() {
		this.#ask();
	}

	async #ask() {
		if (Date.now() - this.#askedAt < EVERY_MS) return;
		this.#askedAt = Date.now();
		// The banner tells of a node that does not answer.
		this.#status = await this.#c.connection.status().catch(() => this.#status);
		this.#showValues();
	}

	update(changes) {
		const { node, quorum } = this.#c.fleet;
		if (changes.has('services')) this.#ask();
		if (changes.has('log') || changes.has('node')) this.#showLines();
		if (!node) return;
		say(this.said, `${node.role} ${node.endpoint} · version ${node.version} · up for ${
			span(node.uptime_ms)}`);
		const seeds = quorum?.seeds
			? ` Linked with ${quorum.linked} of ${count(quorum.seeds, 'seed')}.` : '';
		const text = node.healthy ? '✓ Healthy.' : `▲ ${node.trouble ?? 'Not healthy'}.`;
		say(this.health, text + seeds);
		attr(this.health, 'class', `note ${node.healthy ? 'good' : 'bad'}`);
	}

	#showValues() {
		const { fleet, now } = this.#c;
		const at = now();
		const query = this.search.value.trim().toLowerCase();
		const groups = new Map();
		for (const [name, value] of Object.entries(this.#status)) {
			if (!ELSEWHERE.includes(name)) collect(groups, [name], value);
		}
		const isShown = (it) => (query ? `${it.group} ${it.name}`.includes(query)
			: this.zeros.checked || (it.value !== 0 && it.text));
		const all = [...groups].map(([name, rows]) => [name, rows.filter(isShown)])
			.filter(([, rows]) => rows.length);
		this.none.hidden = all.length > 0;
		keyed(this.groups, all, ([name]) => name, ([name]) => {
			const { box, body } = table(name, ['Name', 'Value', 'Now']);
			return Object.assign(card(name, box), { body });
		}, (it, [, rows]) => keyed(it.body, rows, (row) => row.name, (row) => line(row.name, 2),
			(cellsOf, row) => {
				const per = (fleet.rates.get(row.key) ?? fleet.rates.get(row.path))?.rate(at);
				const text = /bytes/.test(row.key) ? `${bytes(per)}/s` : rate(per ?? 0);
				cells(cellsOf, row.text, per ? text : '');
			}));
	}

	#pause() {
		this.#paused = this.#paused ? null : [...this.#c.fleet.log];
		attr(this.pause, 'aria-pressed', Boolean(this.#paused));
		say(this.pause, this.#paused ? 'Go on' : 'Pause');
		this.#showLines();
	}

	#showLines() {
		const levels = this.level.value.split(' ');
		const all = (this.#paused ?? this.#c.fleet.log).filter((it) => levels.includes(it.level));
		this.noLines.hidden = all.length > 0;
		keyed(this.lines, all, (it) => it.number, (it) => h('li', { class: it.level,
			'data-event': it.event }, h('time', null, clock(it.ts_ms, true)), h('b', null, it.level),
		h('span', null, it.message)));
	}
}

/** Puts the values below `value` into groups, with names for people. */
function collect(groups, path, value) {
	const isMap = value && typeof value === 'object' && !Array.isArray(value) && !value.buckets;
	if (isMap && path.length < 4) {
		for (const [name, inner] of Object.entries(value)) collect(groups, [...path, name], inner);
		return;
	}
	const spaced = (it) => it.replaceAll('_', ' ');
	const key = path.at(-1);
	const group = spaced(path.slice(0, -1).join(' ')) || 'node';
	if (!groups.has(group)) groups.set(group, []);
	groups.get(group).push({ key, path: path.join('_'), name: spaced(key), group, value,
		text: shown(key, value) });
}

function shown(key, value) {
	if (typeof value === 'boolean') return value ? 'yes' : 'no';
	if (Array.isArray(value)) {
		return value.map((it) => (it?.constructor === Object ? Object.values(it).join(' ') : it))
			.join(', ');
	}
	if (value?.buckets) {
		return `${number(value.count)} times, mean ${number(value.sum / (value.count || 1))}`;
	}
	if (typeof value !== 'number') return String(value ?? '–');
	if (/bytes/.test(key)) return bytes(value);
	if (value > 1e12 && /since|_ms/.test(key)) return `${day(value)} ${clock(value)}`;
	if (/_ms$/.test(key)) return span(value);
	return /incarnation|pid/.test(key) ? String(value) : number(value);
}
