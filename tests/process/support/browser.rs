//! A browser that a test drives: Chromium by its driver, over the WebDriver protocol (W3C).
//!
//! A client library would bring 80 crates to each build of the tests; the eight requests that the
//! tests need are here.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::PATIENCE;
use super::process::{Process, eventually};
use super::web::program;

/// Key of an element in the protocol.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// An open browser without a window.
pub struct Browser {
    driver: Process,
    port: u16,
    session: String,
    _files: TempDir,
}

impl Browser {
    /// Starts a browser with a window of this size; `None` where it is not installed, which the
    /// test says.
    pub fn start(port: u16, (width, height): (u32, u32)) -> Option<Self> {
        let (chromium, exe) = (program("chromium")?, program("chromedriver")?);
        let files = tempfile::tempdir().expect("a directory can be made");
        let driver = Process::start(&exe, &[&format!("--port={port}")], files.path());
        let mut browser = Self { driver, port, session: String::new(), _files: files };
        let is_up = eventually(|| TcpStream::connect(("127.0.0.1", port)).is_ok());
        assert!(is_up, "{}", browser.driver.err());
        let profile = browser._files.path().join("profile");
        let args = [
            "--headless".to_owned(),
            "--no-sandbox".to_owned(),
            "--disable-gpu".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            "--no-first-run".to_owned(),
            format!("--user-data-dir={}", profile.display()),
            format!("--window-size={width},{height}"),
        ];
        let options = json!({ "binary": chromium, "args": args });
        let wanted = json!({
            "browserName": "chrome", "goog:chromeOptions": options,
            "goog:loggingPrefs": { "browser": "ALL" },
        });
        let made = browser.send("POST", "", &json!({ "capabilities": { "alwaysMatch": wanted } }));
        browser.session = format!("/{}", made["sessionId"].as_str().expect("a session"));
        // A headless window has no frame, but its least width is 500: the page is told another.
        let metrics = json!({
            "cmd": "Emulation.setDeviceMetricsOverride",
            "params": {
                "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500,
            },
        });
        browser.send("POST", "/goog/cdp/execute", &metrics);
        Some(browser)
    }

    #[track_caller]
    fn send(&self, method: &str, path: &str, body: &Value) -> Value {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("the driver listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket takes a time-out");
        let body = if method == "POST" { body.to_string() } else { String::new() };
        let session = &self.session;
        let request = format!(
            "{method} /session{session}{path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            self.port,
            body.len()
        );
        stream.write_all(request.as_bytes()).expect("the driver reads");
        // The driver does not close the connection: the length says where its answer ends.
        let mut reader = BufReader::new(stream);
        let mut len = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).expect("the driver answers");
            let line = line.trim_end().to_ascii_lowercase();
            if let Some(number) = line.strip_prefix("content-length:") {
                len = number.trim().parse().expect("a number");
            }
            if line.is_empty() {
                break;
            }
        }
        let mut answer = vec![0; len];
        reader.read_exact(&mut answer).expect("the driver answers");
        let mut value: Value = serde_json::from_slice(&answer).expect("JSON");
        let value = value["value"].take();
        assert!(value.get("error").is_none(), "{path} {request}: {value}");
        value
    }

    /// Opens a page.
    #[track_caller]
    pub fn open(&self, url: &str) {
        self.send("POST", "/url", &json!({ "url": url }));
    }

    /// Loads the page again.
    pub fn reload(&self) {
        self.send("POST", "/refresh", &json!({}));
    }

    /// Address that is shown.
    pub fn url(&self) -> String {
        self.send("GET", "/url", &json!({})).as_str().unwrap_or_default().to_owned()
    }

    /// Value of a script, which is the body of a function.
    #[track_caller]
    pub fn run(&self, script: &str) -> Value {
        self.send("POST", "/execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// Waits until a script, the value of an expression, is true.
    #[track_caller]
    pub fn wait(&self, expression: &str) {
        let script = format!("return Boolean({expression});");
        if !eventually(|| self.run(&script) == true) {
            panic!("never: {expression}\n{}\n{:?}", self.text("body"), self.errors());
        }
    }

    fn element(&self, css: &str) -> String {
        self.wait(&format!("document.querySelector({})", json!(css)));
        let found =
            self.send("POST", "/element", &json!({ "using": "css selector", "value": css }));
        found[ELEMENT].as_str().expect("an element").to_owned()
    }

    /// Clicks the first element of this selector, as a person would: it must be in sight.
    #[track_caller]
    pub fn click(&self, css: &str) {
        let element = self.element(css);
        self.send("POST", &format!("/element/{element}/click"), &json!({}));
    }

    /// Types into an element.
    #[track_caller]
    pub fn type_into(&self, css: &str, text: &str) {
        let element = self.element(css);
        self.send("POST", &format!("/element/{element}/value"), &json!({ "text": text }));
    }

    /// Presses a key, of the protocol's names.
    pub fn key(&self, key: &str) {
        let press =
            [json!({ "type": "keyDown", "value": key }), json!({ "type": "keyUp", "value": key })];
        let actions = [json!({ "type": "key", "id": "keys", "actions": press })];
        self.send("POST", "/actions", &json!({ "actions": actions }));
    }

    /// Sets the colors that its user prefers: `light` or `dark`.
    pub fn prefers(&self, scheme: &str) {
        let features = [json!({ "name": "prefers-color-scheme", "value": scheme })];
        let media =
            json!({ "cmd": "Emulation.setEmulatedMedia", "params": { "features": features } });
        self.send("POST", "/goog/cdp/execute", &media);
    }

    /// Text of an element, as it is shown.
    #[track_caller]
    pub fn text(&self, css: &str) -> String {
        let script = format!("return document.querySelector({})?.innerText ?? '';", json!(css));
        self.run(&script).as_str().unwrap_or_default().to_owned()
    }

    /// Errors and warnings that the page has caused since the last call.
    pub fn errors(&self) -> Vec<String> {
        let lines = self.send("POST", "/se/log", &json!({ "type": "browser" }));
        let lines = lines.as_array().cloned().unwrap_or_default();
        let is_bad = |it: &Value| it["level"] == "SEVERE" || it["level"] == "WARNING";
        lines.iter().filter(|it| is_bad(it)).map(|it| it["message"].to_string()).collect()
    }

    /// Writes a picture of what is shown.
    pub fn picture(&self, to: &std::path::Path) {
        use base64::Engine as _;
        let picture = self.send("GET", "/screenshot", &json!({}));
        let picture = picture.as_str().unwrap_or_default();
        let bytes = base64::engine::general_purpose::STANDARD.decode(picture).expect("base64");
        std::fs::write(to, bytes).expect("it can be written");
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver ends the browser with the session; a killed driver would leave it running.
        if !self.session.is_empty() && !std::thread::panicking() {
            self.send("DELETE", "", &json!({}));
        } else if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) {
            let session = &self.session;
            let _ = write!(
                stream,
                "DELETE /session{session} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
            );
            let _ = stream.read(&mut [0; 512]);
        }
    }
}
