// The first view: the picture, what has just happened, the chosen node, and the list of nodes.

import { ago, attr, button, card, cells, clock, count, h, keyed, line, nodeLink, none, rate,
	roundTrip, say, span, table, timed, title } from './dom.js';
import { Graph, stateText } from './graph.js';

const SIGNS = { alive: '●', suspected: '!', removed: '✕', left: '○' };
const STATES = ['suspected', 'alive', 'removed', 'left'];
const NEWS_SHOWN = 12;
const LIST_MS = 900;
/** Largest fleet whose list is open from the start. */
const OPEN_MAX = 12;
const HEADS = { endpoint: 'Node', state: 'State', name: 'Name', degree: 'Links', since: 'Since',
	rtt: 'Round trip' };
const HELP = 'Arrow keys choose a node, Enter opens it, plus and minus zoom, 0 shows all. The list '
	+ 'below has the same nodes.';

const byName = new Intl.Collator('en', { numeric: true }).compare;
const address = (endpoint) => `?node=${encodeURIComponent(endpoint)}`;
const stateWord = (it) => `${SIGNS[it.state]} ${stateText(it) || 'alive'}`;

function legend() {
	const dot = (name) => h(`circle.${name}`, { cx: 10, cy: 10, r: 6 });
	const sign = (name, text) => h(`text.${name}`, { x: 10, y: 14, 'text-anchor': 'middle' }, text);
	const square = h('rect.f-ink', { x: 4, y: 4, width: 12, height: 12, rx: 3 });
	const path = [h('path.s-edge', { d: 'M1 10h18' }),
		h('circle.f-accent', { cx: 12, cy: 10, r: 3 })];
	const all = [['member, larger with more links', dot('f-node')],
		['suspected', dot('f-warn'), sign('f-card', '!')],
		['removed', dot('s-bad'), sign('f-bad', '✕')], ['left', dot('s-soft')], ['seed', square],
		['gossip on its way', ...path]];
	const box = { viewBox: '0 0 20 20', width: 20, height: 20, 'aria-hidden': true };
	return h('ul.legend', { 'aria-label': 'Legend' },
		...all.map(([text, ...shapes]) => h('li', null, h('svg', box, ...shapes), text)));
}

export class FleetView {
	#c;
	#sort = { by: 'endpoint', down: false };
	#query = '';
	#chosen = null;
	#shownChoice = null;
	#isFirst = true;
	#listedAt = 0;

	constructor(section, context) {
		this.#c = context;
		this.said = h('p#summary.soft');
		this.warning = h('p.note.warn');
		this.search = h('input#search', { type: 'search', placeholder: 'Find a node',
			'aria-label': 'Find a node', autocomplete: 'off', oninput: () => this.#find(),
			onkeydown: (event) => event.key === 'Enter' && this.#query
				&& this.#choose(this.#matching()[0]?.endpoint) });
		this.canvas = h('canvas#graph', { tabindex: 0, role: 'application',
			'aria-label': 'Map of the fleet', 'aria-describedby': 'graph-help' });
		this.heard = h('p.hidden', { 'aria-live': 'polite' });
		const zoom = (label, text, act) => {
			const it = button('', text, act);
			attr(it, 'aria-label', label);
			return it;
		};
		const tools = h('div.tools', null, this.search, h('span.gap'),
			zoom('Zoom in', '+', () => this.graph.zoom(1.3)),
			zoom('Zoom out', '−', () => this.graph.zoom(1 / 1.3)),
			zoom('Show all', '⤢', () => this.graph.fit()));
		const map = h('div.card.map', null, tools, this.canvas,
			h('p#graph-help.hidden', null, HELP), this.heard, legend());
		this.detail = h('aside#detail.card', { 'aria-label': 'Chosen node', tabindex: -1,
			onkeydown: (event) => event.key === 'Escape' && this.#close() });
		this.news = h('ol#news.news');
		this.noNews = none('Nothing yet. Joins, suspicions and votes appear here.');
		section.append(title('fleet', 'Fleet', this.said), this.warning,
			h('div.split', null, map, h('div.side', null, this.detail,
				card('What happened', this.news, this.noNews))), this.#makeList());
		this.graph = new Graph(this.canvas, context.fleet, { now: context.now,
			choose: (endpoint) => this.#choose(endpoint),
			hover: (endpoint) => say(this.heard, endpoint ? this.#spoken(endpoint) : '') });
		context.fleet.on((_, news) => section.hidden || this.graph.news(news));
	}

	#makeList() {
		this.heads = Object.entries(HEADS).map(([by, text]) => h('th', { scope: 'col',
			'data-sort': by }, h('button.sort', { type: 'button', onclick: () => this.#order(by) },
			text)));
		const { box, body } = table('Nodes', this.heads);
		this.rows = body;
		this.seeds = h('ul.seeds', { 'aria-label': 'Seeds' });
		this.listTitle = h('summary');
		return (this.list = h('details#nodes.card', {
			ontoggle: () => this.#showList() }, this.listTitle, this.seeds, box));
	}

	show(route) {
		this.#chosen = this.graph.selected = route.query.get('node');
		this.graph.update();
	}

	recolor() {
		this.graph.recolor();
	}

	#choose(endpoint) {
		this.#c.go(endpoint ? `#/fleet${address(endpoint)}` : '#/fleet');
	}

	#close() {
		this.#choose(null);
		this.canvas.focus();
	}

	#spoken(endpoint) {
		const { fleet } = this.#c;
		const it = fleet.members.get(endpoint);
		const name = fleet.nameOf(endpoint) ?? '';
		return `${name} ${endpoint}, ${it ? `${it.state}, ${count(it.degree, 'link')}` : 'a seed'}`;
	}

	#find() {
		this.#query = this.search.value.trim().toLowerCase();
		const found = this.#matching().map((it) => it.endpoint);
		this.graph.found = this.#query ? new Set(found) : null;
		this.graph.wake();
		say(this.heard, this.#query ? `${count(found.length, 'node')} found` : '');
		this.#showList();
	}

	#matching() {
		const { fleet } = this.#c;
		const text = (it) => `${it.endpoint} ${fleet.nameOf(it.endpoint) ?? ''} ${it.state}`;
		return [...fleet.members.values()].filter((it) =>
			text(it).toLowerCase().includes(this.#query));
	}

	#order(by) {
		this.#sort = { by, down: this.#sort.by === by ? !this.#sort.down : by === 'degree' };
		this.#showList();
	}

	update(changes) {
		const { fleet } = this.#c;
		if (changes.has('members') || changes.has('links')) this.graph.update();
		else if (changes.has('seeds')) this.graph.wake();
		// Gossip changes many times a second; ages and rates may be a second old.
		const isQuiet = !['members', 'links', 'node'].some((it) => changes.has(it));
		if (isQuiet && Date.now() - this.#listedAt < LIST_MS) return;
		this.#listedAt = Date.now();
		this.#summary(fleet);
		this.#showList();
		const seen = new Set();
		const isNew = ({ text }) => !seen.has(text) && seen.add(text);
		const news = fleet.happened.filter(isNew).slice(0, NEWS_SHOWN);
		this.noNews.hidden = news.length > 0;
		keyed(this.news, news, (it) => it.number, (it) => timed(it.at, it.text, it.kind));
		this.#showDetail(fleet);
	}

	#summary(fleet) {
		const { quorum, told } = fleet;
		const tally = fleet.tally();
		const parts = [count(tally.alive + tally.suspected, 'member'),
			count(fleet.links.size, 'link')];
		attr(this.canvas, 'aria-label', `Map of the fleet: ${parts.join(', ')}`);
		if (tally.suspected) parts.push(`${tally.suspected} suspected`);
		if (quorum?.seeds) {
			parts.push(`linked with ${quorum.linked} of ${count(quorum.seeds, 'seed')}`,
				`${quorum.needed} yes votes decide`);
		}
		const gossip = fleet.gossip.heard.rate(this.#c.now());
		if (gossip) parts.push(`gossip ${rate(gossip)}`);
		say(this.said, parts.join(' · '));
		const isFew = quorum?.seeds && quorum.linked < quorum.needed;
		this.warning.hidden = !isFew && !told?.error;
		say(this.warning, isFew ? `▲ Only ${quorum.linked} of ${quorum.needed} needed seeds are in `
			+ 'reach: nobody can come or go until they are back.'
			: `▲ No seed tells the list of members: ${told?.error}. This one is ${
				span(told?.age_ms)} old.`);
	}

	#showList() {
		const { fleet, now } = this.#c;
		const at = now();
		const own = fleet.node?.endpoint;
		const trips = new Map(fleet.neighborsOf(own).map((it) => [it.endpoint, it.rtt_us]));
		const { by, down } = this.#sort;
		const value = (it) => ({ name: fleet.nameOf(it.endpoint) ?? '~',
			rtt: trips.get(it.endpoint) ?? 1e12, state: STATES.indexOf(it.state) })[by] ?? it[by];
		const order = (a, b) => {
			const [x, y] = [value(a), value(b)];
			const way = typeof x === 'string' ? byName(x, y) : x - y;
			return (down ? -way : way) || byName(a.endpoint, b.endpoint);
		};
		const all = this.#matching().sort(order);
		for (const it of this.heads) {
			const way = down ? 'descending' : 'ascending';
			attr(it, 'aria-sort', it.dataset.sort === by && way);
		}
		keyed(this.rows, all, (it) => it.endpoint, (it) => {
			const row = line(nodeLink(it.endpoint), 5, { 'data-node': it.endpoint });
			row.children[1].className = 'state';
			return row;
		}, (row, it) => {
			// Thousands of rows that nobody sees cost time.
			const isSame = it.state === 'alive' && row.dataset.state === 'alive';
			if (!this.list.open && isSame) return;
			attr(row, 'data-state', it.state);
			attr(row, 'aria-current', it.endpoint === this.#chosen);
			say(row.firstChild.firstChild, it.endpoint + (it.endpoint === own ? ' (this node)' : ''));
			cells(row, stateWord(it), fleet.nameOf(it.endpoint) ?? '–', String(it.degree),
				span(at - it.since), roundTrip(trips.get(it.endpoint)));
		});
		keyed(this.seeds, fleet.seeds.values(), (it) => it.endpoint,
			(it) => h('li', { 'data-seed': it.endpoint },
				nodeLink(it.endpoint, `■ seed ${it.id ?? '?'}: ${it.endpoint}`), h('span.soft')),
			(row, it) => {
				attr(row, 'data-linked', String(Boolean(it.linked)));
				const reach = it.linked ? 'linked' : 'not linked';
				say(row.lastChild, it.endpoint === own ? 'this node' : reach);
			});
		const total = fleet.members.size;
		const some = all.length < total ? `${all.length} of ` : '';
		say(this.listTitle, `List of ${some}${count(total, 'node')} and ${
			count(fleet.seeds.size, 'seed')}`);
		if (this.#isFirst && total) {
			this.#isFirst = false;
			this.list.open = total <= OPEN_MAX;
		}
		if (this.#query) this.list.open = true;
	}

	// ---- the chosen node

	#showDetail(fleet) {
		const endpoint = this.#chosen;
		this.detail.hidden = !endpoint;
		const isNew = endpoint && this.#shownChoice !== endpoint;
		// An address that was sent opens the panel without taking the focus.
		const takesFocus = isNew && this.detail.contains(document.activeElement) === false
			&& document.activeElement !== document.body;
		this.#shownChoice = endpoint;
		if (!endpoint) return;
		if (isNew) this.#makeDetail(endpoint);
		const it = fleet.members.get(endpoint);
		const seed = fleet.seeds.get(endpoint);
		const facts = it ? this.#memberFacts(fleet, it) : this.#seedFacts(fleet, seed);
		keyed(this.facts, facts, ([name]) => name, ([name]) => h('div', null, h('dt', null, name),
			h('dd')), (row, [, text]) => say(row.lastChild, text));
		const near = fleet.neighborsOf(endpoint).sort((a, b) =>
			(a.rtt_us ?? 1e12) - (b.rtt_us ?? 1e12) || byName(a.endpoint, b.endpoint));
		say(this.nearTitle, near.length ? count(near.length, 'neighbor') : 'No neighbors are known');
		keyed(this.near, near, (one) => one.endpoint,
			(one) => h('li', null, nodeLink(one.endpoint), h('span.soft')), (row, one) => {
				const half = one.both ? '' : 'told by one end alone';
				say(row.lastChild, one.rtt_us === null ? half : roundTrip(one.rtt_us));
			});
		keyed(this.findings, it?.witnesses ?? [], (one) => one.witness, (one) =>
			h('li.warn', null, `${one.witness}: ${one.finding}`));
		this.why.hidden = !it;
		say(this.why, it?.endedAt ? 'Why is it out?' : 'Why is it in?');
		if (takesFocus) this.detail.focus();
	}

	#makeDetail(endpoint) {
		const close = button('', '✕', () => this.#close());
		attr(close, 'aria-label', 'Close');
		this.facts = h('dl.facts');
		this.findings = h('ul');
		this.near = h('ul.near');
		this.nearTitle = h('h3');
		this.why = h('a.why', { href: `#/decisions${address(endpoint)}` });
		this.detail.replaceChildren(h('div.top', null, h('h2', null, endpoint), close), this.facts,
			this.findings, this.why, this.nearTitle, this.near);
	}

	#memberFacts(fleet, it) {
		const now = this.#c.now();
		const { node } = fleet;
		const isOwn = node?.endpoint === it.endpoint;
		const own = fleet.neighborsOf(it.endpoint).find((one) => one.endpoint === node?.endpoint);
		const gossip = fleet.gossip.links.get(it.endpoint);
		const ended = { left: 'Left', removed: 'Removed' }[it.state];
		return [
			['State', stateWord(it)],
			['Name', fleet.nameOf(it.endpoint)],
			['Version', isOwn && `${node.version} (this node)`],
			['Health', isOwn && (node.healthy ? '✓ healthy' : `▲ ${node.trouble ?? 'not healthy'}`)],
			['Suspected', it.reason],
			[ended ?? 'Member since', `${ago(it.since, now)} (${clock(it.since)})`],
			['Incarnation', String(it.incarnation)],
			['Round trip', own && `${roundTrip(own.rtt_us)} from this page’s node`],
			['Gossip from it', gossip && rate(gossip.rate(now))],
		].filter(([, text]) => text);
	}

	#seedFacts(fleet, it) {
		if (!it) return [['State', 'neither a member nor a seed that is known here']];
		const isOwn = fleet.node?.endpoint === it.endpoint;
		const voted = fleet.decisions.filter((one) => one.votes?.some((by) => by.seed === it.id));
		const { says } = it;
		return [
			['Role', `seed ${it.id ?? '?'}`],
			['Version', isOwn && fleet.node.version],
			['Reach', isOwn ? 'this node' : it.linked ? '✓ linked' : '– not linked'],
			['Votes', `in ${voted.length} of ${count(fleet.decisions.length, 'decision')}`],
			['Last vote', says && `${says.yes ? 'yes' : 'no'}, about ${says.about}`],
		].filter(([, text]) => text);
	}
}
