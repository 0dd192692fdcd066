// The state of a fleet, as one of its nodes tells it. It knows no document and no network, and it
// reads no clock: time is an argument, so that a recorded run can be played at any speed.
//
//   const fleet = new Fleet();
//   const stop = fleet.on((changes, news) => …);   // after each change; see below
//   fleet.setFleet(json, now);        // the answer of GET /-/folkmoot/fleet, whole
//   fleet.apply({ name, data }, now); // one event of GET /-/folkmoot/events; `data` is parsed
//   fleet.addHistory(room, json);     // an answer of GET /-/folkmoot/chat/history
//   fleet.tick(now);                  // ends what has had its time (suspicions, faded nodes)
//   fleet.reset();                    // forgets everything, for instance when a player goes back
//
// `now` is in milliseconds since 1970 by the clock of the node or of the recording.
// `changes` is a Set of: node, members, links, seeds, decisions, votes, gossip, messages, chat,
// services, counters, log. `news` is a list of { kind, endpoint, text, at, important, … } with
// kind: joined, suspected, confirmed, cleared, removed, left, voted, proposed, gossip, quorum,
// rollout, lost.
//
// To read:
//   fleet.node      own node: { role, endpoint, version, uptime_ms, healthy, trouble } or null
//   fleet.members   Map endpoint -> { endpoint, state: alive|suspected|removed|left, incarnation,
//                   since, degree, count, needed, reason, witnesses, endedAt, seenAt }
//   fleet.seeds     Map endpoint -> { endpoint, id, linked, says: null | { yes, about, at } }
//   fleet.links     Map "a b" -> { a, b, both, rtt_us }
//   fleet.decisions newest first; fleet.decision(id), fleet.decisionsOf(endpoint)
//   fleet.votes, fleet.messages, fleet.log, fleet.happened   newest first, the last ones
//   fleet.topics    Map topic -> { topic, count, bytes, series }
//   fleet.gossip    { made: Series, heard: Series, links: Map endpoint -> Series, last }
//   fleet.rooms     Map room -> { room, messages (oldest first), leader, term }
//   fleet.counters, fleet.rates (Map name -> Series), fleet.services, fleet.quorum, fleet.told
//   fleet.health    Map node of a rollout -> list of { at, models }
//   fleet.neighborsOf(endpoint) -> list of { endpoint, rtt_us, both }; fleet.nameOf(endpoint)

const KEPT = 200;
const SUSPICION_MS = 60000;
/** Time for which an ended member stays in the picture. */
export const FADE_MS = 7000;
/** Time in which an event outweighs an older list of members. */
const EVENT_OUTWEIGHS_MS = 4000;
const SECONDS = 60;

/** Counts of the last minute, second by second. */
export class Series {
  #values = new Array(SECONDS).fill(0);
  #second = null;
  total = 0;

  #advance(now) {
    const second = Math.floor(now / 1000);
    const last = this.#second;
    if (last === null || second < last || second - last >= SECONDS) this.#values.fill(0);
    else for (let at = last + 1; at <= second; at += 1) this.#values[at % SECONDS] = 0;
    this.#second = second;
    return second;
  }

  /** Adds `n` at `now`, spread over the time since `from`. */
  add(n, now, from = now) {
    const second = this.#advance(now);
    this.total += n;
    const length = Math.max(1, Math.min(SECONDS, second - Math.floor(from / 1000)));
    for (let at = 0; at < length; at += 1) this.#values[(second - at) % SECONDS] += n / length;
  }

  /** The values of the last minute, oldest first; the running second is left out. */
  list(now) {
    const second = this.#advance(now);
    const value = (_, at) => this.#values[(second + 1 + at) % SECONDS];
    return Array.from({ length: SECONDS - 1 }, value);
  }

  /** Mean of the last `seconds`. */
  rate(now, seconds = 10) {
    return this.list(now).slice(-seconds).reduce((sum, it) => sum + it, 0) / seconds;
  }
}

const seedsText = (seeds) => {
  const ids = (Array.isArray(seeds) ? seeds : []).map((it) => it?.seed ?? it);
  if (!ids.length) return '';
  const all = ids.length > 1 ? `${ids.slice(0, -1).join(', ')} and ${ids.at(-1)}` : ids[0];
  return `, by the vote${ids.length > 1 ? 's' : ''} of seed${ids.length > 1 ? 's' : ''} ${all}`;
};

const linkKey = (a, b) => (a < b ? `${a} ${b}` : `${b} ${a}`);

/** Handlers of log lines, by event; set inside the class, whose private parts they use. */
let EVENTS = {};

/** See the top of this file. */
export class Fleet {
  #listeners = new Set();
  #changes = new Set();
  #news = [];

  constructor() {
    this.#clear();
  }

  #clear() {
    this.node = null;
    this.members = new Map();
    this.seeds = new Map();
    this.links = new Map();
    this.decisions = [];
    this.votes = [];
    this.messages = [];
    this.log = [];
    this.happened = [];
    this.topics = new Map();
    this.gossip = { made: new Series(), heard: new Series(), links: new Map(), last: null };
    this.rooms = new Map();
    this.counters = {};
    this.rates = new Map();
    this.services = {};
    this.quorum = null;
    this.told = null;
    this.mayAct = false;
    this.health = new Map();
    this.feed = null;
    this.lost = 0;
    this.countersAt = null;
    this.names = new Map();
    this.adjacent = null;
    this.number = 0;
  }

  reset() {
    this.#clear();
    const all = ['node', 'members', 'links', 'seeds', 'decisions', 'votes', 'gossip', 'messages'];
    for (const it of [...all, 'chat', 'services', 'counters', 'log']) this.#changes.add(it);
    this.#emit();
  }

  on(listener) {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  #emit() {
    if (!this.#changes.size && !this.#news.length) return;
    const [changes, news] = [this.#changes, this.#news];
    this.#changes = new Set();
    this.#news = [];
    for (const it of this.#listeners) it(changes, news);
  }

  #tell(kind, endpoint, text, at, more = {}) {
    const it = { kind, endpoint, text, at, number: (this.number += 1), ...more };
    this.#news.push(it);
    if (kind !== 'gossip') this.#keep(this.happened, it, 60);
  }

  #keep(all, it, most = KEPT) {
    all.unshift(it);
    if (all.length > most) all.length = most;
  }

  // ---- reading

  decision(id) {
    return this.decisions.find((it) => it.id === id) ?? null;
  }

  decisionsOf(endpoint) {
    const about = (it) => it.endpoint === endpoint || it.together?.includes(endpoint);
    return this.decisions.filter(about);
  }

  neighborsOf(endpoint) {
    if (!this.adjacent) {
      this.adjacent = new Map();
      const add = (from, to, it) => {
        if (!this.adjacent.has(from)) this.adjacent.set(from, []);
        this.adjacent.get(from).push({ endpoint: to, rtt_us: it.rtt_us, both: it.both });
      };
      for (const it of this.links.values()) {
        add(it.a, it.b, it);
        add(it.b, it.a, it);
      }
    }
    return this.adjacent.get(endpoint) ?? [];
  }

  /** Name that the services use for a member, if they have one. */
  nameOf(endpoint) {
    return this.names.get(endpoint) ?? null;
  }

  /** Number of members by state. */
  tally() {
    const all = { alive: 0, suspected: 0, removed: 0, left: 0 };
    for (const it of this.members.values()) all[it.state] += 1;
    return all;
  }

  // ---- the whole state

  setFleet(json, now) {
    const first = this.node === null;
    if (JSON.stringify(this.node) !== JSON.stringify(json.node)) this.#changes.add('node');
    this.node = json.node ?? null;
    this.feed = json.feed ?? null;
    this.told = json.told ?? null;
    this.mayAct = Boolean(json.may_act);
    this.#setQuorum(json.quorum ?? null, now);
    this.#setSeeds(json.seeds ?? []);
    this.#setMembers(json.members ?? [], now, first);
    this.#setLinks(json.links ?? []);
    const ids = (all) => all.map((it) => `${it.id}${it.valid}`).join();
    const decisions = json.decisions ?? [];
    if (ids(decisions) !== ids(this.decisions)) this.#changes.add('decisions');
    this.decisions = decisions;
    this.services = json.services ?? {};
    this.#changes.add('services');
    this.#setNames();
    this.#keepHealth(now);
    this.#setCounters(json.counters ?? {}, now);
    this.#emit();
  }

  #setQuorum(quorum, now) {
    const was = this.quorum;
    this.quorum = quorum;
    if (!quorum || !was) return;
    const had = was.linked >= was.needed;
    const has = quorum.linked >= quorum.needed;
    if (had === has) return;
    const text = has
      ? 'Enough seeds are in reach again: members can come and go'
      : `Only ${quorum.linked} of ${quorum.needed} needed seeds are in reach: nobody comes or goes`;
    this.#tell('quorum', null, text, now, { important: true });
  }

  #setSeeds(seeds) {
    const before = this.seeds;
    this.seeds = new Map();
    for (const it of seeds) {
      const says = before.get(it.endpoint)?.says ?? null;
      this.seeds.set(it.endpoint, { ...it, says });
    }
    this.#changes.add('seeds');
  }

  #setMembers(list, now, first) {
    const newest = new Map();
    for (const it of list) {
      const other = newest.get(it.endpoint);
      if (!other || it.incarnation >= other.incarnation) newest.set(it.endpoint, it);
    }
    for (const it of newest.values()) this.#setMember(it, now, first);
    for (const [endpoint, it] of this.members) {
      if (newest.has(endpoint)) continue;
      const isFresh = now - it.seenAt < EVENT_OUTWEIGHS_MS && it.byEvent;
      const fades = it.endedAt && now - it.endedAt < FADE_MS;
      if (isFresh || fades) continue;
      this.members.delete(endpoint);
      this.#changes.add('members');
    }
  }

  #setMember(it, now, first) {
    const old = this.members.get(it.endpoint);
    if (!old) {
      const ended = it.status === 'alive' ? null : it.since_ms;
      this.#newMember(it.endpoint, it.incarnation, now, {
        state: it.status, since: it.since_ms, degree: it.degree ?? 0, endedAt: ended,
        byEvent: false,
      });
      if (!first && it.status === 'alive') {
        this.#tell('joined', it.endpoint, `${it.endpoint} joined`, now, { important: true });
      }
      return;
    }
    if (it.incarnation < old.incarnation) return;
    const isNewLife = it.incarnation > old.incarnation;
    old.degree = it.degree ?? old.degree;
    old.since = it.since_ms ?? old.since;
    if (isNewLife) {
      old.incarnation = it.incarnation;
      this.#state(old, it.status, now);
      const text = `${it.endpoint} joined again`;
      if (it.status === 'alive') this.#tell('joined', it.endpoint, text, now, { important: true });
      return;
    }
    if (it.status === 'alive') {
      // A list that is older than the event must not bring a removed member back.
      const isOld = old.endedAt && old.byEvent && now - old.endedAt < EVENT_OUTWEIGHS_MS;
      if (old.state !== 'suspected' && old.state !== 'alive' && !isOld) {
        this.#state(old, 'alive', now);
      }
      return;
    }
    if (old.state === it.status) return;
    this.#end(old, it.status, now);
  }

  #newMember(endpoint, incarnation, now, more) {
    this.members.set(endpoint, {
      endpoint, incarnation, state: 'alive', since: now, degree: 0, count: 0, needed: null,
      reason: null, witnesses: [], endedAt: null, seenAt: now, byEvent: true, ...more,
    });
    this.#changes.add('members');
    return this.members.get(endpoint);
  }

  #state(it, state, now) {
    if (it.state === state) return;
    const isAlive = state === 'alive';
    Object.assign(it, { state, endedAt: isAlive || state === 'suspected' ? null : now });
    if (isAlive) Object.assign(it, { count: 0, needed: null, reason: null, witnesses: [] });
    it.changedAt = now;
    this.#changes.add('members');
  }

  #end(it, state, now, by = '') {
    const word = state === 'left' ? 'left with a goodbye' : 'was removed as dead';
    this.#state(it, state, now);
    this.#tell(state, it.endpoint, `${it.endpoint} ${word}${by}`, now, { important: true });
  }

  #setLinks(list) {
    const next = new Map();
    for (const it of list) {
      const rtt = it.rtt_us ?? null;
      next.set(linkKey(it.a, it.b), { a: it.a, b: it.b, both: it.both !== false, rtt_us: rtt });
    }
    const isKnown = (it) => this.links.has(it);
    const same = next.size === this.links.size && [...next.keys()].every(isKnown);
    this.links = next;
    this.adjacent = null;
    if (!same) this.#changes.add('links');
    if (!next.size) return;
    for (const it of this.members.values()) {
      if (it.endedAt === null) it.degree = this.neighborsOf(it.endpoint).length;
    }
  }

  #setNames() {
    this.names = new Map();
    const { rollout, chat } = this.services;
    const standing = (rollout?.view ?? rollout)?.standing;
    for (const it of standing?.roster?.nodes ?? []) {
      this.names.set(`${it.host.includes(':') ? `[${it.host}]` : it.host}:${it.port}`, it.node_id);
    }
    for (const it of chat?.roster ?? []) {
      if (it.endpoint && !this.names.has(it.endpoint)) this.names.set(it.endpoint, it.name);
    }
    const own = this.node?.endpoint;
    if (own && rollout?.node_id) this.names.set(own, rollout.node_id);
  }

  #keepHealth(now) {
    const { rollout } = this.services;
    const standing = (rollout?.view ?? rollout)?.standing;
    if (!standing) return;
    const nodes = [standing, ...(standing.peers ?? [])];
    for (const it of nodes) {
      if (!it.health) continue;
      const all = this.health.get(it.node_id) ?? [];
      if (all.at(-1)?.window === it.health.window_id) continue;
      all.push({ at: now, window: it.health.window_id, models: it.health.models ?? {} });
      if (all.length > SECONDS) all.shift();
      this.health.set(it.node_id, all);
    }
  }

  #setCounters(counters, now) {
    for (const [name, value] of Object.entries(counters)) {
      if (typeof value !== 'number') continue;
      const before = this.counters[name];
      if (before === undefined || value < before || this.countersAt === null) continue;
      if (!this.rates.has(name)) this.rates.set(name, new Series());
      this.rates.get(name).add(value - before, now, this.countersAt);
    }
    this.counters = counters;
    this.countersAt = now;
    this.#changes.add('counters');
  }

  // ---- events

  apply({ name, data }, now) {
    if (name === 'log') this.#line(data, now);
    else if (name === 'gossip') this.#gossip(data, now);
    else if (name === 'chat') {
      this.room(data.room);
      this.#changes.add('chat');
    } else if (name === 'lost') {
      this.lost += data.count ?? 0;
      const text = `This page was too slow: ${data.count} events are not shown`;
      this.#tell('lost', null, text, now);
    }
    this.#emit();
  }

  #gossip(data, now) {
    const { gossip } = this;
    gossip.made.add(data.made ?? 0, now);
    for (const [endpoint, n] of Object.entries(data.heard ?? {})) {
      gossip.heard.add(n, now);
      if (!gossip.links.has(endpoint)) gossip.links.set(endpoint, new Series());
      gossip.links.get(endpoint).add(n, now);
    }
    if (data.last) gossip.last = data.last;
    this.#changes.add('gossip');
    this.#tell('gossip', null, '', now, { made: data.made ?? 0, heard: data.heard ?? {} });
  }

  #line(line, now) {
    const at = line.ts_ms ?? now;
    const number = (this.number += 1);
    this.#keep(this.log, { ...line, number });
    this.#changes.add('log');
    const fields = line.fields ?? {};
    const handler = EVENTS[line.event];
    if (handler) handler.call(this, fields, now, line, at);
    else if (line.event?.startsWith('rollout_')) {
      this.#changes.add('services');
      const quiet = ['rollout_vote_heard', 'rollout_started', 'rollout_reached', 'rollout_note'];
      if (quiet.includes(line.event)) return;
      this.#tell('rollout', null, line.message, now, { important: line.level === 'warn' });
    }
  }

  tick(now) {
    for (const [endpoint, it] of this.members) {
      if (it.state === 'suspected' && now - (it.changedAt ?? now) > SUSPICION_MS) {
        this.#state(it, 'alive', now);
      }
      const isOver = it.endedAt && it.byEvent && now - it.endedAt > 600000;
      if (isOver) this.members.delete(endpoint);
    }
    this.#emit();
  }

  // ---- chat

  room(name) {
    if (!this.rooms.has(name)) {
      this.rooms.set(name, { room: name, messages: [], leader: null, term: null });
    }
    return this.rooms.get(name);
  }

  addHistory(name, json) {
    const room = this.room(name);
    const known = new Map(room.messages.map((it) => [it.seq, it]));
    for (const it of json.messages ?? []) known.set(it.seq, it);
    room.messages = [...known.values()].sort((a, b) => a.seq - b.seq);
    room.leader = json.leader ?? room.leader;
    room.term = json.term ?? room.term;
    this.#changes.add('chat');
    this.#emit();
  }

  // ---- handlers of single events, called with the model as `this`

  static {
    EVENTS = {
      admitted(it, now) {
        if (!it.endpoint) return;
        const old = this.members.get(it.endpoint);
        if (old && old.incarnation >= it.incarnation && old.state === 'alive') return;
        if (old) Object.assign(old, { incarnation: it.incarnation, since: now });
        if (old) this.#state(old, 'alive', now);
        else this.#newMember(it.endpoint, it.incarnation, now, {});
        const text = `${it.endpoint} joined${seedsText(it.seeds)}`;
        this.#tell('joined', it.endpoint, text, now, { important: true });
      },
      linked(it) {
        const own = this.node?.endpoint;
        if (!own || !it.neighbor) return;
        const key = linkKey(own, it.neighbor);
        if (this.links.has(key)) return;
        this.links.set(key, { a: own, b: it.neighbor, both: true, rtt_us: null });
        this.adjacent = null;
        this.#changes.add('links');
      },
      unlinked(it) {
        if (!this.links.delete(linkKey(this.node?.endpoint ?? '', it.neighbor))) return;
        this.adjacent = null;
        this.#changes.add('links');
      },
      suspected(it, now) {
        const node = this.members.get(it.endpoint);
        if (!node || node.endedAt) return;
        node.reason = it.reason ?? null;
        this.#state(node, 'suspected', now);
        const text = `${it.endpoint} is suspected${it.reason ? `: ${it.reason}` : ''}`;
        this.#tell('suspected', it.endpoint, text, now, { important: true });
      },
      confirmed(it, now) {
        const node = this.members.get(it.endpoint);
        if (!node || node.endedAt) return;
        this.#state(node, 'suspected', now);
        node.count = it.count ?? node.count + 1;
        node.needed = it.needed ?? node.needed;
        node.witnesses.push({ witness: it.witness, finding: it.finding, at: now });
        this.#changes.add('members');
        const of = node.needed ? `; ${node.count} of ${node.needed} confirm` : '';
        const text = `${it.witness} says of ${it.endpoint}: ${it.finding}${of}`;
        this.#tell('confirmed', it.endpoint, text, now);
      },
      cleared(it, now) {
        const node = this.members.get(it.endpoint);
        if (!node || node.state !== 'suspected') return;
        this.#state(node, 'alive', now);
        this.#tell('cleared', it.endpoint, `${it.endpoint} is cleared: it lives`, now,
          { important: true });
      },
      removed(it, now) {
        this.#ended(it, 'removed', now);
      },
      left(it, now) {
        this.#ended(it, 'left', now);
      },
      reported(it, now) {
        if (!it.endpoint) return;
        const by = it.reporter ? `${it.reporter} reports` : 'Reported to the seeds:';
        this.#tell('proposed', it.endpoint, `${by} ${it.endpoint} as dead`, now);
      },
      proposed(it, now, line) {
        const vote = { ...it, name: 'proposed', at: line.ts_ms ?? now, number: this.number };
        this.#keep(this.votes, vote);
        this.#changes.add('votes');
        this.#tell('proposed', it.endpoint, `Vote: ${it.kind} ${it.endpoint}?`, now);
      },
      voted(it, now, line) {
        const about = it.endpoint ?? this.node?.endpoint ?? null;
        const at = line.ts_ms ?? now;
        this.#keep(this.votes, { ...it, endpoint: about, name: 'voted', at, number: this.number });
        this.#changes.add('votes');
        for (const seed of this.seeds.values()) {
          if (seed.id === it.seed) seed.says = { yes: Boolean(it.yes), about, at: now };
        }
        const text = `Seed ${it.seed} says ${it.yes ? 'yes' : 'no'} to ${it.kind} ${about}`;
        this.#tell('voted', about, text, now, { seed: it.seed, yes: Boolean(it.yes) });
      },
      published(it, now, line) {
        this.#message({ ...it, kind: 'published', origin: this.node?.endpoint }, now, line);
      },
      delivered(it, now, line) {
        this.#message({ ...it, kind: 'delivered' }, now, line);
      },
      direct(it, now, line) {
        this.#message({ ...it, kind: 'direct', topic: it.topic ?? '(direct)' }, now, line);
      },
      quorum(it, now, line) {
        this.#tell('quorum', null, line.message, now, { important: line.level === 'warn' });
      },
      evicted(it, now, line) {
        this.#tell('removed', this.node?.endpoint, line.message, now, { important: true });
      },
    };
  }

  #ended(it, state, now) {
    const node = this.members.get(it.endpoint);
    const isOther = node && it.incarnation && it.incarnation < node.incarnation;
    if (!node || isOther || node.state === state) return;
    node.byEvent = true;
    this.#end(node, state, now, state === 'removed' ? seedsText(it.seeds) : '');
  }

  #message(it, now, line) {
    const topic = it.topic ?? '';
    this.#keep(this.messages, { ...it, topic, at: line.ts_ms ?? now, number: this.number });
    if (!this.topics.has(topic)) {
      this.topics.set(topic, { topic, count: 0, bytes: 0, series: new Series() });
    }
    const known = this.topics.get(topic);
    known.count += 1;
    known.bytes += it.size ?? 0;
    known.series.add(1, now);
    this.#changes.add('messages');
  }
}
