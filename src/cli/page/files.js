// Shares of the fleet and running swarms, as far as the node tells of them.

import { bytes, count, el, empty, keyed, setAttr, setText, span } from './dom.js';

const CELLS_MAX = 240;

/** See the top of this file. */
export class FilesView {
  #c;

  constructor(section, context) {
    this.#c = context;
    this.said = el('p', { class: 'summary' });
    this.list = el('div', { id: 'shares' });
    this.none = empty('Nothing is shared here. Begin with: ', 'peer share PATH');
    section.append(el('div', { class: 'top' },
      el('h1', { id: 'title-files', text: 'Files' }), this.said), this.list, this.none);
  }

  show() {}

  update() {
    const { shares } = this.#c.fleet.services;
    const all = Array.isArray(shares) ? shares : shares?.list ?? [];
    const known = Array.isArray(shares) ? shares.length : shares?.known ?? all.length;
    const parts = shares ? [`${count(known, 'share')} known in the fleet`] : [];
    if (typeof shares?.own === 'number') parts.push(`${shares.own} of this node`);
    if (typeof shares?.taken === 'number') parts.push(`${shares.taken} taken for others`);
    setText(this.said, parts.join(' · '));
    this.none.hidden = all.length > 0;
    if (known && !all.length) {
      setText(this.none, 'This node tells only their number here. The list: peer shares');
    }
    const key = (it) => it.ticket ?? `${it.name} ${it.size}`;
    keyed(this.list, all, key, (it) => make(it), fill);
  }
}

function make(it) {
  const [state, who, rates] = [el('span', { class: 'badge' }), el('p'), el('p', { class: 'small' })];
  const bar = el('progress', { 'aria-label': `pieces of ${it.name}` });
  const map = el('div', { class: 'pieces', role: 'img' });
  const kind = it.is_folder ? '▤ ' : '▪ ';
  const row = el('article', { class: 'card share', 'data-share': it.name },
    el('div', { class: 'top' }, el('h2', { text: kind + it.name }), state), who, bar, map, rates);
  return Object.assign(row, { parts: { state, who, bar, map, rates } });
}

function fill(row, it) {
  const { state, who, bar, map, rates } = row.parts;
  const here = typeof it.have === 'number' ? it : it.here ?? null;
  const isWhole = here && here.have === here.pieces;
  setText(state, !here ? 'not here' : isWhole ? '✓ complete here'
    : `${here.have} of ${here.pieces} pieces here`);
  state.className = `badge ${isWhole ? 'good' : ''}`;
  const everywhere = it.everywhere ? ' · wanted everywhere' : '';
  const has = it.peers === undefined ? '' : ` · ${count(it.peers, 'peer')} ${
    it.peers === 1 ? 'has' : 'have'} it`;
  setText(who, `${bytes(it.size)}${has}${everywhere}`);
  bar.hidden = map.hidden = rates.hidden = !here;
  if (!here) return;
  bar.max = here.pieces || 1;
  bar.value = here.have;
  setAttr(map, 'aria-label', `${here.have} of ${here.pieces} pieces are here`);
  pieces(map, here);
  const left = here.left_s ? ` · ${span(here.left_s * 1000)} left` : '';
  const busy = here.peers ? ` · ${count(here.peers, 'connection')}` : '';
  setText(rates, `down ${bytes(here.down_per_s ?? 0)}/s (${bytes(here.down_bytes ?? 0)} in all) · up ${
    bytes(here.up_per_s ?? 0)}/s (${bytes(here.up_bytes ?? 0)} in all)${busy}${left}`);
}

/** The map needs to know which pieces are here; a mere number of them is what the bar shows. */
function pieces(map, here) {
  const bits = typeof here.map === 'string' ? here.map : null;
  const isWhole = here.have === here.pieces;
  map.hidden = !bits && !isWhole;
  if (map.hidden) return;
  const has = (at) => isWhole || Boolean((parseInt(bits[at >> 2] ?? '0', 16) >> (3 - (at & 3))) & 1);
  const cells = Math.min(here.pieces, CELLS_MAX);
  const items = Array.from({ length: cells }, (_, cell) => {
    const from = Math.floor((cell * here.pieces) / cells);
    const to = Math.max(from + 1, Math.floor(((cell + 1) * here.pieces) / cells));
    let sum = 0;
    for (let at = from; at < to; at += 1) sum += has(at) ? 1 : 0;
    return { cell, class: sum === to - from ? 'has' : sum ? 'some' : '' };
  });
  keyed(map, items, (it) => it.cell, () => el('i'), (cell, it) => setAttr(cell, 'class', it.class));
}
