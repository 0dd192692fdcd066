// The connection of the page with its node: the whole state by requests, changes by an event
// stream, and the search for another node when this one is gone. It feeds a model and knows no
// view. A player of recorded runs takes its place.

const BASE = '/-/folkmoot';
const EVENTS = ['log', 'gossip', 'chat', 'lost', 'reset', 'end'];
/** Events after which the whole state is asked for. */
const CHANGING = new Set([
  'admitted', 'removed', 'left', 'linked', 'unlinked', 'neighbors', 'evicted', 'peer_list_union',
  'rollout_committed', 'rollout_aborted', 'rollout_began', 'rollout_gate_failed',
  'rollout_braked', 'rollout_step_held', 'rollout_everywhere', 'chat_role', 'chat_members',
  'share_taken', 'share_complete', 'share_ended', 'share_removed', 'quorum', 'seed_link',
]);
const REFRESH_MS = 5000;
const SOON_MS = 150;
const PAUSES_MS = [500, 1000, 2000, 4000, 8000, 15000];
const PROBE_MS = 2500;
const PROBES_AT_ONCE = 4;
/** Pause before the page goes to another node by itself. */
export const GO_MS = 5000;

/** Connection of a model with the node that served the page. */
export class Connection {
  #fleet;
  #etag = null;
  #source = null;
  #last = null;
  #soon = null;
  #tries = 0;
  #retry = null;
  #busy = false;
  #again = false;
  #drift = 0;
  #search = null;

  /** `onState` gets { lost, why, again_ms, other } after each change of the connection. */
  constructor(fleet, onState) {
    this.#fleet = fleet;
    this.onState = onState;
    this.state = { lost: false, why: null, againAt: null, other: null };
  }

  /** Time by the clock of the node. */
  now() {
    return Date.now() + this.#drift;
  }

  start() {
    document.addEventListener('visibilitychange', () => this.#seen());
    setInterval(() => this.#seenAndWell() && this.refresh(), REFRESH_MS);
    this.#attempt();
  }

  #seenAndWell() {
    return !document.hidden && !this.state.lost;
  }

  #seen() {
    if (document.hidden) this.#close();
    else this.retry();
  }

  /** Tries its own node now. */
  retry() {
    clearTimeout(this.#retry);
    this.#attempt();
  }

  async #attempt() {
    if (await this.refresh()) this.#open();
  }

  /** Asks for the whole state; true if the node answered. */
  async refresh() {
    if (this.#busy) {
      this.#again = true;
      return !this.state.lost;
    }
    this.#busy = true;
    try {
      const headers = this.#etag ? { 'If-None-Match': this.#etag } : {};
      const signal = AbortSignal.timeout(8000);
      const answer = await fetch(`${BASE}/fleet`, { headers, cache: 'no-store', signal });
      if (answer.status !== 304) await this.#take(answer);
      this.#well();
      return true;
    } catch (error) {
      this.#lose(error.name === 'TimeoutError' ? 'does not answer in time' : error.message);
      return false;
    } finally {
      this.#busy = false;
      if (this.#again) {
        this.#again = false;
        this.#refreshSoon();
      }
    }
  }

  async #take(answer) {
    if (!answer.ok) throw new Error(`answers ${answer.status}`);
    const json = await answer.json();
    this.#etag = answer.headers.get('etag');
    const date = json.now_ms ?? Date.parse(answer.headers.get('date') ?? '');
    const drift = date - Date.now();
    // The header has whole seconds: a smaller difference says nothing.
    this.#drift = Math.abs(drift) > 2000 ? drift : 0;
    if (this.#last === null && json.feed) this.#last = `${json.feed.epoch}-${json.feed.last}`;
    this.#fleet.setFleet(json, this.now());
  }

  #refreshSoon() {
    this.#soon ??= setTimeout(() => {
      this.#soon = null;
      if (this.#seenAndWell()) this.refresh();
    }, SOON_MS);
  }

  #open() {
    if (this.#source || document.hidden) return;
    const after = this.#last ? `?after=${encodeURIComponent(this.#last)}` : '';
    const source = new EventSource(`${BASE}/events${after}`);
    this.#source = source;
    source.onopen = () => (this.#tries = 0);
    // The browser's own retries know neither growing pauses nor other nodes.
    source.onerror = () => {
      this.#close();
      this.#wait(() => this.#attempt());
    };
    for (const name of EVENTS) {
      source.addEventListener(name, (event) => this.#event(name, event));
    }
  }

  #event(name, event) {
    if (event.lastEventId) this.#last = event.lastEventId;
    let data;
    try {
      data = event.data ? JSON.parse(event.data) : {};
    } catch {
      return;
    }
    if (name === 'end') {
      this.#close();
      this.#lose('has stopped');
      return;
    }
    if (name === 'reset') {
      this.#etag = null;
      this.refresh();
      return;
    }
    this.#fleet.apply({ name, data }, this.now());
    if (name === 'log' && CHANGING.has(data.event)) this.#refreshSoon();
  }

  #close() {
    this.#source?.close();
    this.#source = null;
  }

  #wait(then) {
    const pause = PAUSES_MS[Math.min(this.#tries, PAUSES_MS.length - 1)];
    this.#tries += 1;
    clearTimeout(this.#retry);
    this.#retry = setTimeout(then, pause);
    return pause;
  }

  #tell(change) {
    this.state = { ...this.state, ...change };
    this.onState(this.state);
  }

  #well() {
    if (!this.state.lost) return;
    this.#search?.abort();
    this.#search = null;
    this.#tries = 0;
    this.#tell({ lost: false, why: null, againAt: null, other: null });
  }

  #lose(why) {
    this.#close();
    // A hidden tab tries again when it is seen.
    const pause = document.hidden ? null : this.#wait(() => this.#attempt());
    this.#tell({ lost: true, why, againAt: pause === null ? null : Date.now() + pause });
    if (!this.#search && !document.hidden) this.#find();
  }

  /** Looks for another node of the fleet that answers, its neighbors first. */
  async #find() {
    const search = new AbortController();
    this.#search = search;
    const fleet = this.#fleet;
    const own = fleet.node?.endpoint;
    const alive = [...fleet.members.values()].filter((it) => it.state === 'alive');
    const near = own ? fleet.neighborsOf(own).map((it) => it.endpoint) : [];
    const seeds = [...fleet.seeds.keys()];
    const all = [...new Set([...near, ...alive.map((it) => it.endpoint), ...seeds])];
    const others = all.filter((it) => it !== own && it !== location.host);
    for (let at = 0; at < others.length && !search.signal.aborted; at += PROBES_AT_ONCE) {
      const some = others.slice(at, at + PROBES_AT_ONCE);
      const found = await Promise.any(some.map((it) => probe(it, search.signal))).catch(() => null);
      if (found && !search.signal.aborted) {
        this.#tell({ other: found, goAt: Date.now() + GO_MS });
        return;
      }
    }
    // A later failure of the own node begins the search again.
    if (this.#search === search) this.#search = null;
  }

  /** Sends an order to the node; returns its answer, or throws with the node's reason. */
  async post(path, body) {
    const answer = await fetch(`${BASE}/${path}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', 'x-folkmoot': '1' },
      body: JSON.stringify(body),
    });
    const json = await answer.json().catch(() => ({}));
    if (!answer.ok) throw new Error(json.reason ?? json.error ?? `the node answers ${answer.status}`);
    this.#refreshSoon();
    return json;
  }

  /** Messages of a room after a number. */
  async history(room, after, limit) {
    const query = new URLSearchParams({ after, limit });
    if (room) query.set('room', room);
    const answer = await fetch(`${BASE}/chat/history?${query}`, { cache: 'no-store' });
    const json = await answer.json().catch(() => ({}));
    if (!answer.ok) throw new Error(json.reason ?? json.error ?? `the node answers ${answer.status}`);
    return json;
  }

  /** The node's whole status. */
  async status() {
    const answer = await fetch('/status', { cache: 'no-store' });
    if (!answer.ok && answer.status !== 503) throw new Error(`the node answers ${answer.status}`);
    return answer.json();
  }
}

async function probe(endpoint, signal) {
  const limits = AbortSignal.any([signal, AbortSignal.timeout(PROBE_MS)]);
  const options = { mode: 'no-cors', cache: 'no-store', signal: limits };
  await fetch(`http://${endpoint}/healthz`, options);
  return endpoint;
}
