//! The feeds that pages and programs are built on: the fleet, its events, and orders.

use crate::support;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;

use folkmoot::model::Endpoint;
use serde_json::{Value, json};
use support::{NO_GOSSIP, PATIENCE, Scene};

/// Sends a request and reads the answer to its end: the status, and the body.
#[track_caller]
fn ask(node: Endpoint, line: &str, headers: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect((node.ip(), node.port())).expect("the port is open");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket takes a time-out");
    let len = body.len();
    let request = format!(
        "{line} HTTP/1.1\r\nConnection: close\r\nContent-Length: {len}\r\n{headers}\r\n{body}"
    );
    stream.write_all(request.as_bytes()).expect("the node reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the answer is text and ends");
    let status = answer.split(' ').nth(1).and_then(|it| it.parse().ok()).expect("a status");
    let body = answer.split_once("\r\n\r\n").map_or("", |it| it.1);
    (status, body.to_owned())
}

#[track_caller]
fn fleet(node: Endpoint) -> Value {
    let (status, body) = ask(node, "GET /-/folkmoot/fleet", &format!("Host: {node}\r\n"), "");
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).expect("JSON")
}

/// An open stream of events.
struct Stream(BufReader<TcpStream>);

/// An event: its id, its name, its data.
type Event = (String, String, Value);

impl Stream {
    fn open(node: Endpoint, after: &str) -> Self {
        let mut stream = TcpStream::connect((node.ip(), node.port())).expect("the port is open");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket takes a time-out");
        let request = format!(
            "GET /-/folkmoot/events HTTP/1.1\r\nHost: {node}\r\nLast-Event-ID: {after}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).expect("the node reads");
        Self(BufReader::new(stream))
    }

    /// The next event that is looked for.
    #[track_caller]
    fn until(&mut self, is_it: impl Fn(&Event) -> bool) -> Event {
        let mut event = (String::new(), String::new(), Value::Null);
        loop {
            let mut line = String::new();
            let read = self.0.read_line(&mut line).expect("it comes in time");
            assert!(read > 0, "the stream ended");
            let line = line.trim_end();
            if let Some(id) = line.strip_prefix("id: ") {
                event.0 = id.to_owned();
            } else if let Some(name) = line.strip_prefix("event: ") {
                event.1 = name.to_owned();
            } else if let Some(data) = line.strip_prefix("data: ") {
                event.2 = serde_json::from_str(data).expect("JSON");
                if is_it(&event) {
                    return event;
                }
            }
        }
    }
}

fn is_log(event: &Event, name: &str) -> bool {
    event.1 == "log" && event.2["event"] == name
}

#[test]
fn each_node_tells_the_whole_fleet_and_a_reader_goes_on_where_it_was() {
    let mut scene = Scene::up(3, 5, NO_GOSSIP);
    for node in [scene.seeds(), scene.peers()].concat() {
        let it = fleet(node);
        assert_eq!((&it["version"], &it["node"]["endpoint"]), (&json!(1), &json!(node)));
        assert_eq!(it["members"].as_array().map(Vec::len), Some(5), "{it}");
        assert_eq!(it["decisions"].as_array().map(Vec::len), Some(5), "{it}");
        assert!(it["decisions"].as_array().unwrap().iter().all(|it| it["valid"] == true), "{it}");
        assert_eq!((&it["quorum"]["needed"], &it["may_act"]), (&json!(2), &json!(true)));
    }
    let asked = scene.peers()[0];
    let it = fleet(asked);
    let is_own = |it: &&Value| it["a"] == json!(asked) || it["b"] == json!(asked);
    let link = it["links"].as_array().unwrap().iter().find(is_own).expect("a link").clone();
    let victim = if link["a"] == json!(asked) { &link["b"] } else { &link["a"] };
    let at = format!("{}-{}", it["feed"]["epoch"].as_str().unwrap(), it["feed"]["last"]);
    let mut stream = Stream::open(asked, &at);
    scene.fleet.kill(victim.as_str().unwrap().parse().unwrap()).expect("it runs");
    let suspected =
        stream.until(|it| is_log(it, "suspected") && it.2["fields"]["endpoint"] == *victim);
    let removed = stream.until(|it| is_log(it, "removed") && it.2["fields"]["endpoint"] == *victim);
    drop(stream);
    // After a lost connection nothing is missing, and nothing comes twice.
    let again = Stream::open(asked, &suspected.0).until(|it| is_log(it, "removed"));
    assert_eq!(again, removed);
    let reset = Stream::open(asked, "another-7").until(|it| it.1 == "reset");
    assert!(reset.2["last"].as_u64() > Some(0));
    // A stop ends the streams in an orderly way.
    let mut stream = Stream::open(asked, &removed.0);
    assert_eq!(scene.fleet.stop(asked, PATIENCE).expect("it runs"), Some(0));
    stream.until(|it| it.1 == "end");
}

#[test]
fn orders_come_from_this_machines_user_and_from_no_other_site() {
    let scene = Scene::up(1, 1, NO_GOSSIP);
    let node = scene.peers()[0];
    let host = format!("Host: {node}\r\n");
    let own = "X-Folkmoot: 1\r\nContent-Type: application/json\r\n";
    let say = |headers: &str, body: &str| ask(node, "POST /-/folkmoot/chat/say", headers, body);
    for (headers, status) in [
        (format!("{host}{own}"), 404), // Taken, and there is no chat.
        (format!("{host}{own}Origin: http://{node}\r\n"), 404),
        (format!("{host}{own}Origin: http://evil.example\r\n"), 403),
        (format!("{host}{own}Origin: null\r\n"), 403),
        (format!("Host: evil.example\r\n{own}"), 403),
        (format!("{host}Content-Type: application/json\r\n"), 403),
        (format!("{host}X-Folkmoot: 1\r\nContent-Type: text/plain\r\n"), 415),
    ] {
        let (told, body) = say(&headers, "{\"text\":\"hello\"}");
        assert_eq!(told, status, "{headers}: {body}");
    }
    let headers = format!("{host}{own}");
    assert_eq!(say(&headers, &"x".repeat(65 * 1024)).0, 413);
    for line in ["GET /-/folkmoot/chat/say", "POST /-/folkmoot/fleet", "POST /-/folkmoot/events"] {
        assert_eq!(ask(node, line, &headers, "{}").0, 405, "{line}");
    }
    let (status, body) = ask(node, "POST /-/folkmoot/rollout/explode", &headers, "{}");
    assert_eq!(status, 404, "{body}");
    let rebound = ask(node, "GET /-/folkmoot/fleet", "Host: evil.example\r\n", "").1;
    let rebound: Value = serde_json::from_str(&rebound).expect("it may be read");
    assert_eq!(rebound["may_act"], false);
}
