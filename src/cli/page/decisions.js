// Votes as they come, and decisions with their proofs. Each decision has an address.

import { ago, attr, card, clock, count, day, h, keyed, list, nodeLink, none, say, timed, title }
	from './dom.js';

const KINDS = { admit: ['+', 'was admitted'], remove: ['✕', 'was removed as dead'],
	evict: ['✕', 'was evicted by operators'], leave: ['○', 'left with a goodbye'] };
/** Time around a decision in which votes that were seen are about it. */
const NEAR_MS = 120000;
const VOTES_SHOWN = 60;

const kind = (it) => KINDS[it.kind] ?? ['•', it.kind];
const because = (text) => (text ? `: ${text}` : '');
const address = (endpoint) => `#/decisions?node=${encodeURIComponent(endpoint)}`;

function voters({ votes = [] }) {
	return votes.length ? `by seed${votes.length > 1 ? 's' : ''} ${list(votes.map((it) => it.seed))}`
		: 'no vote needed';
}

export class DecisionsView {
	#c;
	#id = null;
	#opened = null;

	constructor(section, context) {
		this.#c = context;
		this.filter = h('input#decision-filter', { type: 'search', autocomplete: 'off',
			placeholder: 'Filter by node', 'aria-label': 'Filter by node',
			oninput: () => this.#filtered() });
		this.said = h('p.soft');
		this.answer = h('p.note');
		this.list = h('div#decisions');
		this.none = none();
		this.votes = h('ol#votes.news', { 'aria-label': 'Votes' });
		this.noVotes = none('No vote was seen since this page was opened.');
		section.append(title('decisions', 'Decisions', this.said), h('div.split', null,
			h('div.stack', null, h('div.tools', null, this.filter), this.answer, this.list, this.none),
			card('Votes, live', this.votes, this.noVotes)));
	}

	show({ id, query }) {
		this.#id = id;
		this.#opened = null;
		if (document.activeElement !== this.filter) this.filter.value = query.get('node') ?? '';
	}

	#filtered() {
		const node = this.filter.value.trim();
		history.replaceState(null, '', node ? address(node) : '#/decisions');
		this.#id = null;
		this.update();
	}

	update() {
		const { fleet, now } = this.#c;
		const node = this.filter.value.trim().toLowerCase();
		const has = (it) => it?.toLowerCase().includes(node);
		const all = fleet.decisions.filter((it) =>
			it.id === this.#id || [it.endpoint, ...(it.together ?? [])].some(has));
		const at = now();
		say(this.said, count(all.length, 'decision') + (node ? ` about ${node}` : ', newest first'));
		keyed(this.list, all, (it) => it.id, (it) => this.#make(it), (row, it) => {
			row.decision = it;
			say(row.firstChild.lastChild, ago(it.at_ms, at));
			if (row.open) this.#fill(row);
		});
		this.none.hidden = all.length > 0;
		say(this.none, node ? `No decision about ${node} is known here.`
			: 'No decision is known here. A fleet without seeds makes none.');
		this.#say(all.find((it) => it.endpoint.toLowerCase() === node));
		this.#open();
		const votes = fleet.votes.filter((it) => !node || has(it.endpoint)).slice(0, VOTES_SHOWN);
		this.noVotes.hidden = votes.length > 0;
		keyed(this.votes, votes, (it) => it.number, (it) => {
			const about = `${it.kind} ${it.endpoint}${because(it.reason)}`;
			if (it.event === 'proposed') return timed(it.at, `? ${about}; ${it.needed} votes needed`);
			const [sign, word] = it.yes ? ['✓', 'yes'] : ['✕', 'no'];
			const of = it.needed ? ` (${it.count} of ${it.needed})` : '';
			return timed(it.at, `${sign} seed ${it.seed} says ${word} to ${about}${of}`, word);
		});
	}

	/** Answers why a node is in or out, when one is asked about. */
	#say(newest) {
		this.answer.hidden = !newest;
		if (!newest) return;
		const first = newest.findings?.[0];
		const found = first ? `: ${first.witness} found “${first.finding}”` : '';
		say(this.answer, `${newest.endpoint} is ${newest.kind === 'admit' ? 'in' : 'out'}: it ${
			kind(newest)[1]}, ${voters(newest)}${found}.`);
	}

	/** Opens the decision that the address names, once. */
	#open() {
		if (!this.#id || this.#opened === this.#id) return;
		const row = [...this.list.children].find((it) => it.dataset.decision === this.#id);
		if (!row) {
			this.answer.hidden = false;
			say(this.answer, `The decision ${this.#id} is not known here, or not any more.`);
			return;
		}
		this.#opened = this.#id;
		row.open = true;
		this.#fill(row);
		row.scrollIntoView({ block: 'nearest' });
		row.firstChild.focus({ preventScroll: true });
	}

	#make(it) {
		const [sign, word] = kind(it);
		const more = it.together?.length ? `, with ${count(it.together.length, 'other')}` : '';
		const head = h('summary', null,
			h('span', { class: `sign ${it.kind}`, 'aria-hidden': true }, sign),
			h('span.what', null, h('b', null, it.endpoint), ` ${word}${more}`,
				h('small', null, voters(it))),
			it.valid === false && h('span.bad', null, '▲ not valid'), h('span.soft'));
		const row = h('details.card.decision', { 'data-decision': it.id, 'data-kind': it.kind,
			ontoggle: () => row.open && this.#fill(row) }, head, h('div.proof'));
		row.decision = it;
		return row;
	}

	#fill(row) {
		const it = row.decision;
		const seen = this.#c.fleet.votes.filter((vote) => vote.event === 'voted'
			&& vote.endpoint === it.endpoint && vote.kind === it.kind
			&& Math.abs(vote.at - it.at_ms) < NEAR_MS);
		const key = `${it.valid} ${it.votes?.length} ${it.findings?.length} ${seen.length}`;
		if (row.filled === key) return;
		row.filled = key;
		const step = (at, ...parts) => h('li', null, h('time', null, clock(at, true)),
			h('span', null, ...parts));
		const findings = (it.findings ?? []).map((one, at) => step(one.at_ms,
			one.accuser ?? at === 0 ? 'Accused by ' : 'Confirmed by ', nodeLink(one.witness),
			`: ${one.finding}`));
		const yes = [...(it.votes ?? [])].sort((a, b) => a.at_ms - b.at_ms).map((one) => {
			const live = seen.find((vote) => vote.yes && vote.seed === one.seed);
			return step(one.at_ms, `✓ Seed ${one.seed} voted yes${because(live?.reason)}`);
		});
		const no = seen.filter((one) => !one.yes).map((one) =>
			step(one.at, `✕ Seed ${one.seed} voted no${because(one.reason)}`));
		const [good, text] = { true: ['good', '✓ signatures checked in this node: valid'],
			false: ['bad', '▲ signatures checked in this node: NOT valid'] }[it.valid]
			?? ['', 'Signatures cannot be checked in this node'];
		const others = (it.together ?? []).flatMap((one, at) => [at ? ', ' : '', nodeLink(one)]);
		row.lastChild.replaceChildren(
			h('ol.steps', null, ...findings, ...yes, ...no,
				step(it.at_ms, h('b', null, `Decided: it ${kind(it)[1]}`))),
			others.length ? h('p', null, 'Decided together: ', ...others) : '',
			h('p', { class: `valid ${good}` }, text + because(it.why)),
			h('p.small', null, `incarnation ${it.incarnation} · ${day(it.at_ms)} · `,
				h('a', { href: `#/decision/${encodeURIComponent(it.id)}` }, 'address of this decision'),
				' · ', h('a', { href: address(it.endpoint) }, `all about ${it.endpoint}`)));
		attr(row, 'data-valid', it.valid ?? 'unknown');
	}
}
