// Shares of the fleet and running swarms, as far as the node tells of them.

import { attr, bytes, count, h, keyed, none, say, span, title } from './dom.js';

const CELLS_MAX = 240;

export class FilesView {
	#c;

	constructor(section, context) {
		this.#c = context;
		this.said = h('p.soft');
		this.list = h('div#shares.stack');
		this.none = none('Nothing is shared here. Begin with: ', 'peer share PATH');
		this.more = none('This node tells only their number. The list: ', 'peer shares');
		section.append(title('files', 'Files', this.said), this.list, this.none, this.more);
	}

	update() {
		const { shares } = this.#c.fleet.services;
		const all = Array.isArray(shares) ? shares : shares?.list ?? [];
		const known = shares?.known ?? all.length;
		const parts = [`${count(known, 'share')} known in the fleet`];
		if (Number.isInteger(shares?.own)) parts.push(`${shares.own} of this node`);
		if (Number.isInteger(shares?.taken)) parts.push(`${shares.taken} taken for others`);
		say(this.said, parts.join(' · '));
		this.none.hidden = known > 0;
		this.more.hidden = !known || all.length > 0;
		keyed(this.list, all, (it) => it.ticket ?? `${it.name} ${it.size}`, make, fill);
	}
}

function make(it) {
	return h('article.card', { 'data-share': it.name }, h('div.top', null,
		h('h2', null, `${it.is_folder ? '▤' : '▪'} ${it.name}`), h('span')), h('p'),
	h('progress', { 'aria-label': `pieces of ${it.name}` }), h('div.pieces', { role: 'img' }),
	h('p.small'));
}

function fill(row, it) {
	const [head, who, bar, map, rates] = row.children;
	const here = Number.isInteger(it.have) ? it : it.here;
	const isWhole = here && here.have === here.pieces;
	const has = `${here?.have} of ${here?.pieces} pieces here`;
	say(head.lastChild, isWhole ? '✓ complete here' : here ? has : 'not here');
	attr(head.lastChild, 'class', `badge ${isWhole ? 'good' : ''}`);
	const peers = Number.isInteger(it.peers) ? ` · at ${count(it.peers, 'peer')}` : '';
	say(who, `${bytes(it.size)}${peers}${it.everywhere ? ' · wanted everywhere' : ''}`);
	bar.hidden = rates.hidden = !here;
	// Which pieces are here is not told by their number.
	map.hidden = !isWhole && !here?.map;
	if (!here) return;
	bar.max = here.pieces || 1;
	bar.value = here.have;
	attr(map, 'aria-label', has);
	if (!map.hidden) pieces(map, here, isWhole);
	const left = here.left_s ? ` · ${span(here.left_s * 1000)} left` : '';
	const busy = here.peers ? ` · ${count(here.peers, 'connection')}` : '';
	say(rates, `down ${bytes(here.down_per_s ?? 0)}/s (${bytes(here.down_bytes ?? 0)} in all) · up ${
		bytes(here.up_per_s ?? 0)}/s (${bytes(here.up_bytes ?? 0)} in all)${busy}${left}`);
}

/** Draws the pieces, or as many stretches of them as fit; `map` is a bit field in hex digits. */
function pieces(box, { map, pieces: total }, isWhole) {
	const has = (at) => isWhole || (parseInt(map[at >> 2], 16) >> (3 - (at & 3))) & 1;
	const n = Math.min(total, CELLS_MAX);
	const edge = (cell) => Math.floor((cell * total) / n);
	keyed(box, Array.from({ length: n }).keys(), (it) => it, () => h('i'), (cell, it) => {
		let sum = 0;
		for (let at = edge(it); at < edge(it + 1); at += 1) sum += has(at) ? 1 : 0;
		attr(cell, 'class', sum === edge(it + 1) - edge(it) ? 'has' : sum > 0 && 'some');
	});
}
