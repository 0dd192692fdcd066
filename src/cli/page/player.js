// The player of a recorded run, in place of the connection with a node: it feeds the model with
// what has happened up to the time of its slider.

import { attr, button, h, say } from './dom.js';

const RUN = '/-/folkmoot/run';
const SPEEDS = [0.01, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30];
/** Fast where nothing but joins and gossip happens; slow around suspicions and removals. */
const AUTO = 'auto';
const AUTO_FAST = 10;
const AUTO_SLOW = 0.05;
const AHEAD_MS = 100;
const AFTER_MS = 30;
/** Time before a fault to which its button goes. */
const BEFORE_MS = 150;
const STEP_MS = 1000;
/** Longest step of one frame: a tab that was hidden does not jump. */
const FRAME_MS = 100;
const SHOWN = ['#/fleet', '#/decisions'];
const SLOW = new Set(['crash', 'vanish', 'suspected', 'confirmed', 'cleared', 'reported',
	'removed']);
const HELP = 'Space plays and pauses, comma and full stop change the speed, n and p go to the next '
	+ 'and the previous fault, the arrow keys move the slider.';

export class Player {
	#fleet;
	#onState;
	#run = null;
	/** Simulated time now, and the number of events that the model knows. */
	#at = 0;
	#next = 0;
	#speed = AUTO;
	#isPlaying = false;
	#frame = null;
	#slow = [];
	/** Numbers of the events that tell the whole fleet. */
	#whole = [];
	#marks = [];

	constructor(fleet, onState) {
		this.#fleet = fleet;
		this.#onState = onState;
	}

	/** Time of the slider. */
	now() {
		return this.#at;
	}

	async start() {
		try {
			const answer = await fetch(RUN, { cache: 'no-store' });
			if (!answer.ok) throw new Error(`answers with ${answer.status}`);
			this.#run = await answer.json();
		} catch (error) {
			const why = error.name === 'TypeError' ? 'does not answer' : error.message;
			this.#onState({ lost: true, why });
			return;
		}
		const isSlow = ({ name, data }) => name === 'log' && (SLOW.has(data.event)
			|| data.fields.kind === 'remove');
		this.#slow = this.#run.events.filter(isSlow).map((it) => it.at_ms);
		this.#whole = [...this.#run.events.keys()].filter((it) =>
			this.#run.events[it].name === 'fleet');
		this.#make();
		this.go(this.#run.start_ms);
		this.play(true);
	}

	// ---- the orders that a node would take

	refresh() {}

	async post() {
		throw new Error('a recorded run takes no orders');
	}

	async history() {
		return { messages: [] };
	}

	async status() {
		return {};
	}

	// ---- the bar

	#make() {
		const { start_ms: start, end_ms: end, title, left_out: left } = this.#run;
		this.toggle = button('#play', 'Play', () => this.play(!this.#isPlaying));
		this.slider = h('input#time', { type: 'range', min: start, max: end, step: 'any',
			'aria-label': 'Time of the run', oninput: () => this.go(Number(this.slider.value)),
			onkeydown: (event) => this.#slide(event) });
		const speeds = [AUTO, ...SPEEDS].map((it) => h('option', { value: it },
			it === AUTO ? 'speed: as it needs' : `speed: ${it} ×`));
		this.speed = h('select#speed', { 'aria-label': 'Speed',
			onchange: () => this.#setSpeed(this.speed.value) }, ...speeds);
		this.clock = h('output#clock');
		this.#marks = this.#groups();
		this.marks = h('div.marks', { role: 'group', 'aria-label': 'Faults' },
			...this.#marks.map((it) => this.#mark(it)));
		const out = Object.values(left).reduce((sum, n) => sum + n, 0);
		const note = out ? ` Of gossip and large fleets, ${out} single events are left out.` : '';
		const bar = h('section#player', { 'aria-label': 'Player', title: HELP },
			h('p.small', null, `A simulated run: ${title}.${note}`),
			h('div.row', null, this.toggle, h('div.track', null, this.slider, this.marks),
				this.clock, this.speed));
		document.getElementById('main').before(bar);
		for (const it of document.querySelectorAll('nav a')) it.hidden = !SHOWN.includes(it.hash);
		addEventListener('keydown', (event) => this.#key(event));
	}

	/** Faults of the same moment are one mark. */
	#groups() {
		const groups = new Map();
		for (const { at_ms: at, kind, endpoint } of this.#run.faults) {
			if (!groups.has(at)) groups.set(at, { at, kind, endpoints: [] });
			groups.get(at).endpoints.push(endpoint);
		}
		return [...groups.values()].sort((a, b) => a.at - b.at);
	}

	#mark({ at, kind, endpoints }) {
		const { start_ms: start, end_ms: end } = this.#run;
		const some = endpoints.slice(0, 5).join(', ') + (endpoints.length > 5 ? ', …' : '');
		const text = `${kind} of ${endpoints.length} after ${seconds(at - start)}: ${some}`;
		const mark = button('', '▼', () => this.#goBefore(at));
		attr(mark, 'aria-label', `Go to the ${text}`);
		attr(mark, 'title', text);
		mark.style.left = `${((at - start) / (end - start)) * 100}%`;
		return mark;
	}

	#setSpeed(speed) {
		this.#speed = speed === AUTO ? AUTO : Number(speed);
		this.speed.value = String(speed);
	}

	#slide(event) {
		const way = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
		if (!way) return;
		event.preventDefault();
		this.go(this.#at + way * STEP_MS * (event.shiftKey ? 0.01 : 1));
	}

	#key(event) {
		const { target, key } = event;
		const takes = target.closest('input:not(#time), select, textarea, dialog');
		if (takes || event.ctrlKey || event.altKey || event.metaKey) return;
		if (key === ' ' && !target.closest('button, a, summary')) this.play(!this.#isPlaying);
		else if (key === ',' || key === '.') {
			const at = this.#speed === AUTO ? SPEEDS.indexOf(1) : SPEEDS.indexOf(this.#speed);
			const next = SPEEDS[at + (key === '.' ? 1 : -1)];
			if (next) this.#setSpeed(next);
		} else if (key === 'n' || key === 'p') {
			const all = this.#marks.map((it) => it.at - BEFORE_MS);
			const to = key === 'n' ? all.find((it) => it > this.#at + 1)
				: all.findLast((it) => it < this.#at - 1);
			if (to !== undefined) this.#goBefore(to + BEFORE_MS);
		} else return;
		event.preventDefault();
	}

	#goBefore(at) {
		this.go(at - BEFORE_MS);
		this.play(true);
	}

	// ---- the time

	play(isPlaying) {
		const { start_ms: start, end_ms: end } = this.#run;
		if (isPlaying && this.#at >= end) this.go(start);
		this.#isPlaying = isPlaying;
		say(this.toggle, isPlaying ? 'Pause' : 'Play');
		cancelAnimationFrame(this.#frame);
		if (!isPlaying) return;
		let last = performance.now();
		const step = (time) => {
			const passed = Math.min(FRAME_MS, Math.max(0, time - last));
			last = time;
			this.go(this.#at + this.#passes(passed));
			if (this.#at >= end) this.play(false);
			else if (this.#isPlaying) this.#frame = requestAnimationFrame(step);
		};
		this.#frame = requestAnimationFrame(step);
	}

	/** Simulated time that passes in so many milliseconds. */
	#passes(ms) {
		if (this.#speed !== AUTO) return ms * this.#speed;
		const next = this.#slow[first(this.#slow, this.#at - AFTER_MS)] ?? Infinity;
		if (next - this.#at <= AHEAD_MS) return ms * AUTO_SLOW;
		return Math.min(ms * AUTO_FAST, next - AHEAD_MS - this.#at + 0.01);
	}

	/** Goes to a time: the model knows then all that has happened until it, and no more. */
	go(to) {
		const { start_ms: start, end_ms: end, events } = this.#run;
		const time = Math.min(end, Math.max(start, to));
		const isBack = time < this.#at;
		this.#at = time;
		const upTo = first(events, time + 1e-6, (it) => it.at_ms);
		if (isBack) {
			// The last whole state before it is a beginning, so that little is to be told again.
			this.#next = this.#whole.findLast((it) => it < upTo) ?? 0;
			this.#fleet.reset();
		}
		while (this.#next < upTo) {
			const it = events[this.#next];
			if (it.name === 'fleet') {
				this.#fleet.setFleet(it.data, it.at_ms);
				this.#next += 1;
				continue;
			}
			const whole = this.#whole.find((at) => at > this.#next) ?? upTo;
			const stop = Math.min(whole, upTo);
			this.#fleet.applyAll(events.slice(this.#next, stop));
			this.#next = stop;
		}
		this.#fleet.tick(time);
		this.#show(time);
	}

	#show(time) {
		const { start_ms: start, phases } = this.#run;
		const phase = phases.findLast((it) => it.at_ms <= time)?.name ?? '';
		this.slider.value = time;
		const text = seconds(time - start);
		say(this.clock, `${text} · ${phase}`);
		attr(this.slider, 'aria-valuetext', `${text}, ${phase}`);
	}
}

function seconds(ms) {
	return `${(ms / 1000).toFixed(3)} s`;
}

/** Number of the first of sorted values that is not below `least`. */
function first(all, least, value = (it) => it) {
	let [low, high] = [0, all.length];
	while (low < high) {
		const middle = (low + high) >> 1;
		if (value(all[middle]) < least) low = middle + 1;
		else high = middle;
	}
	return low;
}
