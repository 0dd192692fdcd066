// The page's connection with its node: the whole state by requests, changes by an event stream, and
// the search for another node when this one is gone. It feeds a model; a player of recorded runs
// takes its place.

const BASE = '/-/folkmoot';
/** Events after which the whole state is asked for, beside those of rollouts, shares and chats. */
const CHANGING = new Set(['admitted', 'removed', 'left', 'linked', 'unlinked', 'neighbors',
	'evicted', 'peer_list_union', 'quorum', 'seed_link']);
const OFTEN = new Set(['rollout_voted', 'rollout_vote_heard', 'chat_numbered', 'chat_pending']);
/** Steps towards the end of a member, which takes a tenth of a second: too fast to be seen. */
const PACED = new Set(['suspected', 'confirmed', 'cleared', 'removed']);
const PACE_MS = 400;
const EVERY_MS = 5000;
const SOON_MS = 150;
const PAUSES_MS = [500, 1000, 2000, 4000, 8000, 15000];
const TIMEOUT_MS = 8000;
const PROBE_MS = 2500;
const PROBES = 4;
/** Pause before the page goes to another node by itself. */
const GO_MS = 5000;

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
	#paced = new Map();
	#onState;
	#state = { lost: false };

	/** `onState` gets { lost, why, other, goAt } when the connection is lost, or is back. */
	constructor(fleet, onState) {
		this.#fleet = fleet;
		this.#onState = onState;
	}

	/** Time by the clock of the node. */
	now() {
		return Date.now() + this.#drift;
	}

	start() {
		// Browsers allow six connections to a host: a hidden tab needs none.
		document.addEventListener('visibilitychange', () =>
			document.hidden ? this.#close() : this.#attempt());
		setInterval(() => this.#isWell && this.refresh(), EVERY_MS);
		this.#attempt();
	}

	get #isWell() {
		return !document.hidden && !this.#state.lost;
	}

	async #attempt() {
		clearTimeout(this.#retry);
		if (await this.refresh()) this.#open();
	}

	/** Asks for the whole state; true if the node answered. */
	async refresh() {
		if (this.#busy) {
			this.#again = true;
			return false;
		}
		this.#busy = true;
		try {
			const headers = this.#etag ? { 'If-None-Match': this.#etag } : {};
			const signal = AbortSignal.timeout(TIMEOUT_MS);
			const answer = await fetch(`${BASE}/fleet`, { headers, cache: 'no-store', signal });
			if (answer.status !== 304) await this.#take(answer);
			if (this.#state.lost) this.#found();
			return true;
		} catch (error) {
			this.#lose(error.name === 'TypeError' ? 'does not answer' : error.message);
			return false;
		} finally {
			this.#busy = false;
			if (this.#again) this.#refreshSoon();
			this.#again = false;
		}
	}

	async #take(answer) {
		if (!answer.ok) throw new Error(`answers with ${answer.status}`);
		const json = await answer.json();
		this.#etag = answer.headers.get('etag');
		const drift = (json.now_ms ?? Date.parse(answer.headers.get('date'))) - Date.now();
		// The header has whole seconds: a smaller difference says nothing.
		this.#drift = Math.abs(drift) > 2000 ? drift : 0;
		if (json.feed) this.#last ??= `${json.feed.epoch}-${json.feed.last}`;
		this.#fleet.setFleet(json, this.now());
	}

	#refreshSoon() {
		this.#soon ??= setTimeout(() => {
			this.#soon = null;
			if (this.#isWell) this.refresh();
		}, SOON_MS);
	}

	#open() {
		if (this.#source || document.hidden) return;
		const after = this.#last ? `?after=${encodeURIComponent(this.#last)}` : '';
		const source = (this.#source = new EventSource(`${BASE}/events${after}`));
		source.onopen = () => (this.#tries = 0);
		// The browser's own retries know neither growing pauses nor other nodes.
		source.onerror = () => {
			this.#close();
			this.#later();
		};
		for (const name of ['log', 'gossip', 'folded', 'chat', 'lost', 'reset', 'end']) {
			source.addEventListener(name, (event) => this.#event(name, event));
		}
	}

	#event(name, event) {
		if (event.lastEventId) this.#last = event.lastEventId;
		const data = JSON.parse(event.data || '{}');
		if (name === 'end') return this.#lose('has stopped');
		if (name === 'reset') {
			this.#etag = this.#last = null;
			return this.refresh();
		}
		const endpoint = PACED.has(data.event) && data.fields?.endpoint;
		if (!endpoint) return this.#apply(name, data);
		const now = Date.now();
		const at = Math.max(now, this.#paced.get(endpoint) ?? 0);
		this.#paced.set(endpoint, at + PACE_MS);
		return at > now ? setTimeout(() => this.#apply(name, data), at - now) : this.#apply(name, data);
	}

	#apply(name, data) {
		this.#fleet.apply({ name, data }, this.now());
		const isOfService = /^(rollout|share|chat)_/.test(data.event) && !OFTEN.has(data.event);
		if (isOfService || CHANGING.has(data.event)) this.#refreshSoon();
	}

	#close() {
		this.#source?.close();
		this.#source = null;
	}

	#later() {
		const pause = PAUSES_MS[Math.min(this.#tries, PAUSES_MS.length - 1)];
		this.#tries += 1;
		clearTimeout(this.#retry);
		this.#retry = setTimeout(() => document.hidden || this.#attempt(), pause);
	}

	#tell(state) {
		this.#state = state;
		this.#onState(state);
	}

	#found() {
		this.#search?.abort();
		this.#search = null;
		this.#tell({ lost: false });
	}

	#lose(why) {
		this.#close();
		this.#later();
		this.#tell({ ...this.#state, lost: true, why });
		if (!this.#search && !document.hidden) this.#find();
	}

	/** Looks for another node that answers, the neighbors of this one first. */
	async #find() {
		const { signal } = (this.#search = new AbortController());
		const { node, members, seeds } = this.#fleet;
		const near = this.#fleet.neighborsOf(node?.endpoint).map((it) => it.endpoint);
		const alive = [...members.values()].filter((it) => !it.endedAt).map((it) => it.endpoint);
		const others = [...new Set([...near, ...alive, ...seeds.keys()])]
			.filter((it) => it !== node?.endpoint && it !== location.host);
		for (let at = 0; at < others.length && !signal.aborted; at += PROBES) {
			const probes = others.slice(at, at + PROBES).map((it) => probe(it, signal));
			const other = await Promise.any(probes).catch(() => null);
			if (other && !signal.aborted) {
				return this.#tell({ ...this.#state, other, goAt: Date.now() + GO_MS });
			}
		}
		// The next failure of the own node begins the search again.
		if (this.#search?.signal === signal) this.#search = null;
	}

	async #json(path, options) {
		const answer = await fetch(path, { cache: 'no-store', ...options });
		const json = await answer.json().catch(() => ({}));
		const isFine = answer.ok || (answer.status === 503 && !options);
		if (isFine) return json;
		throw new Error(json.reason ?? json.error ?? `the node answers with ${answer.status}`);
	}

	/** Gives an order; returns the answer, or throws the reason of the node. */
	async post(path, body) {
		const headers = { 'content-type': 'application/json', 'x-folkmoot': '1' };
		const options = { method: 'POST', headers, body: JSON.stringify(body) };
		const json = await this.#json(`${BASE}/${path}`, options);
		this.#refreshSoon();
		return json;
	}

	/** Messages of all rooms after a number. */
	history(after, limit) {
		return this.#json(`${BASE}/chat/history?after=${after}&limit=${limit}`, {});
	}

	/** The whole status of the node; one that is not healthy answers as well. */
	status() {
		return this.#json('/status');
	}
}

async function probe(endpoint, end) {
	const signal = AbortSignal.any([end, AbortSignal.timeout(PROBE_MS)]);
	await fetch(`http://${endpoint}/healthz`, { mode: 'no-cors', cache: 'no-store', signal });
	return endpoint;
}
