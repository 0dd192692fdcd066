//! Files of the page for browsers: hand-written modules, which load nothing from elsewhere.

use std::sync::OnceLock;

use hyper::body::Bytes;
use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH,
    REFERRER_POLICY,
};
use hyper::{Response, StatusCode};

use crate::model::SigningBytes;
use crate::runtime::web::refusal::own;

/// Content security policy of the page: its own scripts and styles, no code or style in the text of
/// the page. Connections may go to other nodes, which the page looks for when its own has gone.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
                      img-src 'self' data:; connect-src 'self' http: https:; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";

/// Directory of the files.
const DIR: &str = "/-/folkmoot/page/";

/// File of the page.
#[derive(Debug)]
pub(in crate::cli) struct Asset {
    name: &'static str,
    kind: &'static str,
    text: &'static str,
}

macro_rules! assets {
    ($($name:literal: $kind:ident,)*) => {
        &[$(Asset { name: $name, kind: $kind, text: include_str!(concat!("page/", $name)) },)*]
    };
}

const HTML: &str = "text/html; charset=utf-8";

const SCRIPT: &str = "text/javascript; charset=utf-8";

const STYLE: &str = "text/css; charset=utf-8";

const PICTURE: &str = "image/svg+xml";

static ASSETS: &[Asset] = assets! {
    "app.js": SCRIPT,
    "connection.js": SCRIPT,
    "decisions.js": SCRIPT,
    "dom.js": SCRIPT,
    "files.js": SCRIPT,
    "fleet.js": SCRIPT,
    "graph.js": SCRIPT,
    "icon.svg": PICTURE,
    "index.html": HTML,
    "layout.js": SCRIPT,
    "log.js": SCRIPT,
    "messages.js": SCRIPT,
    "model.js": SCRIPT,
    "node.js": SCRIPT,
    "player.js": SCRIPT,
    "rollouts.js": SCRIPT,
    "style.css": STYLE,
};

/// The file at this path: `/` is the page itself.
pub(in crate::cli) fn asset(path: &str) -> Option<&'static Asset> {
    let name = if path == "/" { "index.html" } else { path.strip_prefix(DIR)? };
    ASSETS.iter().find(|it| it.name == name)
}

/// Name of the state of all files, so that a browser loads them again after an upgrade only.
fn version() -> &'static str {
    static VERSION: OnceLock<String> = OnceLock::new();
    VERSION.get_or_init(|| {
        let mut all = SigningBytes::new("folkmoot/page/1");
        for asset in ASSETS {
            all = all.bytes(asset.text.as_bytes());
        }
        format!("\"{}\"", hex::encode(&all.sha256()[..8]))
    })
}

/// Answer with the page that plays a recorded run. It is made of the same files.
pub(in crate::cli) fn player() -> Response<Bytes> {
    const MARK: &str = "<meta name=\"folkmoot-player\" content=\"1\">\n<title>";
    let page = asset("/").expect("it is built in");
    guarded(own(200, page.kind, page.text.replacen("<title>", MARK, 1)))
}

/// The answer with what a browser may do with it.
fn guarded(mut answer: Response<Bytes>) -> Response<Bytes> {
    let headers = answer.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    answer
}

impl Asset {
    /// Answer with the file, or 304 if the client has it.
    pub(in crate::cli) fn answer(&self, request: &HeaderMap) -> Response<Bytes> {
        let is_known = request.get(IF_NONE_MATCH).is_some_and(|it| it == version());
        let text = if is_known { "" } else { self.text };
        let mut answer = own(200, self.kind, text);
        if is_known {
            *answer.status_mut() = StatusCode::NOT_MODIFIED;
        }
        let headers = answer.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        if let Ok(version) = HeaderValue::from_str(version()) {
            headers.insert(ETAG, version);
        }
        guarded(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_small_and_loads_nothing_from_elsewhere() {
        let size: usize = ASSETS.iter().map(|it| it.text.len()).sum();
        assert!(size < 150_000, "{size} bytes");
        for Asset { name, text, .. } in ASSETS {
            for foreign in
                ["src=\"http", "href=\"http", "from \"http", "url(", "innerHTML", "eval("]
            {
                assert!(!text.contains(foreign), "{name} has {foreign}");
            }
        }
        let page = asset("/").expect("it is there").text;
        assert!(!page.contains("style=") && !page.contains("<style") && !page.contains(" onclick"));
        for script in page.split("<script").skip(1) {
            assert!(script.contains("src=\"/-/folkmoot/page/"), "no code in the page: {script}");
        }
    }

    #[test]
    fn each_file_that_is_asked_for_is_there() {
        for asset in ASSETS {
            let imports = asset
                .text
                .split("from \"./")
                .skip(1)
                .chain(asset.text.split("\"/-/folkmoot/page/").skip(1));
            for import in imports {
                let name = import.split('"').next().unwrap_or_default();
                let path = format!("{DIR}{name}");
                assert!(super::asset(&path).is_some(), "{} asks for {name}", asset.name);
            }
        }
        assert!(asset("/-/folkmoot/page/").is_none() && asset("/x").is_none());
    }

    #[test]
    fn a_file_that_the_browser_has_is_not_sent_again() {
        let page = asset("/").expect("it is there");
        let first = page.answer(&HeaderMap::new());
        let mut request = HeaderMap::new();
        request.insert(IF_NONE_MATCH, first.headers()[ETAG].clone());
        let again = page.answer(&request);
        assert_eq!((first.status().as_u16(), again.status().as_u16()), (200, 304));
        assert!(again.body().is_empty());
    }
}
