// Gossip by link, topics, and the messages that were delivered.

import { ago, bytes, count, drawSpark, el, empty, keyed, nodeLink, number, rate, setText, spark,
  span, table } from './dom.js';

const CARDS = [
  ['Gossip heard', (fleet) => fleet.gossip.heard, 'lines of others that this node heard first'],
  ['Gossip made', (fleet) => fleet.gossip.made, 'lines of this node'],
];

/** See the top of this file. */
export class MessagesView {
  #c;
  #topic = '';

  constructor(section, context) {
    this.#c = context;
    this.cards = el('div', { class: 'tiles' });
    this.last = el('p', { class: 'small' });
    const links = table('Gossip by link', ['From', 'Per second', 'Last minute', 'Since opened']);
    this.links = links.body;
    this.noLinks = empty('No gossip was heard yet.');
    const topics = table('Topics', ['Topic', 'Messages', 'Bytes', 'Last minute']);
    this.topics = topics.body;
    this.choice = el('select', { id: 'topic', 'aria-label': 'Topic', onchange: () => {
      this.#topic = this.choice.value;
      this.update();
    } }, el('option', { value: '', text: 'all topics' }));
    const head = ['Topic', 'From', 'Size', 'Hops', 'On its way', 'Came'];
    const messages = table('Delivered messages', head);
    this.messages = messages.body;
    this.none = empty('No message came since this page was opened. Try: ', 'peer publish news hello');
    section.append(
      el('div', { class: 'top' }, el('h1', { id: 'title-messages', text: 'Messages' }), this.last),
      this.cards,
      el('div', { class: 'halves' },
        el('div', { class: 'card' }, el('h2', { text: 'Gossip by link' }), links.box, this.noLinks),
        el('div', { class: 'card' }, el('h2', { text: 'Topics' }), topics.box)),
      el('div', { class: 'card' },
        el('div', { class: 'top' }, el('h2', { text: 'Delivered here' }), this.choice),
        messages.box, this.none));
  }

  show() {}

  update() {
    const { fleet, now } = this.#c;
    const at = now();
    const last = fleet.gossip.last;
    setText(this.last, last?.text ? `last gossip: ${last.text}${
      last.hops ? ` (${count(last.hops, 'hop')})` : ''}` : '');
    this.#tiles(fleet, at);
    const own = fleet.node?.endpoint;
    const near = own ? fleet.neighborsOf(own).map((it) => it.endpoint) : [];
    const froms = [...new Set([...near, ...fleet.gossip.links.keys()])].sort();
    this.noLinks.hidden = froms.length > 0;
    keyed(this.links, froms, (it) => it, (it) => row(nodeLink(it), `gossip from ${it}`),
      (cells, it) => {
        const series = fleet.gossip.links.get(it);
        fillRow(cells, series, at, [rate(series?.rate(at) ?? 0), null, number(series?.total ?? 0)]);
      });
    const topics = [...fleet.topics.values()].sort((a, b) => b.count - a.count);
    keyed(this.topics, topics, (it) => it.topic, (it) => row(it.topic || '(none)',
      `messages of ${it.topic}`), (cells, it) => {
      fillRow(cells, it.series, at, [number(it.count), bytes(it.bytes), null]);
    });
    const names = ['', ...topics.map((it) => it.topic)];
    keyed(this.choice, names, (it) => it, (it) => el('option', { value: it,
      text: it || 'all topics' }));
    const some = fleet.messages.filter((it) => !this.#topic || it.topic === this.#topic);
    this.none.hidden = some.length > 0;
    keyed(this.messages, some.slice(0, 100), (it) => it.number, (it) => el('tr', {
      'data-message': it.id ?? '' },
    el('th', { scope: 'row', text: it.topic || '(none)' }),
    el('td', {}, it.origin ? nodeLink(it.origin) : '–', it.kind === 'published' ? ' (sent)' : ''),
    el('td', { class: 'number', text: bytes(it.size) }),
    el('td', { class: 'number', text: number(it.hops) }),
    el('td', { class: 'number', text: it.age_ms === undefined ? '–' : span(it.age_ms) }),
    el('td', { class: 'number' })), (line, it) => setText(line.lastChild, ago(it.at, at)));
  }

  #tiles(fleet, at) {
    const named = /delivered|published|duplicates|bytes_in$|bytes_out$/;
    const rates = [...fleet.rates].filter(([name]) => named.test(name)).slice(0, 4);
    const all = [
      ...CARDS.map(([name, of, text]) => ({ name, series: of(fleet), text })),
      ...rates.map(([name, series]) => ({ name: name.replaceAll('_', ' ').replaceAll('.', ' '),
        series, text: 'per second' })),
    ];
    keyed(this.cards, all, (it) => it.name, (it) => el('div', { class: 'tile', title: it.text },
      el('span', { text: it.name }), el('b'), spark(it.name)), (tile, it) => {
      const value = it.series.rate(at);
      const text = /bytes/.test(it.name) ? `${bytes(Math.round(value))}/s` : rate(value);
      setText(tile.children[1], text);
      drawSpark(tile.lastChild, it.series.list(at), null, `${it.name}, last minute: now ${text}`);
    });
  }
}

function row(name, label) {
  const line = el('tr', {}, el('th', { scope: 'row' }, name), el('td'), el('td'), el('td'));
  line.picture = spark(label);
  return line;
}

function fillRow(line, series, at, texts) {
  texts.forEach((text, place) => {
    const cell = line.children[place + 1];
    if (text !== null) {
      cell.className = 'number';
      setText(cell, text);
    } else if (!cell.firstChild) cell.append(line.picture);
  });
  if (series) drawSpark(line.picture, series.list(at));
}
