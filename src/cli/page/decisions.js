// Votes as they come, and decisions with their proofs. Each decision has an address.

import { ago, clock, count, el, empty, keyed, list, nodeLink, replace, setAttr, setText }
  from './dom.js';

const KINDS = {
  admit: ['+', 'admitted', 'admit'],
  remove: ['✕', 'removed as dead', 'remove'],
  evict: ['✕', 'evicted by operators', 'evict'],
  leave: ['○', 'left with a goodbye', 'leave'],
};

/** Time within which a vote that was seen live belongs to a decision. */
const VOTE_NEAR_MS = 120000;

/** See the top of this file. */
export class DecisionsView {
  #c;
  #route = null;
  #opened = null;

  constructor(section, context) {
    this.#c = context;
    this.filter = el('input', { id: 'decision-filter', type: 'search', autocomplete: 'off',
      placeholder: 'Filter by node', 'aria-label': 'Filter by node', spellcheck: 'false',
      oninput: () => this.#filtered() });
    this.said = el('p', { class: 'summary' });
    this.answer = el('p', { class: 'note', hidden: true });
    this.list = el('div', { id: 'decisions' });
    this.none = empty('No decision is known here.');
    this.votes = el('ol', { id: 'votes', class: 'news' });
    this.noVotes = empty('No vote was seen since this page was opened.');
    section.append(
      el('div', { class: 'top' }, el('h1', { id: 'title-decisions', text: 'Decisions' }), this.said),
      el('div', { class: 'split' },
        el('div', {}, el('div', { class: 'tools' }, this.filter), this.answer, this.list, this.none),
        el('div', { class: 'side' }, el('div', { class: 'card' },
          el('h2', { text: 'Votes, live' }), this.votes, this.noVotes))));
  }

  show(route) {
    this.#route = route;
    const node = route.query.get('node') ?? '';
    if (document.activeElement !== this.filter) this.filter.value = node;
    this.#opened = null;
  }

  #filtered() {
    const node = this.filter.value.trim();
    const query = node ? `?node=${encodeURIComponent(node)}` : '';
    history.replaceState(null, '', `#/decisions${query}`);
    this.#route = { ...this.#route, id: null };
    this.update();
  }

  update() {
    const { fleet, now } = this.#c;
    const node = this.filter.value.trim().toLowerCase();
    const id = this.#route?.id;
    const has = (it) => !node || it.endpoint.toLowerCase().includes(node)
      || it.together?.some((other) => other.toLowerCase().includes(node));
    const all = fleet.decisions.filter((it) => has(it) || it.id === id);
    const at = now();
    setText(this.said, count(all.length, 'decision') + (node ? ` about ${node}` : ', newest first'));
    this.#answer(node, all);
    keyed(this.list, all, (it) => it.id, (it) => this.#make(it), (row, it) => {
      row.decision = it;
      setText(row.when, ago(it.at_ms, at));
      if (row.open) this.#fill(row);
    });
    this.none.hidden = all.length > 0;
    setText(this.none, node ? `No decision about ${node} is known here.`
      : 'No decision is known here. A fleet without seeds makes none.');
    this.#openAsked(id);
    this.#showVotes(fleet, node);
  }

  /** The answer to "why is it in or out?", when one node is asked about. */
  #answer(node, all) {
    const newest = all.find((it) => it.endpoint.toLowerCase() === node);
    this.answer.hidden = !newest;
    if (!newest) return;
    const isIn = newest.kind === 'admit';
    const first = newest.findings?.[0];
    const why = first ? `: ${first.witness} found "${first.finding}"` : '';
    const by = newest.votes?.length ? `, by the votes of ${voters(newest)}` : '';
    const [, word] = KINDS[newest.kind] ?? ['', newest.kind];
    setText(this.answer, `${newest.endpoint} is ${isIn ? 'in' : 'out'}: it was ${word}`
      .replace('it was left', 'it left') + `${why}${by}.`);
  }

  #openAsked(id) {
    if (!id || this.#opened === id) return;
    const row = [...this.list.children].find((it) => it.dataset.decision === id);
    if (!row) {
      const text = `The decision ${id} is not known here (any more): a node keeps the newest.`;
      this.answer.hidden = false;
      setText(this.answer, text);
      return;
    }
    this.#opened = id;
    row.open = true;
    this.#fill(row);
    row.scrollIntoView({ block: 'nearest' });
    row.firstChild.focus({ preventScroll: true });
  }

  #make(it) {
    const [sign, word] = KINDS[it.kind] ?? ['•', it.kind];
    const when = el('span', { class: 'when' });
    const by = it.votes?.length ? `votes of ${voters(it)}` : 'no vote needed';
    const more = it.together?.length ? `, with ${count(it.together.length, 'other')}` : '';
    const head = el('summary', {},
      el('span', { class: `sign ${it.kind}`, 'aria-hidden': 'true', text: sign }),
      el('span', { class: 'what' }, el('b', { text: it.endpoint }), ` ${word}${more}`,
        el('small', { text: by })),
      el('span', { class: 'validity' }), when);
    const body = el('div', { class: 'proof' });
    const row = el('details', { class: 'card decision', 'data-decision': it.id,
      'data-kind': it.kind, ontoggle: () => row.open && this.#fill(row) }, head, body);
    Object.assign(row, { when, body, decision: it });
    const valid = head.children[2];
    if (it.valid === false) setText(valid, '▲ not valid');
    return row;
  }

  #fill(row) {
    const it = row.decision;
    const key = `${it.valid}${it.votes?.length}${it.findings?.length}${this.#seen(it).length}`;
    if (row.filled === key) return;
    row.filled = key;
    const steps = el('ol', { class: 'steps' });
    (it.findings ?? []).forEach((one, place) => {
      const isAccuser = one.accuser ?? place === 0;
      steps.append(step(one.at_ms, isAccuser ? 'Accused by ' : 'Confirmed by ',
        nodeLink(one.witness), `: ${one.finding}`));
    });
    for (const one of it.votes ?? []) {
      const live = this.#seen(it).find((vote) => vote.seed === one.seed && vote.yes);
      steps.append(step(one.at_ms, `✓ Seed ${one.seed} voted yes`,
        live?.reason ? `: ${live.reason}` : ''));
    }
    for (const one of this.#seen(it).filter((vote) => !vote.yes)) {
      steps.append(step(one.at, `✕ Seed ${one.seed} voted no`, one.reason ? `: ${one.reason}` : ''));
    }
    steps.append(step(it.at_ms, el('b', { text: `Decided: ${KINDS[it.kind]?.[1] ?? it.kind}` })));
    const together = it.together?.length ? el('p', {}, 'Decided together: ',
      ...it.together.flatMap((other, at) => [at ? ', ' : '', nodeLink(other)])) : null;
    const id = encodeURIComponent(it.id);
    replace(row.body, steps, together, this.#validity(it),
      el('p', { class: 'small' }, `incarnation ${it.incarnation} · ${clock(it.at_ms, true)} · `,
        el('a', { href: `#/decision/${id}`, text: 'address of this decision' }), ' · ',
        el('a', { href: `#/decisions?node=${encodeURIComponent(it.endpoint)}`,
          text: `all about ${it.endpoint}` })));
  }

  /** Votes about that decision that came as events, which have reasons. */
  #seen(it) {
    const word = KINDS[it.kind]?.[2] ?? it.kind;
    return this.#c.fleet.votes.filter((vote) => vote.name === 'voted'
      && vote.endpoint === it.endpoint && vote.kind === word
      && Math.abs(vote.at - it.at_ms) < VOTE_NEAR_MS);
  }

  #validity(it) {
    if (it.valid === true) {
      return el('p', { class: 'valid good', text: '✓ signatures checked in this node: valid' });
    }
    const why = it.why ? `: ${it.why}` : '';
    return it.valid === false
      ? el('p', { class: 'valid bad', text: `▲ signatures checked in this node: NOT valid${why}` })
      : el('p', { class: 'valid', text: `Signatures cannot be checked in this node${why}` });
  }

  #showVotes(fleet, node) {
    const all = fleet.votes.filter((it) => !node || it.endpoint?.toLowerCase().includes(node));
    this.noVotes.hidden = all.length > 0;
    keyed(this.votes, all.slice(0, 60), (it) => it.number, (it) => {
      const of = it.needed && it.count !== undefined ? ` (${it.count} of ${it.needed})` : '';
      const reason = it.reason ? `: ${it.reason}` : '';
      const text = it.name === 'proposed'
        ? `? ${it.kind} ${it.endpoint}${reason}; ${it.needed ?? '?'} yes votes needed`
        : `${it.yes ? '✓' : '✕'} seed ${it.seed} says ${it.yes ? 'yes' : 'no'} to ${it.kind} ${
          it.endpoint}${reason}${of}`;
      return el('li', { class: it.name === 'proposed' ? 'proposed' : it.yes ? 'yes' : 'no' },
        el('time', { text: clock(it.at) }), el('span', { text }));
    });
    setAttr(this.votes, 'aria-label', 'Votes');
  }
}

function voters(it) {
  const ids = (it.votes ?? []).map((vote) => vote.seed);
  return `seed${ids.length === 1 ? '' : 's'} ${list(ids)}`;
}

function step(at, ...parts) {
  return el('li', {}, el('time', { text: clock(at, true).slice(11) }), el('span', {}, ...parts));
}
