// Force-directed places of the nodes of a graph. Pure: no document, no clock, no chance; the same
// graph gets the same picture.

/** Number of steps after which the places are final. */
const STEPS = 260;
const COOLING = Math.pow(0.004, 1 / STEPS);

function hash(text) {
  let value = 2166136261;
  for (let at = 0; at < text.length; at += 1) {
    value = Math.imul(value ^ text.charCodeAt(at), 16777619);
  }
  return (value >>> 0) / 4294967296;
}

/** Places of nodes, which move as long as `isWarm`. */
export class Layout {
  #index = new Map();
  #edges = [];
  #heat = 0;
  ids = [];
  x = new Float64Array(0);
  y = new Float64Array(0);
  #vx = new Float64Array(0);
  #vy = new Float64Array(0);
  #degree = new Float64Array(0);

  /** Takes the graph; nodes that stay keep their places. */
  set(ids, edges) {
    const [before, x, y] = [this.#index, this.x, this.y];
    const n = ids.length;
    this.ids = ids;
    this.#index = new Map(ids.map((id, at) => [id, at]));
    for (const name of ['x', 'y']) this[name] = new Float64Array(n);
    this.#vx = new Float64Array(n);
    this.#vy = new Float64Array(n);
    this.#degree = new Float64Array(n);
    this.#edges = [];
    for (const [a, b] of edges) {
      const [i, j] = [this.#index.get(a), this.#index.get(b)];
      if (i === undefined || j === undefined || i === j) continue;
      this.#edges.push(i, j);
      this.#degree[i] += 1;
      this.#degree[j] += 1;
    }
    const fresh = [];
    ids.forEach((id, at) => {
      const old = before.get(id);
      if (old === undefined) fresh.push(at);
      else [this.x[at], this.y[at]] = [x[old], y[old]];
    });
    this.#place(fresh, new Set(fresh));
    const isNew = fresh.length > n / 3;
    this.#heat = Math.max(this.#heat, isNew ? 1 : 0.25);
  }

  /** Places new nodes beside their hub, or on a circle. */
  #place(fresh, unplaced) {
    const radius = 14 * Math.sqrt(this.ids.length + 1);
    const hubOf = new Map();
    for (let at = 0; at < this.#edges.length; at += 2) {
      const ends = [this.#edges[at], this.#edges[at + 1]];
      for (const [one, other] of [ends, [ends[1], ends[0]]]) {
        const hub = hubOf.get(one);
        if (hub === undefined || this.#degree[other] > this.#degree[hub]) hubOf.set(one, other);
      }
    }
    const order = fresh.sort((a, b) => this.#degree[b] - this.#degree[a]);
    for (const at of order) {
      const angle = hash(this.ids[at]) * 2 * Math.PI;
      const hub = hubOf.get(at);
      const isBeside = hub !== undefined && !unplaced.has(hub);
      const length = isBeside ? 45 : radius * (0.3 + 0.7 * hash(`${this.ids[at]} `));
      this.x[at] = (isBeside ? this.x[hub] : 0) + Math.cos(angle) * length;
      this.y[at] = (isBeside ? this.y[hub] : 0) + Math.sin(angle) * length;
      unplaced.delete(at);
    }
  }

  get isWarm() {
    return this.#heat > 0.004;
  }

  place(id) {
    const at = this.#index.get(id);
    return at === undefined ? null : { x: this.x[at], y: this.y[at] };
  }

  /** Wakes the layout a little. */
  warm(heat = 0.3) {
    this.#heat = Math.max(this.#heat, heat);
  }

  /** One step. All pairs push each other, links pull, and the middle pulls a little. */
  step() {
    const { x, y } = this;
    const [vx, vy, degree, edges] = [this.#vx, this.#vy, this.#degree, this.#edges];
    const n = this.ids.length;
    const heat = this.#heat;
    const push = 1400 * heat;
    for (let i = 0; i < n; i += 1) {
      let [fx, fy] = [0, 0];
      const [xi, yi] = [x[i], y[i]];
      for (let j = i + 1; j < n; j += 1) {
        const dx = xi - x[j];
        const dy = yi - y[j];
        const force = push / (dx * dx + dy * dy + 60);
        const [px, py] = [dx * force, dy * force];
        fx += px;
        fy += py;
        vx[j] -= px;
        vy[j] -= py;
      }
      vx[i] += fx;
      vy[i] += fy;
    }
    for (let at = 0; at < edges.length; at += 2) {
      const [i, j] = [edges[at], edges[at + 1]];
      const [dx, dy] = [x[j] - x[i], y[j] - y[i]];
      const length = Math.sqrt(dx * dx + dy * dy) + 0.01;
      const wanted = 46 + 5 * Math.sqrt(Math.min(degree[i], degree[j]));
      const force = ((length - wanted) / length) * heat / Math.min(degree[i], degree[j]) * 0.7;
      const share = degree[i] / (degree[i] + degree[j]);
      vx[i] += dx * force * (1 - share);
      vy[i] += dy * force * (1 - share);
      vx[j] -= dx * force * share;
      vy[j] -= dy * force * share;
    }
    const middle = 0.055 * heat;
    for (let i = 0; i < n; i += 1) {
      vx[i] = (vx[i] - x[i] * middle) * 0.6;
      vy[i] = (vy[i] - y[i] * middle) * 0.6;
      const speed = Math.hypot(vx[i], vy[i]);
      const slow = speed > 40 ? 40 / speed : 1;
      x[i] += vx[i] * slow;
      y[i] += vy[i] * slow;
    }
    this.#heat *= COOLING;
  }

  /** Steps until the places are final or `until()` says stop. */
  settle(until) {
    while (this.isWarm && !until()) this.step();
  }

  /** The box around all places. */
  bounds() {
    const box = { left: 0, right: 0, top: 0, bottom: 0 };
    for (let at = 0; at < this.ids.length; at += 1) {
      box.left = Math.min(box.left, this.x[at]);
      box.right = Math.max(box.right, this.x[at]);
      box.top = Math.min(box.top, this.y[at]);
      box.bottom = Math.max(box.bottom, this.y[at]);
    }
    return box;
  }
}
