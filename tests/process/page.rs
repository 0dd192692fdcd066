//! The page as people use it: in a real browser, on real nodes.

use crate::support;

use folkmoot::model::Endpoint;
use serde_json::{Value, json};
use support::browser::Browser;
use support::nodes::Nodes;
use support::process::run;
use support::seeds::Seeds;
use support::{NO_GOSSIP, Scene, peer_exe, ports};

/// Size of a window on a desk, and of a phone.
const DESK: (u32, u32) = (1280, 900);
const PHONE: (u32, u32) = (360, 740);

const VIEWS: [&str; 7] = ["fleet", "decisions", "messages", "files", "log", "rollouts", "node"];

fn page(node: Endpoint) -> String {
    format!("http://{node}/")
}

/// Script that keeps each state that a node is shown in from now on, in `window.seen`.
const WATCH: &str = "window.seen = {};
    const look = () => document.querySelectorAll('[data-node]').forEach((it) => {
        (window.seen[it.dataset.node] ??= new Set()).add(it.dataset.state);
    });
    look();
    new MutationObserver(look).observe(document.body,
        { subtree: true, childList: true, attributes: true, attributeFilter: ['data-state'] });";

/// Faults of the page for people who cannot see it, or see little: controls without a name,
/// pictures without a text, texts with too little contrast (WCAG 2, AA).
const FAULTS: &str = r##"
const faults = [];
const shown = (it) => it.checkVisibility({ checkOpacity: true, checkVisibilityCSS: true });
const named = (it) => it.getAttribute('aria-label') || it.getAttribute('title') || it.labels?.length
  || (it.getAttribute('aria-labelledby') || '').split(' ').some((id) => document.getElementById(id))
  || it.innerText?.trim() || it.querySelector('[alt]:not([alt=""])');
for (const it of document.querySelectorAll('a, button, input, select, textarea, canvas, summary')) {
  if (shown(it) && !named(it)) faults.push(`no name: ${it.outerHTML.slice(0, 120)}`);
}
for (const it of document.querySelectorAll('img')) {
  if (!it.hasAttribute('alt')) faults.push(`no text: ${it.outerHTML.slice(0, 120)}`);
}
const ids = [...document.querySelectorAll('[id]')].map((it) => it.id);
for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) faults.push(`twice: ${id}`);
if (!document.documentElement.lang) faults.push('no language');
if (document.querySelectorAll('main').length !== 1) faults.push('no main part');
const numbers = (color) => color.match(/[\d.]+/g).map(Number);
const light = (color) => {
  const part = (it) => (it /= 255) <= 0.03928 ? it / 12.92 : ((it + 0.055) / 1.055) ** 2.4;
  const [r, g, b] = numbers(color).map(part);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const behind = (it) => {
  for (; it; it = it.parentElement) {
    const color = getComputedStyle(it).backgroundColor;
    const alpha = numbers(color)[3] ?? 1;
    if (alpha === 1) return color;
    if (alpha > 0) return null;
  }
  return 'rgb(255, 255, 255)';
};
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
for (let text = walker.nextNode(); text; text = walker.nextNode()) {
  const it = text.parentElement;
  const isNone = it.closest('[disabled], [hidden], script, noscript');
  if (!text.data.trim() || !shown(it) || isNone) continue;
  const style = getComputedStyle(it);
  const back = behind(it);
  if (!back || style.opacity !== '1') continue;
  const [a, b] = [light(style.color), light(back)].sort((x, y) => y - x);
  const ratio = (a + 0.05) / (b + 0.05);
  const isSign = !/[\p{L}\p{N}]/u.test(text.data);
  const least = isSign || parseFloat(style.fontSize) >= 24 ? 3 : 4.5;
  if (ratio < least) faults.push(`contrast ${ratio.toFixed(2)}: ${text.data.trim()}`);
}
return faults;
"##;

#[test]
fn a_death_is_seen_and_proved_and_a_lost_node_replaced() {
    let Some(browser) = Browser::start(ports(), DESK) else { return };
    let mut scene = Scene::up(3, 6, NO_GOSSIP);
    let asked = scene.peers()[0];
    browser.open(&page(asked));
    browser.wait("document.querySelectorAll('[data-node][data-state=alive]').length === 6");
    assert!(browser.text("#view-fleet").contains("of 3 seeds"), "{}", browser.text("#view-fleet"));

    // Of a neighbor of the asked node, which suspects it.
    let neighbors = scene.status(asked)["neighbors"].clone();
    let victim = neighbors.as_object().and_then(|it| it.keys().next().cloned()).expect("one");
    browser.run(WATCH);
    scene.fleet.kill(victim.parse().expect("an address")).expect("it runs");
    browser.wait(&format!("window.seen[{0}]?.has('suspected')", json!(victim)));
    browser.wait(&format!("window.seen[{0}]?.has('removed')", json!(victim)));

    // Who found it dead, who voted, and that the signatures hold: by a link that can be sent.
    browser.open(&format!("{}#/decisions?node={victim}", page(asked)));
    let decision = "[data-decision^='remove-']";
    browser.wait(&format!("document.querySelector(\"{decision}\")"));
    browser.click(&format!("{decision} summary"));
    browser.wait(&format!("document.querySelector(\"{decision}\").open"));
    let proof = browser.text(decision);
    for wanted in ["Accused by", "Confirmed by", "voted yes", "removed"] {
        assert!(proof.contains(wanted), "{wanted}: {proof}");
    }
    assert!(proof.to_lowercase().contains("valid") && !proof.contains("not valid"), "{proof}");
    let link = format!("document.querySelector(\"{decision} a[href*='#/decision/']\").href");
    let link = browser.run(&format!("return {link};"));
    browser.open("about:blank");
    browser.open(link.as_str().expect("a link"));
    browser.wait(&format!("document.querySelector(\"{decision}\")?.open"));
    assert_eq!(browser.errors(), Vec::<String>::new());

    // The page goes to another node when its own has gone.
    browser.open(&page(asked));
    browser.wait("document.querySelectorAll('[data-node][data-state=alive]').length === 5");
    scene.fleet.kill(asked).expect("it runs");
    browser.wait("!document.querySelector('#banner').hidden");
    browser.wait(&format!("location.host !== {}", json!(asked.to_string())));
    browser.wait("document.querySelectorAll('[data-node][data-state=alive]').length === 4");
}

/// Three nodes, each with a chat and rollouts, in a fleet of three seeds.
fn three() -> (Nodes, Seeds) {
    let mut nodes = Nodes::lay_out(3);
    let seeds = Seeds::start(nodes.dir(), nodes.port("node-a") + 20);
    for (name, id) in nodes.names().into_iter().zip(["1", "2", "3"]) {
        nodes.start_alone(name, &["--chat", id]);
    }
    nodes.wait("all have begun", |it| {
        it.names()
            .iter()
            .all(|name| it.standing(name)["roster"]["nodes"].as_array().map(Vec::len) == Some(3))
    });
    nodes.await_ready();
    (nodes, seeds)
}

#[test]
fn people_write_and_roll_out_from_the_page() {
    let Some(browser) = Browser::start(ports(), DESK) else { return };
    let (nodes, _seeds) = three();
    let at = Endpoint::new([127, 0, 0, 1].into(), nodes.port("node-a"));
    let evil = "<img src=x onerror=document.title='bad'>";

    browser.open(&format!("{}#/log", page(at)));
    browser.wait(
        "document.querySelector('#chat-text') && !document.querySelector('#chat-text').disabled",
    );
    browser.type_into("#chat-text", evil);
    browser.click("#chat-send");
    browser.wait("document.querySelector('#view-log').innerText.includes('<img src=x')");
    let (code, told, _) = run(&peer_exe(), &["chat", "history", "--id", "2"], nodes.dir());
    assert!(code == Some(0) && told.contains("<img src=x"), "{told}");
    browser.reload();
    browser.wait("document.querySelector('#view-log').innerText.includes('<img src=x')");
    let (code, _, err) =
        run(&peer_exe(), &["chat", "send", "--id", "3", "--wait", "30s", "from afar"], nodes.dir());
    assert_eq!(code, Some(0), "{err}");
    browser.wait("document.querySelector('#view-log').innerText.includes('from afar')");
    assert_ne!(browser.run("return document.title;"), "bad");

    browser.open(&format!("{}#/rollouts", page(at)));
    assert_eq!(nodes.begin("node-c", ("v1", "v2"), 500)["answer"], "committed");
    browser.wait("document.querySelector('#view-rollouts').innerText.includes('v1 → v2')");
    browser.wait("!document.querySelector('[data-act=promote]').disabled");
    browser.click("[data-act=promote]");
    browser.click("#confirm-yes");
    nodes.wait("the step is taken everywhere", |it| {
        it.names().iter().all(|name| it.standing(name)["state"]["weights"]["v2"] == 1.0)
    });
    browser.wait("document.querySelectorAll('#view-rollouts tbody tr').length === 3");
    assert_eq!(browser.errors(), Vec::<String>::new());
}

#[test]
fn each_view_fits_a_phone_and_can_be_used_without_eyes_or_hands() {
    let Some(browser) = Browser::start(ports(), PHONE) else { return };
    let scene = Scene::up(3, 5, NO_GOSSIP);
    let asked = scene.peers()[0];
    for scheme in ["light", "dark"] {
        browser.prefers(scheme);
        for view in VIEWS {
            browser.open("about:blank");
            browser.open(&format!("{}#/{view}", page(asked)));
            browser.wait(&format!("!document.querySelector('#view-{view}').hidden"));
            browser.wait("document.querySelector('#who-name').innerText.length > 3");
            let width = browser.run("return document.documentElement.scrollWidth;");
            assert!(width.as_u64() <= Some(u64::from(PHONE.0)), "{view}: {width}");
            let faults = browser.run(FAULTS);
            assert_eq!(faults, Value::Array(Vec::new()), "{view}, {scheme}");
        }
    }
    // With the keys alone: each step of the tabulator reaches something, and the way shows.
    browser.open(&format!("{}#/fleet", page(asked)));
    browser.wait("document.querySelectorAll('[data-node]').length === 5");
    let mut reached = std::collections::BTreeSet::new();
    for _ in 0..25 {
        browser.key("\u{e004}");
        let at = browser.run(
            "const it = document.activeElement; return it.tagName + ' ' + (it.id || it.innerText);",
        );
        let outline = browser.run(
            "const style = getComputedStyle(document.activeElement);
             return style.outlineStyle !== 'none' || style.boxShadow !== 'none';",
        );
        assert_eq!(outline, true, "the focus shows at {at}");
        reached.insert(at.to_string());
    }
    assert!(reached.len() >= 12, "{reached:?}");
    assert_eq!(browser.errors(), Vec::<String>::new());
}

/// Takes the pictures of the documents, if it is told where to: `docs/pictures/make` does.
#[test]
fn pictures_of_the_documents() {
    let Some(to) = std::env::var_os("FOLKMOOT_PICTURES").map(std::path::PathBuf::from) else {
        return;
    };
    let browser = Browser::start(ports(), (1280, 800)).expect("Chromium is installed");
    let mut scene = Scene::up(3, 16, "--gossip-interval 1s --gossip-max 100");
    let asked = scene.peers()[0];
    browser.prefers("light");
    browser.open(&page(asked));
    browser.wait("document.querySelectorAll('[data-node][data-state=alive]').length === 16");
    let neighbors = scene.status(asked)["neighbors"].clone();
    let victim = neighbors.as_object().and_then(|it| it.keys().next_back().cloned());
    let victim = victim.expect("a neighbor");
    browser.run(WATCH);
    scene.fleet.kill(victim.parse().expect("an address")).expect("it runs");
    browser.wait(&format!("window.seen[{}]?.has('removed')", json!(victim)));
    browser.picture(&to.join("fleet.png"));
    browser.open(&format!("{}#/decisions?node={victim}", page(asked)));
    browser.click("[data-decision^='remove-'] summary");
    browser.wait("document.querySelector(\"[data-decision^='remove-']\").open");
    browser.picture(&to.join("decision.png"));
    drop(scene);

    let (nodes, _seeds) = three();
    let at = Endpoint::new([127, 0, 0, 1].into(), nodes.port("node-a"));
    browser.prefers("dark");
    for (id, text) in [("1", "v2 is ready on all three"), ("2", "start it"), ("3", "watching p95")]
    {
        let args = ["chat", "send", "--id", id, "--wait", "30s", text];
        assert_eq!(run(&peer_exe(), &args, nodes.dir()).0, Some(0));
    }
    assert_eq!(nodes.begin("node-c", ("v1", "v2"), 500)["answer"], "committed");
    for (view, sign, name) in
        [("log", "watching p95", "chat.png"), ("rollouts", "v1 → v2", "rollout.png")]
    {
        browser.open("about:blank");
        browser.open(&format!("{}#/{view}", page(at)));
        browser
            .wait(&format!("document.querySelector('main').innerText.includes({})", json!(sign)));
        browser.picture(&to.join(name));
    }
}
