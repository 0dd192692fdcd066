// The page: it joins the model, the connection and the views, and knows the addresses of views.

import { Connection } from './connection.js';
import { DecisionsView } from './decisions.js';
import { attr, button, coalesced, h, say } from './dom.js';
import { FilesView } from './files.js';
import { FleetView } from './fleet.js';
import { LogView } from './log.js';
import { MessagesView } from './messages.js';
import { Fleet } from './model.js';
import { NodeView } from './node.js';
import { RolloutsView } from './rollouts.js';

const VIEWS = { fleet: FleetView, decisions: DecisionsView, messages: MessagesView,
	files: FilesView, log: LogView, rollouts: RolloutsView, node: NodeView };
const TICK_MS = 1000;
const THEME = 'folkmoot-theme';

const $ = (id) => document.getElementById(id);

async function start() {
	const fleet = new Fleet();
	// The page of a recorded run has a player in place of a connection.
	const isRun = document.querySelector('meta[name="folkmoot-player"]');
	const Source = isRun ? (await import('./player.js')).Player : Connection;
	const connection = new Source(fleet, banner());
	const now = () => connection.now();
	const go = (hash) => (location.hash = hash);
	const context = { fleet, connection, confirm, now, go };
	const views = Object.fromEntries(Object.entries(VIEWS).map(([name, View]) =>
		[name, new View($(`view-${name}`), context)]));
	let shown = null;
	let changes = new Set();
	const draw = coalesced(() => {
		const some = changes;
		changes = new Set();
		if (some.has('node')) who(fleet.node, shown);
		views[shown].update(some);
	});
	const route = () => {
		const to = address();
		if (shown && shown !== to.view) scrollTo(0, 0);
		shown = to.view;
		for (const name of Object.keys(VIEWS)) $(`view-${name}`).hidden = name !== shown;
		for (const link of document.querySelectorAll('nav a')) {
			attr(link, 'aria-current', link.hash === `#/${shown}` && 'page');
		}
		views[shown].show?.(to);
		for (const it of ['node', 'members', 'services', 'log']) changes.add(it);
		draw();
	};
	fleet.on((some, news) => {
		for (const it of some) changes.add(it);
		// Said to those who do not see it.
		const texts = news.filter((it) => it.important).map((it) => it.text);
		if (texts.length) say($('live'), texts.slice(0, 3).join('. '));
		draw();
	});
	addEventListener('hashchange', route);
	theme(() => views.fleet.recolor());
	route();
	setInterval(() => {
		if (document.hidden) return;
		fleet.tick(now());
		draw();
	}, TICK_MS);
	connection.start();
}

/** The view that the address names, with what it asks of it. */
function address() {
	const [path, search] = location.hash.replace(/^#\/?/, '').split('?');
	const [name, ...rest] = path.split('/');
	const query = new URLSearchParams(search);
	if (name !== 'decision') return { view: Object.hasOwn(VIEWS, name) ? name : 'fleet', query };
	const id = rest.join('/');
	try {
		return { view: 'decisions', id: decodeURIComponent(id), query };
	} catch {
		return { view: 'decisions', id, query };
	}
}

function who(node, view) {
	const name = $(`title-${view}`).textContent;
	document.title = `${name}${node ? ` · ${node.endpoint}` : ''} · Folkmoot`;
	if (!node) return;
	say($('who-name'), `${node.role} ${node.endpoint}`);
	say($('who-health'), node.healthy ? '✓ healthy' : '▲ trouble');
	attr($('who-health'), 'class', `badge ${node.healthy ? 'good' : 'bad'}`);
	attr($('who-health'), 'title', node.trouble);
}

/** Returns what shows the state of the connection: nothing while all is well. */
function banner() {
	let countdown;
	return ({ lost, why, other, goAt }) => {
		const box = $('banner');
		clearInterval(countdown);
		box.hidden = !lost;
		if (!lost) return;
		const left = h('span');
		const stay = button('', 'Stay here', () => {
			clearInterval(countdown);
			stay.remove();
			left.remove();
		});
		const href = `http://${other}/${location.hash}`;
		box.replaceChildren(h('b', null, `▲ ${location.host} ${why}. `),
			'What is shown is old. It is tried again by itself. ',
			button('', 'Try now', () => location.reload()), ' ',
			...(other ? [h('a#other-node', { href }, `Go on at ${other}`), left, ' ', stay] : []));
		if (!other) return;
		const count = () => {
			const ms = goAt - Date.now();
			if (ms <= 0) location.assign(`http://${other}/${location.hash}`);
			else say(left, ` (in ${Math.ceil(ms / 1000)} s)`);
		};
		countdown = setInterval(count, 250);
		count();
	};
}

/** Asks in a dialog; true if the answer is yes. The focus goes back to where it was. */
function confirm(label, text) {
	const dialog = $('confirm');
	const before = document.activeElement;
	say($('confirm-title'), `${label}?`);
	say($('confirm-text'), text);
	say($('confirm-yes'), label);
	dialog.returnValue = 'no';
	$('confirm-no').onclick = () => dialog.close('no');
	$('confirm-yes').onclick = () => dialog.close('yes');
	dialog.showModal();
	return new Promise((resolve) => {
		dialog.onclose = () => {
			before.focus();
			resolve(dialog.returnValue === 'yes');
		};
	});
}

function theme(onChange) {
	const root = document.documentElement;
	const dark = matchMedia('(prefers-color-scheme: dark)');
	const isDark = () => (root.dataset.theme ? root.dataset.theme === 'dark' : dark.matches);
	const show = (wanted) => {
		attr(root, 'data-theme', wanted);
		say($('theme'), isDark() ? '☀ Light' : '☾ Dark');
		attr($('theme'), 'aria-label', isDark() ? 'Use light colors' : 'Use dark colors');
		onChange();
	};
	$('theme').onclick = () => {
		show(isDark() ? 'light' : 'dark');
		stored((it) => it.setItem(THEME, root.dataset.theme));
	};
	dark.addEventListener('change', () => show(root.dataset.theme));
	show(stored((it) => it.getItem(THEME)));
}

/** A browser may forbid to keep anything. */
function stored(use) {
	try {
		return use(localStorage);
	} catch {
		return null;
	}
}

start();
