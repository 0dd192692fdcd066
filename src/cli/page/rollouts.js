// A rollout: its steps, the share and health of each node against the gates, and the orders.

import { attr, card, cells, count, draw, h, keyed, line, list, none, number, say, span, spark,
	table, timed, title } from './dom.js';

const ACTS = [
	['promote', 'Promote', 'The next step is taken now, without waiting.', 'running paused'],
	['pause', 'Pause', 'No further step is taken until somebody resumes.', 'running'],
	['resume', 'Resume', 'The steps go on.', 'paused'],
	['abort', 'Abort', 'The rollout ends, and all requests go to the stable version.',
		'running paused'],
	['rollback', 'Roll back', 'All requests go to the version before.', ''],
];
const SIGNS = { paused: '‖ ', finished: '✓ ', aborted: '✕ ', rolled_back: '↶ ' };
const STEPS = { done: '✓ done', now: '▶ now', later: 'later', never: '– not served' };
const tenths = (value) => Math.round(value * 10) / 10;
const FIGURES = [
	['requests', (it) => it.samples, number],
	['error', (it) => (it.samples ? (100 * it.errors) / it.samples : 0), (it) => `${tenths(it)} %`],
	['p95', (it) => it.p95_us / 1000, (it) => `${tenths(it)} ms`],
];

const phaseText = (it) => (SIGNS[it] ?? '') + it.replace('_', ' ');
const shares = (weights) => Object.entries(weights ?? {})
	.map(([version, share]) => `${version} ${Math.round(share * 10000) / 100} %`).join(', ');
const millis = (it) => it.secs * 1000 + it.nanos / 1e6;

/** The limits of gates such as `p95<=200ms` and `error<=1%`, by figure. */
function limits(gates) {
	const found = gates.map((it) => /^(p95|error)\s*<=?\s*([\d.]+)\s*(s?)/.exec(it)).filter(Boolean);
	return Object.fromEntries(found.map(([, name, value, s]) => [name, value * (s ? 1000 : 1)]));
}

export class RolloutsView {
	#c;

	constructor(section, context) {
		this.#c = context;
		this.said = h('p#rollout-state.soft');
		this.steps = h('ol.bar', { 'aria-label': 'Steps' });
		this.next = h('p#rollout-next');
		this.gates = h('p.small');
		this.alarm = h('p.note.bad');
		this.buttons = h('div.buttons', { role: 'group', 'aria-label': 'Orders' },
			...ACTS.map(([act, label, text]) => h('button', { type: 'button', 'data-act': act,
				class: act === 'promote' ? '' : 'quiet', onclick: () => this.#act(act, label, text) },
			label)));
		this.only = h('p.note', null, 'This page only shows the rollout: to give orders, open it on the '
			+ 'node’s own machine.');
		this.answer = h('p.note', { role: 'status', hidden: true });
		const { box, body } = table('Nodes of the rollout',
			['Node', 'State', 'Shares', 'Requests', 'Errors', 'p95']);
		this.rows = body;
		this.past = h('ol.news');
		this.pastCard = card('Since this page was opened', this.past);
		this.absent = none('This node takes part in no rollout. Begin with: ', 'peer --rollout node-a');
		this.whole = h('div.stack', null, h('div.card', null, this.steps, this.next, this.gates,
			this.alarm, this.buttons, this.only, this.answer), card(null, box));
		section.append(title('rollouts', 'Rollouts', this.said), this.absent, this.whole, this.pastCard);
	}

	async #act(act, label, text) {
		if (!(await this.#c.confirm(label, text))) return;
		this.answer.hidden = false;
		this.#answer('', `${label}: asking all nodes…`);
		try {
			const json = await this.#c.connection.post(`rollout/${act}`, {});
			this.#answer('good', `✓ ${label}: ${json.said ?? 'done'}`);
		} catch (error) {
			this.#answer('bad', `▲ ${label}: ${error.message}`);
		}
	}

	#answer(kind, text) {
		attr(this.answer, 'class', `note ${kind}`);
		say(this.answer, text);
	}

	update() {
		const { fleet } = this.#c;
		const summary = fleet.services.rollout;
		const past = fleet.happened.filter((it) => it.kind === 'rollout');
		this.pastCard.hidden = !past.length;
		keyed(this.past, past, (it) => it.number, (it) => timed(it.at, it.text));
		this.absent.hidden = Boolean(summary);
		this.whole.hidden = this.said.hidden = !summary;
		if (!summary) return;
		// A node that tells only a summary has no steps and no figures here.
		const standing = fleet.standing() ?? {};
		const course = standing.course ?? null;
		const weights = standing.state?.weights ?? summary.weights;
		const now = course ? `${course.plan.from} → ${course.plan.to} · ${phaseText(course.phase)}`
			: 'no rollout is known';
		say(this.said, `${now} · ${shares(weights)}`);
		this.#showSteps(course);
		this.#showNext(standing, course);
		this.buttons.hidden = !fleet.mayAct;
		this.only.hidden = fleet.mayAct;
		[...this.buttons.children].forEach((it, at) => {
			const phases = ACTS[at][3];
			it.disabled = Boolean(course && phases && !phases.includes(course.phase));
		});
		this.#showRows(summary, standing, course, weights);
	}

	#showSteps(course) {
		this.steps.hidden = !course;
		const { phase, step } = course ?? {};
		const isBack = phase === 'aborted' || phase === 'rolled_back';
		const state = (at) => {
			if (isBack) return 'never';
			return at < step || phase === 'finished' ? 'done' : at === step ? 'now' : 'later';
		};
		const items = (course?.plan.steps ?? []).map((share, at) => ({ share, state: state(at) }));
		keyed(this.steps, items, (it) => it.share, (it) => h('li', null,
			h('b', null, `${it.share / 100} %`), h('span')), (row, it) => {
			attr(row, 'class', it.state);
			attr(row, 'aria-current', it.state === 'now' && 'step');
			say(row.lastChild, STEPS[it.state]);
		});
	}

	#showNext(standing, course) {
		const { plan, phase, step } = course ?? {};
		const waits = standing.waits_for;
		let text = 'Begin with: peer rollout start --from v1 --to v2';
		if (waits) text = `It has not begun: it waits for ${list(waits)}.`;
		else if (course && phase !== 'running') text = `The rollout is ${phase.replace('_', ' ')}.`;
		else if (course) {
			const share = plan.steps[step + 1];
			const what = share === undefined ? 'it is finished' : `${plan.to} gets ${share / 100} %`;
			const left = standing.next_step ? millis(standing.next_step) : 0;
			text = `Next: ${what}${left > 0 ? ` in ${span(left)}, if all gates hold` : '; it is due'}.`;
		}
		say(this.next, text);
		say(this.gates, course ? `Gates: ${list(plan.gates ?? []) || 'none'}; they need ${
			count(plan.samples_min, 'request')} in ${span(plan.window_ms)}` : '');
		const alarms = [
			standing.brake && 'The brake is on: all requests go to the stable version',
			standing.held && `Held: ${standing.held}`,
			standing.in_doubt && `In doubt about ${standing.in_doubt.txid}`,
			standing.removed && 'This node was called gone: it decides nothing',
			standing.running?.waits_for.length
				&& `${standing.running.txid} waits for the votes of ${list(standing.running.waits_for)}`,
		].filter(Boolean);
		this.alarm.hidden = !alarms.length;
		say(this.alarm, `▲ ${alarms.join('. ')}.`);
	}

	#showRows(summary, standing, course, weights) {
		const own = { node_id: standing.node_id ?? summary.node_id, health: standing.health,
			is_linked: true, isOwn: true };
		const gates = limits(course?.plan.gates ?? []);
		const versions = Object.keys(weights ?? {});
		keyed(this.rows, [own, ...(standing.peers ?? [])], (it) => it.node_id, (it) =>
			line(it.node_id, 5, { 'data-rollout-node': it.node_id }), (row, it) => {
			const { digest } = it.heartbeat ?? {};
			const isSame = !digest || digest === standing.digest;
			const away = it.away ? ` for ${span(millis(it.away))}` : '';
			cells(row, it.isOwn ? '● this node' : it.is_linked ? '● in reach' : `▲ away${away}`,
				isSame ? shares(weights) : '▲ another state');
			attr(row.children[1], 'class', `number ${it.is_linked ? '' : 'bad'}`);
			const past = this.#c.fleet.health.get(it.node_id) ?? [];
			FIGURES.forEach((figure, at) => {
				keyed(row.children[at + 3], it.health ? versions : [], (version) => version, makeFigure,
					(box, version) => fillFigure(box, figure, version, it.health.models[version], past,
						version === course?.plan.to && gates[figure[0]]));
			});
		});
	}
}

function makeFigure(version) {
	return h('div.figure', null, h('small', null, version), spark(), h('b'), h('small'));
}

function fillFigure(box, [name, of, text], version, now, past, limit) {
	const value = now ? of(now) : 0;
	const values = past.map((it) => (it.models[version] ? of(it.models[version]) : 0));
	const isOver = limit && value > limit;
	draw(box.children[1], values, `${name} of ${version}: ${text(value)}`, limit);
	say(box.children[2], text(value));
	say(box.children[3], limit ? `${isOver ? '▲ over' : '✓ limit'} ${text(limit)}` : '');
	attr(box, 'class', `figure ${isOver ? 'bad' : ''}`);
}
