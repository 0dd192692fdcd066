// The chat: one order of messages, as the node's member of the group has them.

import { clock, count, el, empty, keyed, list, setAttr, setText } from './dom.js';

const PAGE = 200;
/** The room that `peer chat send` uses unless another is named. */
const GENERAL = 'general';

/** See the top of this file. */
export class LogView {
  #c;
  #room = null;
  #reads = new Set();
  #stale = new Set();
  #isOpen = false;
  #isAtEnd = true;

  constructor(section, context) {
    this.#c = context;
    this.said = el('p', { class: 'summary', id: 'chat-state' });
    this.rooms = el('ul', { class: 'rooms', 'aria-label': 'Rooms' });
    this.members = el('ul', { class: 'near', 'aria-label': 'Members' });
    this.earlier = el('button', { type: 'button', class: 'quiet', id: 'chat-earlier',
      text: 'Earlier messages', onclick: () => this.#earlier() });
    this.list = el('ol', { id: 'chat-messages', class: 'timeline', tabindex: 0, role: 'log',
      'aria-label': 'Messages', onscroll: () => this.#scrolled() });
    this.none = empty('No message yet.');
    this.text = el('input', { id: 'chat-text', type: 'text', autocomplete: 'off',
      placeholder: 'Say something', 'aria-label': 'Message', maxlength: 4000 });
    this.send = el('button', { id: 'chat-send', type: 'submit', text: 'Send' });
    this.form = el('form', { class: 'say', onsubmit: (event) => {
      event.preventDefault();
      this.#say();
    } }, this.text, this.send);
    this.problem = el('p', { class: 'note bad', role: 'alert', hidden: true });
    this.only = el('p', { class: 'note', hidden: true,
      text: 'This page only shows the chat: saying something needs a browser on the node’s own '
        + 'machine.' });
    this.absent = empty('This node takes part in no chat. Begin with: ', 'peer --chat 1');
    this.whole = el('div', { class: 'split chat' },
      el('div', { class: 'card room' }, this.earlier, this.list, this.none, this.problem,
        this.form, this.only),
      el('div', { class: 'side' },
        el('div', { class: 'card' }, el('h2', { text: 'Rooms' }), this.rooms),
        el('div', { class: 'card' }, el('h2', { text: 'Group' }), this.members)));
    section.append(el('div', { class: 'top' },
      el('h1', { id: 'title-log', text: 'Chat' }), this.said), this.absent, this.whole);
  }

  show(route) {
    this.#isOpen = true;
    const room = route.query.get('room');
    if (room && room !== this.#room) this.#enter(room);
  }

  hide() {
    this.#isOpen = false;
  }

  #status() {
    const { chat, order } = this.#c.fleet.services;
    return chat ?? (order?.chat ? order : null);
  }

  #enter(room) {
    this.#room = room;
    this.#isAtEnd = true;
    this.#c.fleet.room(room);
    this.#read(room);
    this.update(new Set());
  }

  /** Reads what is new in a room; one request at a time. */
  async #read(room) {
    if (this.#reads.has(room)) {
      this.#stale.add(room);
      return;
    }
    this.#reads.add(room);
    try {
      const known = this.#c.fleet.room(room).messages.at(-1)?.seq;
      const status = this.#status();
      let after = known ?? Math.max(0, (status?.last ?? status?.final ?? 0) - PAGE);
      for (;;) {
        const json = await this.#c.connection.history(room, after, PAGE);
        this.#c.fleet.addHistory(room, json);
        const last = json.messages?.at(-1)?.seq;
        if (!json.more || !last || last <= after) break;
        after = last;
      }
      this.problem.hidden = true;
    } catch (error) {
      this.#fail(`The messages cannot be read: ${error.message}`);
    }
    this.#reads.delete(room);
    if (this.#stale.delete(room)) this.#read(room);
  }

  /** Reads the messages before the first that is shown. */
  async #earlier() {
    const room = this.#c.fleet.room(this.#room);
    const first = room.messages[0]?.seq ?? 1;
    this.earlier.disabled = true;
    const high = this.list.scrollHeight;
    try {
      // Other rooms and memberships have numbers too: a stretch may hold nothing of this room.
      for (let until = first; until > 1;) {
        const after = Math.max(0, until - PAGE - 1);
        const json = await this.#c.connection.history(this.#room, after, PAGE);
        const older = (json.messages ?? []).filter((it) => it.seq < first);
        this.#c.fleet.addHistory(this.#room, { ...json, messages: older });
        room.from = after;
        if (older.length) break;
        until = after;
      }
    } catch (error) {
      this.#fail(`The messages cannot be read: ${error.message}`);
    }
    this.earlier.disabled = false;
    this.#isAtEnd = false;
    this.update(new Set());
    this.list.scrollTop += this.list.scrollHeight - high;
  }

  async #say() {
    const text = this.text.value.trim();
    if (!text) return;
    this.send.disabled = true;
    setText(this.send, 'Sending…');
    try {
      await this.#c.connection.post('chat/say', { room: this.#room, text });
      this.text.value = '';
      this.problem.hidden = true;
      this.#isAtEnd = true;
      await this.#read(this.#room);
    } catch (error) {
      this.#fail(`Not sent: ${error.message}`);
    }
    this.send.disabled = false;
    setText(this.send, 'Send');
    this.text.focus();
  }

  #fail(text) {
    setText(this.problem, text);
    this.problem.hidden = false;
  }

  #scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.list;
    this.#isAtEnd = scrollHeight - scrollTop - clientHeight < 40;
  }

  update(changes) {
    const { fleet } = this.#c;
    const status = this.#status();
    this.absent.hidden = Boolean(status);
    this.whole.hidden = !status;
    this.said.hidden = !status;
    if (!status) return;
    const rooms = [...new Set([...(status.rooms ?? [GENERAL]), ...fleet.rooms.keys()])];
    if (!this.#room) {
      this.#enter(status.room ?? rooms[0]);
      return;
    }
    const isBehind = (fleet.rooms.get(this.#room)?.messages.at(-1)?.seq ?? 0) < (status.final ?? 0);
    if (changes?.has('chat-event') || (isBehind && changes?.has('services'))) this.#read(this.#room);
    this.#state(status);
    keyed(this.rooms, rooms, (it) => it, (it) => el('li', {}, el('a', {
      href: `#/log?room=${encodeURIComponent(it)}`, text: it })), (row, it) => {
      setAttr(row.firstChild, 'aria-current', it === this.#room ? 'true' : null);
    });
    this.#showMembers(status);
    this.#showMessages(fleet.room(this.#room));
    this.form.hidden = !fleet.mayAct;
    this.only.hidden = fleet.mayAct;
  }

  #state(status) {
    const parts = [];
    if (status.leader !== null && status.leader !== undefined) {
      parts.push(`♛ ${memberName(status, status.leader)} leads in term ${status.term}`);
    } else if (status.term !== undefined) parts.push(`nobody leads in term ${status.term}`);
    if (status.final !== undefined) parts.push(`final up to ${status.final}`);
    if (status.pending) parts.push(`${count(status.pending, 'message')} pending`);
    if (status.quorum === false) parts.push('▲ no majority is in reach: messages wait');
    setText(this.said, parts.join(' · '));
  }

  #showMembers(status) {
    const roster = Array.isArray(status.members) ? status.members : status.roster ?? [];
    const away = status.away ?? [];
    const rows = roster.map((it) => {
      const notes = [];
      if (it.id === status.leader) notes.push('♛ leads');
      if (it.id === status.id) notes.push('this node');
      if (it.linked === false) notes.push('away');
      return [it.name ?? memberName(status, it.id), notes.join(', ')];
    });
    if (!rows.length) {
      const total = typeof status.members === 'number' ? status.members : 0;
      rows.push([count(total, 'member'), away.length ? `away: ${list(away.map(String))}` : 'all here']);
      rows.push(['This node', `${memberName(status, status.id)}${
        status.role ? `, ${String(status.role).toLowerCase()}` : ''}`]);
    }
    keyed(this.members, rows, ([name]) => name, ([name]) => el('li', {}, el('span', { text: name }),
      el('span')), (row, [, note]) => setText(row.lastChild, note));
  }

  #showMessages(room) {
    const { messages } = room;
    this.none.hidden = messages.length > 0;
    this.list.hidden = !messages.length;
    const first = messages[0]?.seq ?? 1;
    this.earlier.hidden = first <= 1 || room.from === 0 || !messages.length;
    let day = '';
    keyed(this.list, messages, (it) => it.seq, (it) => el('li', { 'data-seq': it.seq },
      el('span', { class: 'seq', title: 'place in the order', text: `#${it.seq}` }),
      el('b', { text: String(it.from) }), el('time', { text: clock(it.at_ms) }),
      el('p', { text: it.text })), (row, it) => {
      const now = it.at_ms ? clock(it.at_ms, true).slice(0, 10) : day;
      setAttr(row, 'data-day', now !== day ? now : null);
      day = now;
    });
    if (this.#isAtEnd) this.list.scrollTop = this.list.scrollHeight;
  }
}

function memberName(status, id) {
  const known = Array.isArray(status.members) ? status.members : status.roster ?? [];
  return known.find((it) => it.id === id)?.name ?? (typeof id === 'number' ? `peer_${id}` : `${id}`);
}
