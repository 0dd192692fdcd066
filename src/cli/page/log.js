// The chat: one order of messages, as this node's member of the group has them.

import { attr, button, card, clock, count, day, h, keyed, none, say, title } from './dom.js';

const PAGE = 200;
/** The room that is meant unless another is named. */
const GENERAL = 'general';

export class LogView {
	#c;
	#room = GENERAL;
	#isReading = false;
	#isStale = true;
	#final = 0;
	#begin = null;
	#isAtEnd = true;

	constructor(section, context) {
		this.#c = context;
		this.said = h('p#chat-state.soft');
		this.earlier = button('#chat-earlier', 'Earlier messages', () => this.#earlier());
		this.list = h('ol#chat-messages', { tabindex: 0, role: 'log', 'aria-label': 'Messages',
			onscroll: () => {
				const { scrollTop, scrollHeight, clientHeight } = this.list;
				this.#isAtEnd = scrollHeight - scrollTop - clientHeight < 40;
			} });
		this.none = none('No message yet.');
		this.text = h('input#chat-text', { autocomplete: 'off', placeholder: 'Say something',
			'aria-label': 'Message' });
		this.send = h('button#chat-send', { type: 'submit' }, 'Send');
		this.form = h('form.say', { onsubmit: (event) => {
			event.preventDefault();
			this.#say();
		} }, this.text, this.send);
		this.problem = h('p.note', { role: 'alert', hidden: true });
		this.only = h('p.note', null, 'This page only shows the chat: to say something, open it on '
			+ 'the node’s own machine.');
		this.rooms = h('ul.rooms');
		this.group = h('ul.near');
		this.absent = none('This node takes part in no chat. Begin with: ', 'peer --chat 1');
		this.whole = h('div.split', null, h('div.card.stack', null, this.earlier, this.list, this.none,
			this.problem, this.form, this.only),
		h('div.side', null, card('Rooms', this.rooms), card('Group', this.group)));
		section.append(title('log', 'Chat', this.said), this.absent, this.whole);
		context.fleet.on((changes) => (this.#isStale ||= changes.has('said')));
	}

	show({ query }) {
		this.#room = query.get('room') ?? this.#room;
		this.#isAtEnd = true;
	}

	/** Reads what is new, one request at a time. */
	async #read() {
		if (this.#isReading) return;
		this.#isReading = true;
		this.#isStale = false;
		this.#final = this.#c.fleet.services.chat.final;
		const { fleet, connection } = this.#c;
		const begin = Math.max(0, (fleet.services.chat.last ?? 0) - PAGE);
		this.#begin ??= begin;
		let after = fleet.chat.at(-1)?.seq ?? begin;
		await this.#try('The messages cannot be read', async () => {
			for (let isMore = true; isMore;) {
				const json = await connection.history(after, PAGE);
				const last = json.messages.at(-1)?.seq ?? 0;
				fleet.addHistory(json);
				isMore = json.more && last > after;
				after = last;
			}
		});
		this.#isReading = false;
	}

	/** Reads the messages before the first one, until there is one of this room. */
	async #earlier() {
		const { fleet, connection } = this.#c;
		const high = this.list.scrollHeight;
		this.earlier.disabled = true;
		await this.#try('The messages cannot be read', async () => {
			for (let isFound = false; this.#begin > 0 && !isFound;) {
				const until = this.#begin;
				this.#begin = Math.max(0, until - PAGE);
				const json = await connection.history(this.#begin, PAGE);
				const messages = json.messages.filter((it) => it.seq <= until);
				fleet.addHistory({ ...json, messages });
				isFound = fleet.chat.some((it) => it.seq <= until && it.room === this.#room);
			}
		});
		this.earlier.disabled = this.#isAtEnd = false;
		this.update();
		this.list.scrollTop += this.list.scrollHeight - high;
	}

	async #say() {
		const text = this.text.value.trim();
		if (!text) return;
		this.send.disabled = true;
		await this.#try('Not sent', async () => {
			const json = await this.#c.connection.post('chat/say', { room: this.#room, text });
			this.text.value = '';
			this.#isStale = this.#isAtEnd = true;
			this.update();
			return json.kept && 'It is kept, and gets its place once a majority is in reach.';
		});
		this.send.disabled = false;
		this.text.focus();
	}

	/** Does something, and shows what it returns or why it failed. */
	async #try(what, act) {
		const note = await act().catch((error) => `▲ ${what}: ${error.message}`);
		this.problem.hidden = !note;
		say(this.problem, note || '');
	}

	update() {
		const { fleet } = this.#c;
		const { chat } = fleet.services;
		this.absent.hidden = Boolean(chat);
		this.whole.hidden = this.said.hidden = !chat;
		if (!chat) return;
		if (this.#isStale || chat.final > this.#final) this.#read();
		const parts = [chat.leader ? `♛ peer_${chat.leader} leads in term ${chat.term}`
			: 'nobody leads', `final up to ${chat.final}`];
		if (chat.pending) parts.push(`${count(chat.pending, 'message')} pending`);
		if (chat.quorum === false) parts.push('▲ no majority is in reach: messages wait');
		say(this.said, parts.join(' · '));
		const rooms = new Set([GENERAL, this.#room, ...fleet.chat.map((it) => it.room)]);
		keyed(this.rooms, rooms, (it) => it, (it) => h('li', null,
			h('a', { href: `#/log?room=${encodeURIComponent(it)}` }, it)),
		(row, it) => attr(row.firstChild, 'aria-current', it === this.#room));
		keyed(this.group, members(chat), ([it]) => it, ([it]) => h('li', null, h('span', null, it),
			h('span.soft')), (row, [, note]) => say(row.lastChild, note));
		this.#show(fleet.chat.filter((it) => it.room === this.#room));
		this.form.hidden = !fleet.mayAct;
		this.only.hidden = fleet.mayAct;
	}

	#show(messages) {
		this.none.hidden = messages.length > 0;
		this.earlier.hidden = !this.#begin;
		let before = '';
		keyed(this.list, messages, (it) => it.seq, (it) => h('li', { 'data-seq': it.seq },
			h('span.small', null, `#${it.seq}`), h('b', null, it.from),
			h('time', null, clock(it.at_ms)), h('p', null, it.text)), (row, it) => {
			const date = it.at_ms ? day(it.at_ms) : before;
			attr(row, 'data-day', date !== before && date);
			before = date;
		});
		if (this.#isAtEnd) this.list.scrollTop = this.list.scrollHeight;
	}
}

/** Members with a note; a summary if the node tells no list. */
function members({ id, leader, members: all, away = [], status }) {
	const note = (it) => [it.node_id === leader && '♛ leads', it.node_id === id && 'this node',
		!it.linked && 'away'].filter(Boolean).join(', ');
	if (status) return status.members.map((it) => [`peer_${it.node_id}`, note(it)]);
	return [[count(all, 'member'), away.length ? `${away.length} away` : 'all here']];
}
