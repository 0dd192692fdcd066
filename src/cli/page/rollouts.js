// A rollout: its steps, each node's share and health against the gates, and the orders.

import { clock, count, drawSpark, el, empty, keyed, list, number, replace, setAttr, setText, span,
  spark, table } from './dom.js';

const ACTS = [
  ['promote', 'Promote', 'Take the next step now, without waiting?'],
  ['pause', 'Pause', 'Take no further step until somebody resumes?'],
  ['resume', 'Resume', 'Go on with the steps?'],
  ['abort', 'Abort', 'End this rollout and give all requests to the stable version?'],
  ['rollback', 'Roll back', 'Give all requests to the version before?'],
];
const PHASES = {
  running: 'running', paused: '‖ paused', finished: '✓ finished', aborted: '✕ aborted',
  rolled_back: '↶ rolled back',
};

/** See the top of this file. */
export class RolloutsView {
  #c;

  constructor(section, context) {
    this.#c = context;
    this.said = el('p', { class: 'summary', id: 'rollout-state' });
    this.steps = el('ol', { class: 'bar', 'aria-label': 'Steps' });
    this.next = el('p', { id: 'rollout-next' });
    this.gates = el('p', { class: 'small' });
    this.alarm = el('p', { class: 'note bad', hidden: true });
    this.buttons = el('div', { class: 'buttons', role: 'group', 'aria-label': 'Orders' },
      ...ACTS.map(([act, label, question]) => el('button', { type: 'button', 'data-act': act,
        class: act === 'promote' ? '' : 'quiet', text: label,
        onclick: () => this.#act(act, label, question) })));
    this.only = el('p', { class: 'note',
      text: 'This page only shows the rollout: orders need a browser on the node’s own machine, or '
        + 'peer rollout there.' });
    this.answer = el('p', { class: 'note', role: 'status', hidden: true });
    const heads = ['Node', 'Shares', 'Requests', 'Errors', 'p95', 'State'];
    const { box, body } = table('Nodes of the rollout', heads);
    this.body = body;
    this.absent = empty('This node takes part in no rollout. Begin with: ', 'peer --rollout node-a');
    this.plan = el('div', { class: 'card' }, this.steps, this.next, this.gates, this.alarm,
      this.buttons, this.only, this.answer);
    this.nodes = el('div', { class: 'card' }, box);
    this.history = el('ol', { class: 'news' });
    this.past = el('div', { class: 'card' }, el('h2', { text: 'Since this page was opened' }),
      this.history);
    section.append(el('div', { class: 'top' }, el('h1', { id: 'title-rollouts', text: 'Rollouts' }),
      this.said), this.absent, this.plan, this.nodes, this.past);
  }

  show() {}

  async #act(act, label, question) {
    if (!(await this.#c.confirm(label, question))) return;
    this.answer.hidden = false;
    this.answer.className = 'note';
    setText(this.answer, `${label}: asking all nodes…`);
    try {
      const json = await this.#c.connection.post(`rollout/${act}`, {});
      setText(this.answer, `✓ ${label}: ${json.said ?? 'done'}`);
    } catch (error) {
      this.answer.className = 'note bad';
      setText(this.answer, `▲ ${label} was not done: ${error.message}`);
    }
  }

  update() {
    const { fleet } = this.#c;
    const summary = fleet.services.rollout;
    for (const it of [this.plan, this.nodes, this.said]) it.hidden = !summary;
    this.absent.hidden = Boolean(summary);
    const past = fleet.happened.filter((it) => it.kind === 'rollout');
    this.past.hidden = !past.length;
    keyed(this.history, past, (it) => it.number, (it) => el('li', {},
      el('time', { text: clock(it.at) }), el('span', { text: it.text })));
    if (!summary) return;
    const view = summary.view ?? summary;
    const standing = view.standing ?? null;
    const course = standing?.course ?? null;
    this.#state(summary, standing, course);
    this.#steps(standing, course);
    this.#orders(course);
    this.#rows(summary, standing, course);
  }

  #state(summary, standing, course) {
    const weights = standing?.state?.weights ?? summary.weights ?? {};
    const parts = [];
    if (course) {
      parts.push(`${course.plan.from} → ${course.plan.to}`);
      parts.push(PHASES[course.phase] ?? course.phase);
    } else parts.push('no rollout runs');
    parts.push(shares(weights));
    const version = standing?.state?.version ?? summary.version;
    if (version !== undefined) parts.push(`state ${version}`);
    setText(this.said, parts.join(' · '));
  }

  #steps(standing, course) {
    this.steps.hidden = !course;
    const waits = standing?.waits_for ?? [];
    const forming = standing && !standing.state && waits.length;
    setText(this.next, forming ? `It has not begun yet: it waits for ${list(waits)}.`
      : course ? this.#nextText(standing, course) : 'Begin with: peer rollout start --from v1 --to v2');
    const gates = course?.plan.gates ?? [];
    setText(this.gates, course ? `Gates: ${gates.length ? list(gates.map(gateText)) : 'none'}${
      course.plan.samples_min ? `; they need ${count(course.plan.samples_min, 'request')} in ${
        span(course.plan.window_ms)}` : ''}` : '');
    const alarms = [];
    if (standing?.brake) alarms.push('The brake is on: all requests go to the stable version');
    if (standing?.held) alarms.push(`Held: ${standing.held}`);
    if (standing?.in_doubt) alarms.push(`In doubt about ${standing.in_doubt.txid}`);
    if (standing?.removed) alarms.push('This node was called gone: it decides nothing');
    if (standing?.running) alarms.push(`${standing.running.txid} is running; missing votes: ${
      list(standing.running.waits_for) || 'none'}`);
    this.alarm.hidden = !alarms.length;
    setText(this.alarm, alarms.length ? `▲ ${alarms.join('. ')}.` : '');
    if (!course) return;
    const isBack = ['aborted', 'rolled_back'].includes(course.phase);
    const items = course.plan.steps.map((it, at) => ({ at, share: it / 100,
      state: isBack ? 'never' : at < course.step || course.phase === 'finished' ? 'done'
        : at === course.step ? 'now' : 'later' }));
    keyed(this.steps, items, (it) => `${it.at} ${it.share}`, () => el('li', {}, el('b'), el('span')),
      (row, it) => {
        setAttr(row, 'class', it.state);
        setAttr(row, 'aria-current', it.state === 'now' ? 'step' : null);
        setText(row.firstChild, `${it.share} %`);
        const word = { done: '✓ done', now: '▶ now', later: 'later', never: '– not served' };
        setText(row.lastChild, word[it.state]);
      });
  }

  #nextText(standing, course) {
    const { plan, step, phase } = course;
    if (phase !== 'running') return `The rollout is ${(PHASES[phase] ?? phase).replace(/^\W+ /, '')}.`;
    const next = plan.steps[step + 1];
    const what = next === undefined ? 'it is finished' : `${plan.to} gets ${next / 100} %`;
    const left = standing.next_step;
    if (!left) return `Next: ${what}, when somebody promotes.`;
    const ms = left.secs * 1000 + left.nanos / 1e6;
    return ms > 0 ? `Next: ${what} in ${span(ms)}, if all gates hold.` : `Next: ${what}; it is due now.`;
  }

  #orders(course) {
    const { mayAct } = this.#c.fleet;
    this.buttons.hidden = !mayAct;
    this.only.hidden = mayAct;
    const can = { promote: ['running', 'paused'], pause: ['running'], resume: ['paused'],
      abort: ['running', 'paused'] };
    for (const button of this.buttons.children) {
      const phases = can[button.dataset.act];
      button.disabled = Boolean(phases && course && !phases.includes(course.phase));
    }
  }

  #rows(summary, standing, course) {
    const { fleet } = this.#c;
    const rows = standing?.state ? [
      { id: standing.node_id, own: true, health: standing.health, linked: true,
        digest: standing.digest },
      ...(standing.peers ?? []).map((it) => ({ id: it.node_id, health: it.health,
        linked: it.is_linked, away: it.away, digest: it.heartbeat?.digest })),
    ] : [{ id: summary.node_id, own: true, linked: true }];
    const weights = standing?.state?.weights ?? summary.weights ?? {};
    const limits = (course?.plan.gates ?? []).map(limit).filter(Boolean);
    const versions = Object.keys(weights);
    keyed(this.body, rows, (it) => it.id, (it) => el('tr', { 'data-rollout-node': it.id },
      el('th', { scope: 'row', text: it.id }), ...Array.from({ length: 5 }, () => el('td'))),
    (row, it) => {
      const [, share, ...cells] = row.children;
      const same = it.own || !it.digest || it.digest === standing?.digest;
      setText(share, same ? shares(weights) : 'another state');
      const state = it.linked ? it.own ? '● this node' : '● in reach'
        : `▲ away${it.away ? ` for ${span(it.away.secs * 1000)}` : ''}`;
      setText(cells[3], same ? state : `${state}, behind`);
      setAttr(cells[3], 'class', it.linked ? '' : 'bad');
      const past = fleet.health.get(it.id) ?? [];
      FIGURES.forEach((figure, at) => {
        keyed(cells[at], versions, (version) => version, (version) => figureBox(version, figure),
          (box, version) => fillFigure(box, figure, version, past, it.health?.models?.[version],
            version === course?.plan.to ? limits.find((one) => one.name === figure.name) : null));
      });
      if (!it.health && !it.own) for (const cell of cells.slice(0, 3)) replace(cell);
    });
  }
}

const errorShare = (it) => (it.samples ? (100 * it.errors) / it.samples : 0);

const FIGURES = [
  { name: 'requests', of: (it) => it.samples, text: (value) => number(value) },
  { name: 'error', of: errorShare, text: (value) => `${Math.round(value * 10) / 10} %` },
  { name: 'p95', of: (it) => it.p95_us / 1000, text: (value) => `${Math.round(value * 10) / 10} ms` },
];

function figureBox(version, figure) {
  return el('div', { class: 'figure' }, el('span', { class: 'version', text: version }),
    spark(`${figure.name} of ${version}`), el('b'), el('small'));
}

function fillFigure(box, figure, version, past, now, gate) {
  const values = past.map((it) => (it.models[version] ? figure.of(it.models[version]) : 0));
  const value = now ? figure.of(now) : 0;
  const isOver = gate && now?.samples && value > gate.value;
  drawSpark(box.children[1], values.length > 1 ? values : [value, value], gate?.value,
    `${figure.name} of ${version}: ${figure.text(value)}`);
  setText(box.children[2], now ? figure.text(value) : '–');
  setText(box.children[3], gate ? `${isOver ? '▲ over' : '✓ limit'} ${figure.text(gate.value)}` : '');
  setAttr(box, 'class', `figure ${isOver ? 'bad' : ''}`);
}

/** The limit of a gate as its text says it, such as `p95<=200ms` or `error<=1%`. */
function limit(gate) {
  const found = /^(p95|error)\s*<=?\s*([\d.]+)\s*(ms|s|%)?/.exec(gateText(gate));
  if (!found) return null;
  const [, name, value, unit] = found;
  return { name, value: Number(value) * (unit === 's' ? 1000 : 1) };
}

function gateText(gate) {
  return typeof gate === 'string' ? gate : JSON.stringify(gate);
}

function shares(weights) {
  return Object.entries(weights)
    .map(([version, share]) => `${version} ${Math.round(share * 10000) / 100} %`).join(', ');
}
