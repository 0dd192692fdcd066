// Force-directed places for the nodes of a graph. No document, no clock, no chance: the same graph
// gets the same picture.

/** Factor by which the moves shrink with each step, so that they end after 260. */
const COOLING = 0.004 ** (1 / 260);

function hash(text) {
	let value = 2166136261;
	for (const it of text) value = Math.imul(value ^ it.charCodeAt(0), 16777619);
	return (value >>> 0) / 2 ** 32;
}

export class Layout {
	#index = new Map();
	#ends = [];
	#heat = 0;
	#x = [];
	#y = [];
	#vx = [];
	#vy = [];
	#degree = [];

	/** Takes the graph; nodes that stay keep their places, and `places` has those of others. */
	set(ids, links, places) {
		const [before, x, y] = [this.#index, this.#x, this.#y];
		const zeros = () => new Float64Array(ids.length);
		this.#index = new Map(ids.map((id, at) => [id, at]));
		[this.#x, this.#y, this.#vx, this.#vy, this.#degree] = Array.from({ length: 5 }, zeros);
		this.#ends = links.map((it) => it.map((end) => this.#index.get(end)))
			.filter(([a, b]) => a !== undefined && b !== undefined && a !== b);
		for (const it of this.#ends.flat()) this.#degree[it] += 1;
		const fresh = [];
		ids.forEach((id, at) => {
			const old = before.get(id);
			const place = places.get(id) ?? (old === undefined ? null : { x: x[old], y: y[old] });
			if (place) [this.#x[at], this.#y[at]] = [place.x, place.y];
			else fresh.push(at);
		});
		this.#place(ids, fresh);
		this.warm(fresh.length > ids.length / 3 ? 1 : 0.12);
	}

	/** Places new nodes beside the largest neighbor that has a place, or around the middle. */
	#place(ids, fresh) {
		const waiting = new Set(fresh);
		const near = new Map();
		for (const [a, b] of this.#ends) {
			for (const [one, other] of [[a, b], [b, a]]) {
				if (!(this.#degree[near.get(one)] >= this.#degree[other])) near.set(one, other);
			}
		}
		for (const at of fresh.sort((a, b) => this.#degree[b] - this.#degree[a])) {
			const angle = hash(ids[at]) * 2 * Math.PI;
			const hub = near.get(at);
			const isBeside = hub !== undefined && !waiting.has(hub);
			const far = isBeside ? 45 : 14 * Math.sqrt(ids.length) * (0.3 + hash(`${ids[at]}~`));
			this.#x[at] = (isBeside ? this.#x[hub] : 0) + Math.cos(angle) * far;
			this.#y[at] = (isBeside ? this.#y[hub] : 0) + Math.sin(angle) * far;
			waiting.delete(at);
		}
	}

	get isWarm() {
		return this.#heat > 0.004;
	}

	warm(heat) {
		this.#heat = Math.max(this.#heat, heat);
	}

	place(id) {
		const at = this.#index.get(id);
		return at === undefined ? null : { x: this.#x[at], y: this.#y[at] };
	}

	/** One step: all pairs push each other, links pull, and the middle pulls a little. */
	step() {
		const [x, y, vx, vy, degree] = [this.#x, this.#y, this.#vx, this.#vy, this.#degree];
		const heat = this.#heat;
		const n = x.length;
		for (let i = 0; i < n; i += 1) {
			let [fx, fy] = [0, 0];
			for (let j = i + 1; j < n; j += 1) {
				const dx = x[i] - x[j];
				const dy = y[i] - y[j];
				const force = (1400 * heat) / (dx * dx + dy * dy + 60);
				fx += dx * force;
				fy += dy * force;
				vx[j] -= dx * force;
				vy[j] -= dy * force;
			}
			vx[i] += fx;
			vy[i] += fy;
		}
		for (const [i, j] of this.#ends) {
			const [dx, dy] = [x[j] - x[i], y[j] - y[i]];
			const length = Math.hypot(dx, dy) + 0.01;
			const least = Math.min(degree[i], degree[j]);
			const force = ((1 - (46 + 5 * Math.sqrt(least)) / length) * heat * 0.7) / least;
			// The one with more links moves less.
			const share = degree[i] / (degree[i] + degree[j]);
			vx[i] += dx * force * (1 - share);
			vy[i] += dy * force * (1 - share);
			vx[j] -= dx * force * share;
			vy[j] -= dy * force * share;
		}
		for (let i = 0; i < n; i += 1) {
			vx[i] = (vx[i] - x[i] * 0.055 * heat) * 0.6;
			vy[i] = (vy[i] - y[i] * 0.055 * heat) * 0.6;
			const slow = Math.min(1, 40 / Math.hypot(vx[i], vy[i]));
			x[i] += vx[i] * slow;
			y[i] += vy[i] * slow;
		}
		this.#heat *= COOLING;
	}

	/** Steps until all is at rest, or the time is over that `isOver` tells. */
	settle(isOver) {
		while (this.isWarm && !isOver()) this.step();
	}

	/** The box around all places, and around `more`. */
	bounds(more) {
		const most = (all, axis, f) => all.reduce((a, b) => f(a, b),
			more.reduce((a, b) => f(a, b[axis]), 0));
		return { left: most(this.#x, 'x', Math.min), right: most(this.#x, 'x', Math.max),
			top: most(this.#y, 'y', Math.min), bottom: most(this.#y, 'y', Math.max) };
	}
}
