// The chat: one order of messages, as this node's member of the group has them.

import { attr, button, card, clock, count, day, h, keyed, none, say, title } from './dom.js';

const PAGE = 200;
/** The room that `peer chat send` uses unless another is named. */
const GENERAL = 'general';

export class LogView {
	#c;
	#room = null;
	#reading = new Set();
	#stale = new Set();
	#begin = new Map();
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
		this.problem = h('p.note.bad', { role: 'alert', hidden: true });
		this.only = h('p.note', null, 'This page only shows the chat: to say something, open it on the '
			+ 'node’s own machine.');
		this.rooms = h('ul.rooms');
		this.group = h('ul.near');
		this.absent = none('This node takes part in no chat. Begin with: ', 'peer --chat 1');
		this.whole = h('div.split', null, h('div.card.stack', null, this.earlier, this.list, this.none,
			this.problem, this.form, this.only),
		h('div.side', null, card('Rooms', this.rooms), card('Group', this.group)));
		section.append(title('log', 'Chat', this.said), this.absent, this.whole);
	}

	show({ query }) {
		const room = query.get('room');
		if (room && room !== this.#room) this.#enter(room);
	}

	#enter(room) {
		this.#room = room;
		this.#isAtEnd = true;
		this.#c.fleet.room(room);
		this.#read(room);
	}

	/** Reads what is new in a room, one request at a time. */
	async #read(room) {
		if (this.#reading.has(room)) return this.#stale.add(room);
		this.#reading.add(room);
		const { fleet, connection } = this.#c;
		const newest = fleet.services.chat?.last ?? 0;
		let after = fleet.room(room).messages.at(-1)?.seq ?? Math.max(0, newest - PAGE);
		if (!this.#begin.has(room)) this.#begin.set(room, after);
		await this.#try('The messages cannot be read', async () => {
			for (let isMore = true; isMore;) {
				const json = await connection.history(room, after, PAGE);
				const last = json.messages.at(-1)?.seq ?? 0;
				fleet.addHistory(room, json);
				isMore = json.more && last > after;
				after = last;
			}
		});
		this.#reading.delete(room);
		return this.#stale.delete(room) && this.#read(room);
	}

	/** Reads the messages before the first that is shown. */
	async #earlier() {
		const { fleet, connection } = this.#c;
		const room = this.#room;
		const high = this.list.scrollHeight;
		this.earlier.disabled = true;
		await this.#try('The messages cannot be read', async () => {
			// Other rooms have numbers too: a stretch may hold nothing of this one.
			for (let older = []; this.#begin.get(room) > 0 && !older.length;) {
				const until = this.#begin.get(room);
				const json = await connection.history(room, Math.max(0, until - PAGE), PAGE);
				this.#begin.set(room, Math.max(0, until - PAGE));
				older = json.messages.filter((it) => it.seq <= until);
				fleet.addHistory(room, { messages: older });
			}
		});
		this.earlier.disabled = this.#isAtEnd = false;
		this.update(new Set());
		this.list.scrollTop += this.list.scrollHeight - high;
	}

	async #say() {
		const text = this.text.value.trim();
		if (!text) return;
		this.send.disabled = true;
		await this.#try('Not sent', async () => {
			await this.#c.connection.post('chat/say', { room: this.#room, text });
			this.text.value = '';
			this.#isAtEnd = true;
			this.#read(this.#room);
		});
		this.send.disabled = false;
		this.text.focus();
	}

	async #try(what, act) {
		try {
			await act();
			this.problem.hidden = true;
		} catch (error) {
			say(this.problem, `${what}: ${error.message}`);
			this.problem.hidden = false;
		}
	}

	update(changes) {
		const { fleet } = this.#c;
		const { chat } = fleet.services;
		this.absent.hidden = Boolean(chat);
		this.whole.hidden = this.said.hidden = !chat;
		if (!chat) return;
		const rooms = [...new Set([...(chat.rooms ?? [GENERAL]), ...fleet.rooms.keys()])];
		if (!this.#room) this.#enter(rooms[0]);
		else if (changes.has('said')) this.#read(this.#room);
		const parts = [Number.isInteger(chat.leader)
			? `♛ ${name(chat, chat.leader)} leads in term ${chat.term}` : 'nobody leads',
		`final up to ${chat.final}`];
		if (chat.pending) parts.push(`${count(chat.pending, 'message')} pending`);
		if (chat.quorum === false) parts.push('▲ no majority is in reach: messages wait');
		say(this.said, parts.join(' · '));
		keyed(this.rooms, rooms, (it) => it, (it) => h('li', null,
			h('a', { href: `#/log?room=${encodeURIComponent(it)}` }, it)),
		(row, it) => attr(row.firstChild, 'aria-current', it === this.#room));
		keyed(this.group, members(chat), ([it]) => it, ([it]) => h('li', null, h('span', null, it),
			h('span.soft')), (row, [, note]) => say(row.lastChild, note));
		this.#show(fleet.room(this.#room).messages);
		this.form.hidden = !fleet.mayAct;
		this.only.hidden = fleet.mayAct;
	}

	#show(messages) {
		this.none.hidden = messages.length > 0;
		this.earlier.hidden = !this.#begin.get(this.#room);
		let before = '';
		keyed(this.list, messages, (it) => it.seq, (it) => h('li', { 'data-seq': it.seq },
			h('span.small', null, `#${it.seq}`), h('b', null, it.from), h('time', null, clock(it.at_ms)),
			h('p', null, it.text)), (row, it) => {
			const date = it.at_ms ? day(it.at_ms) : before;
			attr(row, 'data-day', date !== before && date);
			before = date;
		});
		if (this.#isAtEnd) this.list.scrollTop = this.list.scrollHeight;
	}
}

function name(chat, id) {
	return chat.roster?.find((it) => it.id === id)?.name ?? `peer_${id}`;
}

/** Members with a note; a summary if the node tells no list. */
function members(chat) {
	if (!chat.roster) {
		const away = (chat.away ?? []).map((id) => name(chat, id));
		return [[count(chat.members, 'member'), away.length ? `away: ${away.join(', ')}` : 'all here'],
			['This node', `${name(chat, chat.id)}, ${chat.role?.toLowerCase()}`]];
	}
	return chat.roster.map((it) => [it.name, [it.id === chat.leader && '♛ leads',
		it.id === chat.id && 'this node', it.linked === false && 'away'].filter(Boolean).join(', ')]);
}
