// The page: it joins the model, the connection and the views, and knows the addresses of views.

import { Connection } from './connection.js';
import { DecisionsView } from './decisions.js';
import { coalesced, el, replace, setAttr, setText } from './dom.js';
import { FilesView } from './files.js';
import { FleetView } from './fleet.js';
import { LogView } from './log.js';
import { MessagesView } from './messages.js';
import { Fleet } from './model.js';
import { NodeView } from './node.js';
import { RolloutsView } from './rollouts.js';

const VIEWS = {
  fleet: FleetView, decisions: DecisionsView, messages: MessagesView, files: FilesView,
  log: LogView, rollouts: RolloutsView, node: NodeView,
};
const TICK_MS = 1000;
const THEME = 'folkmoot-theme';

const $ = (id) => document.getElementById(id);

function start() {
  const fleet = new Fleet();
  const connection = new Connection(fleet, banner);
  const context = {
    fleet, connection, confirm,
    now: () => connection.now(),
    go: (hash) => (location.hash = hash),
  };
  const views = {};
  for (const [name, View] of Object.entries(VIEWS)) {
    views[name] = new View($(`view-${name}`), context);
  }
  let shown = null;
  let changes = new Set();
  const draw = coalesced(() => {
    const now = changes;
    changes = new Set();
    if (now.has('node')) who(fleet.node);
    views[shown]?.update(now);
  });
  const route = () => {
    const to = address(location.hash);
    if (shown !== to.view) {
      if (shown) views[shown].hide?.();
      for (const name of Object.keys(VIEWS)) $(`view-${name}`).hidden = name !== to.view;
      for (const link of document.querySelectorAll('nav a')) {
        const isHere = link.getAttribute('href') === `#/${to.view}`;
        setAttr(link, 'aria-current', isHere ? 'page' : null);
      }
      const isFirst = shown === null;
      shown = to.view;
      if (!isFirst) window.scrollTo(0, 0);
    }
    title(fleet.node);
    views[shown].show(to);
    for (const it of ['members', 'services', 'seeds']) changes.add(it);
    draw();
  };
  const title = (node) => {
    const name = $(`title-${shown}`).textContent;
    document.title = node ? `${name} · ${node.endpoint} · Folkmoot` : `${name} · Folkmoot`;
  };
  fleet.on((some, news) => {
    for (const it of some) changes.add(it);
    if (some.has('node')) title(fleet.node);
    announce(news);
    draw();
  });
  window.addEventListener('hashchange', route);
  theme(() => views.fleet.recolor());
  route();
  setInterval(() => {
    if (document.hidden) return;
    fleet.tick(connection.now());
    draw();
  }, TICK_MS);
  connection.start();
}

/** The view and its question that an address names. */
function address(hash) {
  const [path, search = ''] = hash.replace(/^#\/?/, '').split('?');
  const [name, ...rest] = path.split('/');
  const query = new URLSearchParams(search);
  if (name === 'decision') {
    return { view: 'decisions', id: decode(rest.join('/')), query };
  }
  return { view: Object.hasOwn(VIEWS, name) ? name : 'fleet', id: null, query };
}

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function who(node) {
  if (!node) return;
  setText($('who-name'), `${node.role} ${node.endpoint}`);
  setText($('who-health'), node.healthy ? '✓ healthy' : '▲ trouble');
  setAttr($('who-health'), 'class', `badge ${node.healthy ? 'good' : 'bad'}`);
  setAttr($('who-health'), 'title', node.trouble);
}

/** Says important changes to those who do not see them. */
function announce(news) {
  const texts = news.filter((it) => it.important).map((it) => it.text);
  if (texts.length) setText($('live'), texts.slice(0, 3).join('. '));
}

// ---- the connection is lost

let countdown = null;

function banner(state) {
  const box = $('banner');
  clearInterval(countdown);
  if (!state.lost) {
    box.hidden = true;
    replace(box);
    return;
  }
  const again = el('button', { type: 'button', text: 'Try now', onclick: () => location.reload() });
  const parts = [el('b', { text: `▲ ${location.host} ${lostText(state.why)}.` }),
    el('span', { text: ' What is shown is old. It is tried again by itself. ' }), again];
  if (state.other) {
    const href = `http://${state.other}/${location.hash}`;
    const left = el('span');
    const stay = el('button', { type: 'button', text: 'Stay here', onclick: () => {
      clearInterval(countdown);
      stay.remove();
      setText(left, '');
    } });
    const tell = () => {
      const ms = state.goAt - Date.now();
      if (ms > 0) return setText(left, ` (in ${Math.ceil(ms / 1000)} s)`);
      clearInterval(countdown);
      return location.assign(href);
    };
    parts.push(el('span', {}, ' ', el('a', { href, id: 'other-node',
      text: `Go on at ${state.other}` }), left, ' ', stay));
    countdown = setInterval(tell, 250);
    tell();
  }
  replace(box, ...parts);
  box.hidden = false;
}

function lostText(why) {
  return /fetch|network|load failed/i.test(why ?? '') ? 'does not answer' : why ?? 'is lost';
}

// ---- questions and colors

/** Asks in a dialog; true if the answer is yes. The focus goes back to where it was. */
function confirm(label, text) {
  const dialog = $('confirm');
  const before = document.activeElement;
  setText($('confirm-title'), `${label}?`);
  setText($('confirm-text'), text);
  setText($('confirm-yes'), label);
  dialog.showModal();
  return new Promise((resolve) => {
    const close = (answer) => {
      dialog.close(answer);
    };
    $('confirm-no').onclick = () => close('no');
    $('confirm-yes').onclick = () => close('yes');
    dialog.oncancel = () => (dialog.returnValue = 'no');
    dialog.onclose = () => {
      before?.focus();
      resolve(dialog.returnValue === 'yes');
    };
  });
}

function theme(onChange) {
  const root = document.documentElement;
  const dark = matchMedia('(prefers-color-scheme: dark)');
  const button = $('theme');
  const read = () => {
    try {
      return localStorage.getItem(THEME);
    } catch {
      return null;
    }
  };
  const show = (wanted) => {
    setAttr(root, 'data-theme', wanted);
    const isDark = wanted ? wanted === 'dark' : dark.matches;
    setText(button, isDark ? '☀ Light' : '☾ Dark');
    setAttr(button, 'aria-label', isDark ? 'Use light colors' : 'Use dark colors');
    onChange();
  };
  button.onclick = () => {
    const isDark = root.dataset.theme ? root.dataset.theme === 'dark' : dark.matches;
    const wanted = isDark ? 'light' : 'dark';
    try {
      localStorage.setItem(THEME, wanted);
    } catch {
      // A browser that keeps nothing still shows it until it is closed.
    }
    show(wanted);
  };
  dark.addEventListener('change', () => show(read()));
  show(['dark', 'light'].includes(read()) ? read() : null);
}

start();
