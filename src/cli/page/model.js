// The state of a fleet as one of its nodes tells it. It knows no document and no network, and reads
// no clock: time is an argument, so a recorded run can be played at any speed.
//
//   const fleet = new Fleet();
//   fleet.on((changes, news) => …);   // after each change; returns a function that ends it
//   fleet.setFleet(json, now);        // a whole answer of GET /-/folkmoot/fleet
//   fleet.apply({ name, data }, now); // one event of GET /-/folkmoot/events, with parsed data
//   fleet.applyAll([{ at_ms, name, data }, …]); // many events, told as one change
//   fleet.addHistory(json);           // an answer of GET /-/folkmoot/chat/history
//   fleet.tick(now);                  // once a second: ends what has had its time
//   fleet.reset();                    // forgets all, as when a player goes back
//
// `now`: milliseconds since 1970 by the clock of the node or of the recording.
// `changes`: a Set of node, members, links, seeds, decisions, votes, gossip, messages, chat (new
//   messages known), said (new messages to ask for), services, log.
// `news`: list of { kind, endpoint, text, at, important, number, … }; kind: joined, suspected,
//   confirmed, cleared, removed, left, proposed, voted, gossip, quorum, rollout, lost.
//
// To read (lists have the newest first, and keep the last ones):
//   node        as in the answer, or null; quorum, told, services, mayAct as well
//   members     Map endpoint -> { endpoint, state: alive|suspected|removed|left, incarnation,
//               since, degree, count, needed, reason, witnesses, endedAt }
//   seeds       Map endpoint -> { endpoint, id, linked, says: { yes, about, at } or null }
//   links       Map "a b" -> { a, b, both, rtt_us }; neighborsOf(endpoint)
//   decisions, votes, messages, log, happened
//   topics      Map topic -> { topic, count, bytes, series }
//   gossip      { made, heard: Series, links: Map endpoint -> Series, last }
//   chat        messages { seq, room, from, at_ms, text }, oldest first
//   delivered   Series of messages; rates: Map counter -> Series
//   health      Map node of a rollout -> [{ window, models }], oldest first
//   nameOf(endpoint), tally(), standing()

const KEPT = 200;
const NEWS_MAX = 50;
const MINUTE = 60;
const SUSPECTED_MS = 60000;
/** Time for which an ended member stays in the picture. */
export const FADE_MS = 7000;
/** Time for which an event outweighs a list, which may be older. */
const NEWER_MS = 4000;
const ALL = ['node', 'members', 'links', 'seeds', 'decisions', 'votes', 'gossip', 'messages',
	'chat', 'services', 'log'];
const QUIET = ['rollout_vote_heard', 'rollout_started', 'rollout_reached', 'rollout_note'];

/** Counts of the last minute, by second. */
export class Series {
	#values = new Array(MINUTE).fill(0);
	#second = null;
	total = 0;

	#advance(now) {
		const second = Math.floor(now / 1000);
		const last = this.#second;
		if (last === null || second < last || second - last >= MINUTE) this.#values.fill(0);
		else for (let at = last + 1; at <= second; at += 1) this.#values[at % MINUTE] = 0;
		return (this.#second = second);
	}

	/** Adds `n` at `now`, spread over the time since `from`. */
	add(n, now, from = now) {
		const second = this.#advance(now);
		const spread = Math.max(1, Math.min(MINUTE, second - Math.floor(from / 1000)));
		for (let at = 0; at < spread; at += 1) this.#values[(second - at) % MINUTE] += n / spread;
		this.total += n;
	}

	/** The values by second, oldest first, without the second that runs. */
	list(now) {
		const first = this.#advance(now) + 1;
		return this.#values.slice(1).map((_, at) => this.#values[(first + at) % MINUTE]);
	}

	/** Mean by second of the last ten. */
	rate(now) {
		return this.list(now).slice(-10).reduce((sum, it) => sum + it, 0) / 10;
	}
}

const key = (a, b) => (a < b ? `${a} ${b}` : `${b} ${a}`);

const byVotes = (seeds) => {
	const ids = (seeds ?? []).map((it) => it?.seed ?? it);
	return ids.length ? `, by the votes of seeds ${ids.join(' and ')}` : '';
};

const push = (all, it, most = KEPT) => {
	all.unshift(it);
	if (all.length > most) all.length = most;
};

export class Fleet {
	#listeners = new Set();
	#changes = new Set();
	#news = [];
	#names = new Map();
	#adjacent = null;
	#counters = null;
	#number = 0;

	constructor() {
		this.#clear();
	}

	#clear() {
		const lists = ['decisions', 'votes', 'messages', 'log', 'happened', 'chat'];
		for (const it of lists) this[it] = [];
		const maps = ['members', 'seeds', 'links', 'topics', 'rates', 'health'];
		for (const it of maps) this[it] = new Map();
		this.node = this.quorum = this.told = this.#counters = this.#adjacent = null;
		this.services = {};
		this.mayAct = false;
		this.delivered = new Series();
		this.gossip = { made: new Series(), heard: new Series(), links: new Map(), last: null };
		this.#names = new Map();
	}

	reset() {
		this.#clear();
		this.#changes = new Set(ALL);
		this.#emit();
	}

	on(listener) {
		this.#listeners.add(listener);
		return () => this.#listeners.delete(listener);
	}

	#emit() {
		const [changes, news] = [this.#changes, this.#news];
		this.#changes = new Set();
		this.#news = [];
		if (changes.size || news.length) for (const it of this.#listeners) it(changes, news);
	}

	#tell(kind, endpoint, text, at, more) {
		const it = { kind, endpoint, text, at, number: (this.#number += 1), ...more };
		this.#news.push(it);
		if (kind !== 'gossip') push(this.happened, it, 60);
	}

	#shout(kind, endpoint, text, at) {
		this.#tell(kind, endpoint, text, at, { important: true });
	}

	// ---- reading

	neighborsOf(endpoint) {
		if (!this.#adjacent) {
			this.#adjacent = new Map();
			const add = (from, to, { rtt_us, both }) => {
				if (!this.#adjacent.has(from)) this.#adjacent.set(from, []);
				this.#adjacent.get(from).push({ endpoint: to, rtt_us, both });
			};
			for (const it of this.links.values()) {
				add(it.a, it.b, it);
				add(it.b, it.a, it);
			}
		}
		return this.#adjacent.get(endpoint) ?? [];
	}

	/** Name that the services use for a member, or null. */
	nameOf(endpoint) {
		return this.#names.get(endpoint) ?? null;
	}

	/** Number of members by state. */
	tally() {
		const all = { alive: 0, suspected: 0, removed: 0, left: 0 };
		for (const it of this.members.values()) all[it.state] += 1;
		return all;
	}

	/** What a node of a rollout knows of all of them, if it tells that. */
	standing() {
		const { rollout } = this.services;
		return (rollout?.view ?? rollout)?.standing ?? null;
	}

	// ---- the whole state

	setFleet(json, now) {
		const isFirst = !this.node;
		if (JSON.stringify(this.node) !== JSON.stringify(json.node)) this.#changes.add('node');
		this.node = json.node ?? null;
		this.told = json.told ?? null;
		this.mayAct = Boolean(json.may_act);
		this.services = json.services ?? {};
		this.#setQuorum(json.quorum ?? null, now);
		const says = (it) => this.seeds.get(it.endpoint)?.says ?? null;
		const seeds = (json.seeds ?? []).map((it) => [it.endpoint, { ...it, says: says(it) }]);
		this.seeds = new Map(seeds);
		this.#setMembers(json.members ?? [], now, isFirst);
		this.#setLinks(json.links ?? []);
		const ids = (all) => all.map((it) => `${it.id} ${it.valid}`).join();
		if (ids(json.decisions ?? []) !== ids(this.decisions)) this.#changes.add('decisions');
		this.decisions = [...(json.decisions ?? [])];
		this.#setNames();
		this.#setHealth();
		this.#setCounters(json.counters ?? {}, now);
		this.#changes.add('services').add('seeds');
		this.#emit();
	}

	#setQuorum(quorum, now) {
		const before = this.quorum;
		this.quorum = quorum;
		if (!before || !quorum) return;
		const has = quorum.linked >= quorum.needed;
		if (before.linked >= before.needed === has) return;
		this.#shout('quorum', null, has ? 'Enough seeds are in reach again'
			: `Only ${quorum.linked} of ${quorum.needed} needed seeds are in reach`, now);
	}

	#setMembers(list, now, isFirst) {
		const newest = new Map();
		for (const it of list) {
			const other = newest.get(it.endpoint);
			if (!other || it.incarnation >= other.incarnation) newest.set(it.endpoint, it);
		}
		for (const it of newest.values()) this.#setMember(it, now, isFirst);
		for (const [endpoint, it] of this.members) {
			const isNew = now - (it.eventAt ?? 0) < NEWER_MS;
			const fades = it.endedAt && now - it.endedAt < FADE_MS;
			if (newest.has(endpoint) || isNew || fades) continue;
			this.members.delete(endpoint);
			this.#changes.add('members');
		}
	}

	#setMember({ endpoint, incarnation, status, since_ms: since, degree }, now, isFirst) {
		const isAlive = status === 'alive';
		const it = this.members.get(endpoint);
		if (!it) {
			this.#add(endpoint, incarnation, { state: status, since, degree: degree ?? 0,
				endedAt: isAlive ? null : since });
			if (!isFirst && isAlive) this.#shout('joined', endpoint, `${endpoint} joined`, now);
			return;
		}
		if (incarnation < it.incarnation) return;
		// The events tell it step by step.
		const isShown = it.state === 'suspected' && now - it.changedAt < NEWER_MS;
		Object.assign(it, { since: since ?? it.since, degree: degree ?? it.degree });
		if (incarnation > it.incarnation) {
			it.incarnation = incarnation;
			this.#setState(it, status, now);
			if (isAlive) this.#shout('joined', endpoint, `${endpoint} joined again`, now);
		} else if (!isAlive && !isShown) this.#end(it, status, now);
		else if (it.endedAt && now - (it.eventAt ?? 0) > NEWER_MS) this.#setState(it, status, now);
	}

	#add(endpoint, incarnation, more) {
		this.members.set(endpoint, { endpoint, incarnation, state: 'alive', degree: 0, count: 0,
			needed: null, reason: null, witnesses: [], endedAt: null, ...more });
		this.#changes.add('members');
	}

	#setState(it, state, now) {
		if (it.state === state) return;
		const isIn = state === 'alive' || state === 'suspected';
		Object.assign(it, { state, endedAt: isIn ? null : now, changedAt: now });
		if (state === 'alive') {
			Object.assign(it, { count: 0, needed: null, reason: null, witnesses: [] });
		}
		this.#changes.add('members');
	}

	#end(it, state, now, by = '') {
		if (it.state === state) return;
		this.#setState(it, state, now);
		const word = state === 'left' ? 'left with a goodbye' : 'was removed as dead';
		this.#shout(state, it.endpoint, `${it.endpoint} ${word}${by}`, now);
	}

	#setLinks(list) {
		const next = new Map(list.map(({ a, b, both, rtt_us }) =>
			[key(a, b), { a, b, both: both !== false, rtt_us: rtt_us ?? null }]));
		const isSame = next.size === this.links.size && [...next.keys()].every((it) =>
			this.links.has(it));
		if (!isSame) this.#changes.add('links');
		this.links = next;
		this.#adjacent = null;
		if (!next.size) return;
		for (const it of this.members.values()) {
			if (!it.endedAt) it.degree = this.neighborsOf(it.endpoint).length;
		}
	}

	#setNames() {
		const { chat, rollout } = this.services;
		const all = [...(chat?.status?.members ?? []), ...(this.standing()?.roster?.nodes ?? [])];
		this.#names = new Map(all.map(({ host, port, node_id: id }) => [
			`${host.includes(':') ? `[${host}]` : host}:${port}`,
			typeof id === 'number' ? `peer_${id}` : id]));
		if (rollout?.node_id) this.#names.set(this.node?.endpoint, rollout.node_id);
	}

	#setHealth() {
		const standing = this.standing();
		for (const { node_id, health } of standing ? [standing, ...(standing.peers ?? [])] : []) {
			const all = this.health.get(node_id) ?? [];
			this.health.set(node_id, all);
			if (!health || all.at(-1)?.window === health.window_id) continue;
			all.push({ window: health.window_id, models: health.models ?? {} });
			if (all.length > MINUTE) all.shift();
		}
	}

	#setCounters(values, now) {
		const before = this.#counters;
		this.#counters = { values, at: now };
		for (const [name, value] of before ? Object.entries(values) : []) {
			const step = value - before.values[name];
			if (!(step >= 0)) continue;
			if (!this.rates.has(name)) this.rates.set(name, new Series());
			this.rates.get(name).add(step, now, before.at);
		}
	}

	// ---- events

	apply(event, now) {
		this.#apply(event, now);
		this.#emit();
	}

	applyAll(events) {
		for (const it of events) this.#apply(it, it.at_ms);
		this.#news = this.#news.slice(-NEWS_MAX);
		this.#emit();
	}

	#apply({ name, data }, now) {
		if (name === 'log') this.#line(data, now);
		else if (name === 'gossip') this.#gossip(data, now);
		else if (name === 'chat') this.#changes.add('said');
		else if (name === 'decided') {
			push(this.decisions, data);
			this.#changes.add('decisions');
		} else if (name === 'folded') this.delivered.add(data.counts?.delivered ?? 0, now);
		else if (name === 'lost') {
			const text = `This page was too slow: ${data.count} events are not shown`;
			this.#tell('lost', null, text, now);
		}
	}

	/** A recorded run tells the ways of gossip, `hops`, and the count of all that was heard. */
	#gossip({ made = 0, heard = {}, last, hops = [], count = 0 }, now) {
		const { gossip } = this;
		gossip.made.add(made, now);
		gossip.heard.add(count, now);
		gossip.last = last ?? gossip.last;
		for (const [endpoint, n] of Object.entries(heard)) {
			if (!gossip.links.has(endpoint)) gossip.links.set(endpoint, new Series());
			gossip.links.get(endpoint).add(n, now);
			gossip.heard.add(n, now);
		}
		this.#changes.add('gossip');
		this.#tell('gossip', null, '', now, { made, heard, hops });
	}

	#line(line, now) {
		push(this.log, { ...line, number: (this.#number += 1) });
		this.#changes.add('log');
		const handler = HANDLERS[line.event];
		if (handler) handler.call(this, line.fields ?? {}, now, line);
		else if (line.event?.startsWith('rollout_') && !QUIET.includes(line.event)) {
			const more = { important: line.level === 'warn' };
			this.#tell('rollout', null, line.message, now, more);
		}
	}

	tick(now) {
		for (const it of this.members.values()) {
			const isOver = it.state === 'suspected' && now - it.changedAt > SUSPECTED_MS;
			if (isOver) this.#setState(it, 'alive', now);
		}
		this.#emit();
	}

	addHistory({ room, messages = [] }) {
		const all = [...this.chat, ...messages.map((it) => ({ ...it, room: it.room ?? room }))];
		const bySeq = new Map(all.map((it) => [it.seq, it]));
		this.chat = [...bySeq.values()].sort((a, b) => a.seq - b.seq);
		this.#changes.add('chat');
		this.#emit();
	}

	/** A member ended by an event. */
	#ended({ endpoint, incarnation, seeds }, state, now) {
		const it = this.members.get(endpoint);
		if (!it || incarnation < it.incarnation) return;
		it.eventAt = now;
		this.#end(it, state, now, state === 'left' ? '' : byVotes(seeds));
	}

	/** A recorded run tells of the links of all nodes, a node of its own. */
	#link({ node, neighbor }, isLinked) {
		const own = node ?? this.node?.endpoint;
		if (!own || this.links.has(key(own, neighbor)) === isLinked) return;
		const it = { a: own, b: neighbor, both: true, rtt_us: null };
		if (isLinked) this.links.set(key(own, neighbor), it);
		else this.links.delete(key(own, neighbor));
		this.#adjacent = null;
		this.#changes.add('links');
	}

	#message(it, now) {
		const { topic } = it;
		push(this.messages, { ...it, at: now, number: this.#number });
		if (!this.topics.has(topic)) {
			this.topics.set(topic, { topic, count: 0, bytes: 0, series: new Series() });
		}
		const all = this.topics.get(topic);
		all.count += 1;
		all.bytes += it.size ?? 0;
		all.series.add(1, now);
		this.delivered.add(1, now);
		this.#changes.add('messages');
	}

	#vote(it, event, now) {
		push(this.votes, { ...it, event, at: now, number: this.#number });
		this.#changes.add('votes');
	}

	/** Handlers of lines of the log, by event, called with the model as `this`. */
	static handlers = {
		admitted({ endpoint, incarnation, seeds }, now) {
			const it = this.members.get(endpoint);
			if (!endpoint || (it?.state === 'alive' && it.incarnation >= incarnation)) return;
			if (it) this.#setState(Object.assign(it, { incarnation, since: now }), 'alive', now);
			else this.#add(endpoint, incarnation, { since: now });
			this.members.get(endpoint).eventAt = now;
			this.#shout('joined', endpoint, `${endpoint} joined${byVotes(seeds)}`, now);
		},
		linked(it) {
			this.#link(it, true);
		},
		unlinked(it) {
			this.#link(it, false);
		},
		suspected({ endpoint, reason }, now) {
			const it = this.members.get(endpoint);
			if (!it || it.endedAt) return;
			it.reason = reason ?? null;
			this.#setState(it, 'suspected', now);
			this.#shout('suspected', endpoint, `${endpoint} is suspected: ${reason}`, now);
		},
		confirmed({ endpoint, witness, finding, count, needed }, now, { message }) {
			const it = this.members.get(endpoint);
			if (!it || it.endedAt) return;
			this.#setState(it, 'suspected', now);
			Object.assign(it, { count, needed });
			it.witnesses.push({ witness, finding });
			this.#changes.add('members');
			const text = `${witness} says of ${endpoint}: ${finding}; ${count} of ${needed} confirm`;
			this.#tell('confirmed', endpoint, message ?? text, now);
		},
		cleared({ endpoint }, now) {
			const it = this.members.get(endpoint);
			if (it?.state !== 'suspected') return;
			this.#setState(it, 'alive', now);
			this.#shout('cleared', endpoint, `${endpoint} is suspected no more`, now);
		},
		crash({ endpoint }, now, { message }) {
			this.#shout('removed', endpoint, message, now);
		},
		vanish(it, now, line) {
			HANDLERS.crash.call(this, it, now, line);
		},
		removed(it, now) {
			this.#ended(it, 'removed', now);
		},
		left(it, now) {
			this.#ended(it, 'left', now);
		},
		proposed(it, now, line) {
			this.#vote(it, 'proposed', line.ts_ms ?? now);
			this.#tell('proposed', it.endpoint, `Vote: ${it.kind} ${it.endpoint}?`, now);
		},
		voted(it, now, line) {
			// A peer hears of votes about itself alone.
			const about = it.endpoint ?? this.node?.endpoint;
			const yes = Boolean(it.yes);
			this.#vote({ ...it, endpoint: about, yes }, 'voted', line.ts_ms ?? now);
			for (const seed of this.seeds.values()) {
				if (seed.id === it.seed) seed.says = { yes, about, at: now };
			}
			const text = `Seed ${it.seed} says ${yes ? 'yes' : 'no'} to ${it.kind} ${about}`;
			this.#tell('voted', about, text, now, { seed: it.seed, yes });
		},
		published(it, now) {
			this.#message({ topic: '(sent)', ...it, origin: this.node?.endpoint }, now);
		},
		delivered(it, now) {
			this.#message(it, now);
		},
		direct(it, now) {
			this.#message({ ...it, topic: '(direct)' }, now);
		},
		evicted(it, now, line) {
			this.#shout('removed', this.node?.endpoint, line.message, now);
		},
	};
}

const HANDLERS = Fleet.handlers;
