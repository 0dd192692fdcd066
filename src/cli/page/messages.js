// Gossip by link, topics, and the messages that were delivered.

import { ago, bytes, card, cells, draw, h, keyed, line, nodeLink, none, number, rate, say,
	span, spark, table, title } from './dom.js';

const SHOWN = 100;
/** Counters that are shown as rates beside those of gossip. */
const COUNTERS = /^bytes_|duplicates$/;

function pictured(head) {
	const row = line(head, 3);
	row.lastChild.append(spark());
	return row;
}

export class MessagesView {
	#c;
	#topic = '';

	constructor(section, context) {
		this.#c = context;
		this.tiles = h('div.tiles');
		this.last = h('p.small');
		const links = table('Gossip by link', ['From', 'Per second', 'Seen here', 'Last minute']);
		const topics = table('Topics', ['Topic', 'Messages', 'Bytes', 'Last minute']);
		const messages = table('Messages', ['Topic', 'From', 'Size', 'Hops', 'On its way', 'Came']);
		[this.links, this.topics, this.messages] = [links.body, topics.body, messages.body];
		this.noLinks = none('No gossip was heard yet.');
		this.noTopics = none('No topic was heard of yet. ', 'peer subscribe news');
		this.none = none('No message came since this page was opened. Try: ', 'peer publish news hello');
		this.choice = h('select#topic', { 'aria-label': 'Topic', onchange: () => {
			this.#topic = this.choice.value;
			this.update();
		} });
		section.append(title('messages', 'Messages', this.last), this.tiles,
			h('div.halves', null, card('Gossip by link', links.box, this.noLinks),
				card('Topics', topics.box, this.noTopics)),
			card(null, h('div.top', null, h('h2', null, 'Delivered here'), this.choice), messages.box,
				this.none));
	}

	update() {
		const { fleet, now } = this.#c;
		const at = now();
		const { gossip } = fleet;
		say(this.last, gossip.last?.text ? `last gossip: ${gossip.last.text}` : '');
		const rates = [...fleet.rates].filter(([name]) => COUNTERS.test(name)).slice(0, 3);
		const tiles = [['gossip heard', gossip.heard], ['gossip made', gossip.made],
			['messages', fleet.delivered], ...rates];
		keyed(this.tiles, tiles, ([name]) => name, ([name]) => h('div.card', null,
			h('span.small', null, name.replace(/[_.]/g, ' ')), h('b'), spark()), (tile, [name, it]) => {
			const value = it.rate(at);
			const text = /bytes/.test(name) ? `${bytes(value)}/s` : rate(value);
			say(tile.children[1], text);
			draw(tile.lastChild, it.list(at), `${name} in the last minute, now ${text}`);
		});
		const near = fleet.neighborsOf(fleet.node?.endpoint).map((it) => it.endpoint);
		const froms = [...new Set([...near, ...gossip.links.keys()])].sort();
		this.noLinks.hidden = froms.length > 0;
		keyed(this.links, froms, (it) => it, (it) => pictured(nodeLink(it)), (row, it) => {
			const series = gossip.links.get(it);
			const text = rate(series?.rate(at) ?? 0);
			cells(row, text, number(series?.total ?? 0));
			draw(row.lastChild.firstChild, series?.list(at) ?? [], `gossip from ${it}, now ${text}`);
		});
		const topics = [...fleet.topics.values()].sort((a, b) => b.count - a.count);
		this.noTopics.hidden = topics.length > 0;
		keyed(this.topics, topics, (it) => it.topic, (it) => pictured(it.topic), (row, it) => {
			cells(row, number(it.count), bytes(it.bytes));
			draw(row.lastChild.firstChild, it.series.list(at), `messages of ${it.topic}`);
		});
		keyed(this.choice, ['', ...topics.map((it) => it.topic)], (it) => it, (it) =>
			h('option', { value: it }, it || 'all topics'));
		const some = fleet.messages.filter((it) => !this.#topic || it.topic === this.#topic);
		this.none.hidden = some.length > 0;
		keyed(this.messages, some.slice(0, SHOWN), (it) => it.number, (it) => {
			const row = line(it.topic, 5, { 'data-message': it.id });
			row.children[1].append(it.origin ? nodeLink(it.origin) : '–');
			return row;
		}, (row, it) => cells(row, null, bytes(it.size), number(it.hops), span(it.age_ms),
			ago(it.at, at)));
	}
}
