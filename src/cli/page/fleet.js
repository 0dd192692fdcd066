// The first view: the picture of the fleet, what has just happened, one node, the list of nodes.

import { ago, clock, count, el, keyed, nodeLink, rate, replace, roundTrip, setAttr, setText,
  span, svg, table } from './dom.js';
import { Graph, stateText } from './graph.js';

const SIGNS = { alive: '●', suspected: '!', removed: '✕', left: '○' };
const NEWS_SHOWN = 12;
const LIST_OPEN_MAX = 12;
const COLUMNS = [
  ['state', 'State'], ['endpoint', 'Node'], ['name', 'Name'], ['degree', 'Links'],
  ['since', 'Since'], ['rtt', 'Round trip'],
];

/** A state as a sign and a word. */
export function stateBadge(it) {
  const text = it.state === 'alive' ? 'alive' : stateText(it);
  return el('span', { class: `state ${it.state}` },
    el('span', { 'aria-hidden': 'true', class: 'sign', text: SIGNS[it.state] }), text);
}

function legend() {
  const mark = (label, ...shapes) =>
    el('li', {}, svg('svg', { viewBox: '0 0 20 20', width: 20, height: 20, 'aria-hidden': 'true' },
      ...shapes), label);
  const dot = (props) => svg('circle', { cx: 10, cy: 10, r: 6, ...props });
  const text = (class_, sign) =>
    svg('text', { x: 10, y: 14, 'text-anchor': 'middle', class: class_, text: sign });
  return el('ul', { class: 'legend', 'aria-label': 'Legend' },
    mark('member, larger with more links', dot({ class: 'f-node' })),
    mark('suspected', dot({ class: 'f-warn' }), text('f-card', '!')),
    mark('removed', dot({ class: 's-bad' }), text('f-bad', '✕')),
    mark('left', dot({ class: 's-soft' })),
    mark('seed', svg('rect', { x: 4, y: 4, width: 12, height: 12, rx: 3, class: 'f-ink' })),
    mark('gossip on its way', svg('path', { d: 'M1 10h18', class: 's-edge' }),
      svg('circle', { cx: 12, cy: 10, r: 3, class: 'f-accent' })));
}

/** See the top of this file. */
export class FleetView {
  #c;
  #rows = [];
  #sort = { by: 'endpoint', down: false };
  #query = '';
  #selected = null;
  #hasOpened = false;

  constructor(section, context) {
    this.#c = context;
    const button = (label, text, act) =>
      el('button', { type: 'button', class: 'quiet', 'aria-label': label, title: label, text,
        onclick: act });
    this.summary = el('p', { id: 'summary', class: 'summary' });
    this.warning = el('p', { class: 'note warn', hidden: true });
    this.search = el('input', { id: 'search', type: 'search', placeholder: 'Find a node',
      'aria-label': 'Find a node', autocomplete: 'off', spellcheck: 'false',
      oninput: () => this.#find(), onkeydown: (event) => this.#searchKey(event) });
    this.canvas = el('canvas', { id: 'graph', tabindex: 0, role: 'application',
      'aria-describedby': 'graph-help' });
    this.said = el('p', { class: 'hidden', 'aria-live': 'polite' });
    const tools = el('div', { class: 'tools' }, this.search,
      el('div', { class: 'zoom' }, button('Zoom in', '+', () => this.graph.zoom(1.3)),
        button('Zoom out', '−', () => this.graph.zoom(1 / 1.3)),
        button('Show all', '⤢', () => this.graph.fit())));
    const help = 'Arrow keys choose a node, Enter opens it, plus and minus zoom, 0 shows all. '
      + 'The list below has the same nodes.';
    const map = el('div', { class: 'map card' }, tools, this.canvas,
      el('p', { id: 'graph-help', class: 'hidden', text: help }), this.said, legend());
    this.detail = el('aside', { id: 'detail', class: 'card', 'aria-label': 'Chosen node',
      tabindex: -1, hidden: true });
    this.news = el('ol', { id: 'news', class: 'news' });
    this.aside = el('div', { class: 'card' }, el('h2', { text: 'What happened' }), this.news,
      el('p', { class: 'empty', text: 'Nothing yet. Joins, suspicions and votes appear here.' }));
    section.append(
      el('div', { class: 'top' }, el('h1', { id: 'title-fleet', text: 'Fleet' }), this.summary),
      this.warning,
      el('div', { class: 'split' }, map, el('div', { class: 'side' }, this.detail, this.aside)),
      this.#nodeList());
    this.graph = new Graph(this.canvas, context.fleet, context.now, {
      onChoose: (endpoint) => this.#choose(endpoint),
      onHover: (endpoint) => this.#say(endpoint),
    });
    context.fleet.on((changes, news) => {
      if (!section.hidden) this.graph.news(news);
    });
  }

  #nodeList() {
    const heads = COLUMNS.map(([key, label]) =>
      el('th', { scope: 'col', 'data-sort': key }, el('button', { type: 'button', class: 'sort',
        text: label, onclick: () => this.#sortBy(key) })));
    this.heads = heads;
    const { box, body } = table('Nodes', heads);
    this.body = body;
    this.seedList = el('ul', { class: 'seeds', 'aria-label': 'Seeds' });
    this.listTitle = el('span', { text: 'All nodes' });
    this.nodeList = el('details', { id: 'nodes', class: 'card' },
      el('summary', {}, this.listTitle), this.seedList, box);
    return this.nodeList;
  }

  show(route) {
    this.#selected = route.query.get('node');
    this.graph.selected = this.#selected;
    this.canvas.setAttribute('aria-label', 'Map of the fleet');
    this.graph.graph();
  }

  recolor() {
    this.graph.recolor();
  }

  #choose(endpoint) {
    this.#c.go(endpoint ? `#/fleet?node=${encodeURIComponent(endpoint)}` : '#/fleet');
  }

  #say(endpoint) {
    if (!endpoint) return setText(this.said, '');
    const { fleet } = this.#c;
    const it = fleet.members.get(endpoint);
    const state = it ? `${it.state}, ${count(it.degree, 'link')}` : 'seed';
    setText(this.said, `${fleet.nameOf(endpoint) ?? ''} ${endpoint}, ${state}`);
  }

  #find() {
    this.#query = this.search.value.trim().toLowerCase();
    const found = this.#matching().map((it) => it.endpoint);
    this.graph.found = this.#query ? new Set(found) : null;
    this.graph.wake();
    if (this.#query) setText(this.said, `${count(found.length, 'node')} found`);
    this.#list();
  }

  #searchKey(event) {
    const first = this.#matching()[0];
    if (event.key === 'Enter' && this.#query && first) this.#choose(first.endpoint);
  }

  #matching() {
    const { fleet } = this.#c;
    const has = (it) => [it.endpoint, fleet.nameOf(it.endpoint) ?? '', it.state]
      .some((text) => text.toLowerCase().includes(this.#query));
    return [...fleet.members.values()].filter(has);
  }

  #sortBy(key) {
    this.#sort = { by: key, down: this.#sort.by === key ? !this.#sort.down : key === 'degree' };
    this.#list();
  }

  update(changes) {
    const { fleet } = this.#c;
    if (changes.has('members') || changes.has('links')) this.graph.graph();
    else if (changes.has('seeds') || changes.has('services')) this.graph.wake();
    this.#summary(fleet);
    this.#list();
    this.#news(fleet);
    this.#detail(fleet);
  }

  #summary(fleet) {
    const tally = fleet.tally();
    const parts = [count(tally.alive + tally.suspected, 'member'), count(fleet.links.size, 'link')];
    if (tally.suspected) parts.push(`${tally.suspected} suspected`);
    const { quorum } = fleet;
    if (quorum?.seeds) {
      parts.push(`${quorum.linked} of ${count(quorum.seeds, 'seed')} in reach`);
      parts.push(`${quorum.needed} yes votes decide`);
    }
    const gossip = fleet.gossip.heard.rate(this.#c.now());
    if (gossip) parts.push(`gossip ${rate(gossip)}`);
    setText(this.summary, parts.join(' · '));
    setAttr(this.canvas, 'aria-label', `Map of the fleet: ${parts.slice(0, 2).join(', ')}`);
    const told = fleet.told?.error;
    const few = quorum?.seeds && quorum.linked < quorum.needed;
    this.warning.hidden = !told && !few;
    if (few) {
      setText(this.warning, `▲ Only ${quorum.linked} of ${quorum.needed} needed seeds are in `
        + 'reach: nobody can come or go until they are back.');
    } else if (told) {
      setText(this.warning, `▲ The seed ${fleet.told.by} does not tell the list: ${told}. `
        + `What is shown is ${span(fleet.told.age_ms)} old.`);
    }
  }

  #list() {
    const { fleet, now } = this.#c;
    const own = fleet.node?.endpoint;
    const at = now();
    const rtt = new Map(own ? fleet.neighborsOf(own).map((it) => [it.endpoint, it.rtt_us]) : []);
    const { by, down } = this.#sort;
    const value = (it) => ({ name: fleet.nameOf(it.endpoint) ?? '', rtt: rtt.get(it.endpoint) ?? 1e12,
      state: ['suspected', 'alive', 'removed', 'left'].indexOf(it.state) })[by] ?? it[by];
    const order = (a, b) => {
      const [x, y] = [value(a), value(b)];
      const way = typeof x === 'string' ? x.localeCompare(y, 'en', { numeric: true }) : x - y;
      return (down ? -way : way) || a.endpoint.localeCompare(b.endpoint, 'en', { numeric: true });
    };
    const all = this.#matching().sort(order);
    for (const head of this.heads) {
      const isBy = head.dataset.sort === by;
      setAttr(head, 'aria-sort', isBy ? (down ? 'descending' : 'ascending') : null);
    }
    keyed(this.body, all, (it) => it.endpoint, (it) => this.#row(it), (row, it) => {
      setAttr(row, 'data-state', it.state);
      setAttr(row, 'aria-current', it.endpoint === this.#selected ? 'true' : null);
      const [state, node, name, links, since, trip] = row.children;
      const word = `${it.state} ${stateText(it)}`;
      if (state.dataset.word !== word) {
        state.dataset.word = word;
        replace(state, stateBadge(it));
      }
      setText(node.firstChild, it.endpoint + (it.endpoint === own ? ' (this node)' : ''));
      setText(name, fleet.nameOf(it.endpoint) ?? '–');
      setText(links, String(it.degree));
      setText(since, span(at - (it.since ?? at)));
      setText(trip, roundTrip(rtt.get(it.endpoint)));
    });
    keyed(this.seedList, [...fleet.seeds.values()], (it) => it.endpoint,
      (it) => el('li', { 'data-seed': it.endpoint }, nodeLink(it.endpoint), el('span')),
      (row, it) => {
        const isOwn = it.endpoint === own;
        setAttr(row, 'data-linked', String(Boolean(it.linked)));
        setText(row.firstChild, `■ seed ${it.id ?? '?'}: ${it.endpoint}`);
        setText(row.lastChild, isOwn ? 'this node' : it.linked ? 'in reach' : 'not in reach');
      });
    const total = fleet.members.size;
    const some = all.length === total ? count(total, 'node') : `${all.length} of ${total} nodes`;
    setText(this.listTitle, `List of ${some} and ${count(fleet.seeds.size, 'seed')}`);
    if (!this.#hasOpened && total) {
      this.#hasOpened = true;
      this.nodeList.open = total <= LIST_OPEN_MAX;
    }
    if (this.#query) this.nodeList.open = true;
  }

  #row(it) {
    const cells = ['state', 'name', 'number', 'number', 'number'].map((name) =>
      el('td', { class: name }));
    return el('tr', { 'data-node': it.endpoint }, cells[0],
      el('th', { scope: 'row' }, nodeLink(it.endpoint)), ...cells.slice(1));
  }

  #news(fleet) {
    const seen = new Set();
    const isFirst = (it) => !seen.has(it.text) && seen.add(it.text);
    const all = fleet.happened.filter(isFirst).slice(0, NEWS_SHOWN);
    this.aside.lastChild.hidden = all.length > 0;
    keyed(this.news, all, (it) => it.number, (it) => el('li', { class: it.kind },
      el('time', { text: clock(it.at), datetime: new Date(it.at).toISOString() }),
      el('span', { text: it.text })));
  }

  // ---- the chosen node

  #detail(fleet) {
    const endpoint = this.#selected;
    this.detail.hidden = !endpoint;
    if (!endpoint) {
      this.detailOf = null;
      return;
    }
    const isNew = this.detailOf !== endpoint;
    if (isNew) {
      this.detailOf = endpoint;
      this.#makeDetail(endpoint);
    }
    const it = fleet.members.get(endpoint);
    const seed = fleet.seeds.get(endpoint);
    const facts = it ? this.#memberFacts(fleet, it) : seed ? this.#seedFacts(fleet, seed)
      : [['State', 'not known: it is neither a member nor a seed here']];
    keyed(this.facts, facts, ([name]) => name, ([name]) => el('div', {}, el('dt', { text: name }),
      el('dd')), (row, [, value]) => {
      const text = typeof value === 'string' ? value : value.textContent;
      if (row.lastChild.textContent !== text) replace(row.lastChild, value);
    });
    const near = fleet.neighborsOf(endpoint)
      .sort((a, b) => (a.rtt_us ?? 1e12) - (b.rtt_us ?? 1e12)
        || a.endpoint.localeCompare(b.endpoint, 'en', { numeric: true }));
    setText(this.nearTitle, near.length ? count(near.length, 'neighbor') : 'No neighbors known');
    keyed(this.near, near, (one) => one.endpoint, (one) => el('li', {}, nodeLink(one.endpoint),
      el('span')), (row, one) => {
      const half = one.both ? '' : 'told by one end only';
      setText(row.lastChild, one.rtt_us === null ? half : roundTrip(one.rtt_us));
    });
    const found = it?.witnesses ?? [];
    keyed(this.findings, found, (one) => `${one.witness}${one.at}`, (one) => el('li', { class: 'warn',
      text: `${one.witness}: ${one.finding}` }));
    this.why.hidden = Boolean(seed) && !it;
    setText(this.why.firstChild, it && it.state !== 'alive' && it.state !== 'suspected'
      ? 'Why is it out?' : 'Why is it in?');
    if (isNew && this.detailFocus) this.detail.focus();
    this.detailFocus = true;
  }

  #makeDetail(endpoint) {
    this.facts = el('dl', { class: 'facts' });
    this.near = el('ul', { class: 'near' });
    this.findings = el('ul', { class: 'near' });
    this.nearTitle = el('h3');
    const query = `?node=${encodeURIComponent(endpoint)}`;
    this.why = el('p', {}, el('a', { href: `#/decisions${query}`, class: 'why' }));
    replace(this.detail, el('div', { class: 'top' }, el('h2', { text: endpoint }),
      el('button', { type: 'button', class: 'quiet', 'aria-label': 'Close', text: '✕',
        onclick: () => {
          this.#choose(null);
          this.canvas.focus();
        } })), this.facts, this.findings, this.why, this.nearTitle, this.near);
  }

  #memberFacts(fleet, it) {
    const now = this.#c.now();
    const own = fleet.node?.endpoint === it.endpoint ? fleet.node : null;
    const facts = [['State', stateBadge(it)]];
    const name = fleet.nameOf(it.endpoint);
    if (name) facts.push(['Name', name]);
    if (own) {
      facts.push(['Version', `${own.version} (this node)`]);
      facts.push(['Health', own.healthy ? '✓ healthy' : `▲ ${own.trouble ?? 'not healthy'}`]);
    }
    if (it.reason) facts.push(['Suspected because', it.reason]);
    facts.push([it.endedAt ? `${it.state === 'left' ? 'Left' : 'Removed'}` : 'Member since',
      `${ago(it.since, now)} (${clock(it.since)})`]);
    facts.push(['Incarnation', String(it.incarnation ?? '–')]);
    const mine = fleet.neighborsOf(it.endpoint).find((one) => one.endpoint === fleet.node?.endpoint);
    if (mine) facts.push(['Round trip to here', roundTrip(mine.rtt_us)]);
    const gossip = fleet.gossip.links.get(it.endpoint);
    if (gossip) facts.push(['Gossip from it', rate(gossip.rate(now))]);
    return facts;
  }

  #seedFacts(fleet, it) {
    const isOwn = fleet.node?.endpoint === it.endpoint;
    const facts = [['Role', `seed ${it.id ?? '?'}`]];
    if (isOwn) facts.push(['Version', fleet.node.version]);
    facts.push(['Reach', isOwn ? 'this node' : it.linked ? '✓ linked' : '▲ no link']);
    const voted = fleet.decisions.filter((one) => one.votes?.some((vote) => vote.seed === it.id));
    facts.push(['Votes', `in ${voted.length} of ${count(fleet.decisions.length, 'decision')}`]);
    if (it.says) facts.push(['Last vote', `${it.says.yes ? 'yes' : 'no'}, about ${it.says.about}`]);
    return facts;
  }
}

