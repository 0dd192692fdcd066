//! A question and its answer, over direct messages: `cargo run --release --example request_reply`.
//!
//! The answer comes back as a direct message with the question's number in front. What could not be
//! delivered ends in an error that says so; what nobody can know, too.

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::thread;
use std::time::Duration;

use folkmoot::Network;
use folkmoot::model::Endpoint;
use folkmoot::network::{Incoming, Queue};

const PATIENCE: Duration = Duration::from_secs(30);

/// Answers each question with its text in capitals, until the network stops.
fn serve(network: &Network) -> Result<(), Box<dyn Error>> {
    for question in network.inbox()?.iter() {
        let (number, text) = split(&question)?;
        let answer = format!("{number} {}", text.to_uppercase());
        // Not waited for: the next question must not wait for this one's asker.
        drop(network.send_to_peer(question.from, answer.as_str())?);
    }
    Ok(())
}

/// Asks, and waits for the answer with that number.
fn ask(
    network: &Network,
    answers: &Queue<Incoming>,
    (server, number, text): (Endpoint, u64, &str),
) -> Result<String, Box<dyn Error>> {
    network.send_to_peer(server, format!("{number} {text}").as_str())?.wait()?;
    loop {
        let answer = answers.recv_timeout(PATIENCE)?;
        let (about, text) = split(&answer)?;
        if (answer.from, about) == (server, number) {
            return Ok(text);
        }
    }
}

fn split(message: &Incoming) -> Result<(u64, String), Box<dyn Error>> {
    let text = std::str::from_utf8(&message.data)?;
    let (number, text) = text.split_once(' ').ok_or("no number in front")?;
    Ok((number.parse()?, text.to_owned()))
}

fn main() -> Result<(), Box<dyn Error>> {
    let server = Network::builder().start()?;
    let client = Network::builder().bootstrap([server.endpoint()]).start()?;
    let answers = client.inbox()?;
    client.wait_for_peers(1, PATIENCE)?;
    thread::scope(|scope| {
        let serving = scope.spawn(|| serve(&server).map_err(|it| it.to_string()));
        for (number, text) in (1..).zip(["who is there?", "is anybody dead?", "thank you"]) {
            let answer = ask(&client, &answers, (server.endpoint(), number, text))?;
            println!("{text} -> {answer}");
        }
        server.stop();
        serving.join().expect("the server does not panic")?;
        Ok(())
    })
}
