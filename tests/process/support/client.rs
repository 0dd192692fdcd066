//! A raw client of the native dialect: it says anything, whole or in pieces, true or not.

use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpStream;

use folkmoot::model::Endpoint;
use folkmoot::proto::line::encode;
use folkmoot::proto::message::Message;
use folkmoot::proto::refusal::ErrorReply;

use super::PATIENCE;

/// One connection.
pub struct Client {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
}

impl Client {
    /// Connects.
    #[track_caller]
    pub fn connect(to: Endpoint) -> Self {
        let stream = TcpStream::connect_timeout(&to.socket_addr(), PATIENCE).expect("it listens");
        Self::over(stream)
    }

    /// Speaks over an accepted connection.
    pub fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("a socket takes options");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket takes options");
        stream.set_write_timeout(Some(PATIENCE)).expect("a socket takes options");
        let reader = BufReader::new(stream.try_clone().expect("a socket can be shared"));
        Self { stream, reader }
    }

    /// The socket itself.
    pub const fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Sends bytes; an error says that the other end has closed, which it may.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends a message.
    pub fn send(&mut self, msg: impl Into<Message>) {
        // A closed connection shows in what comes back.
        let _ = self.write(&encode(&msg.into()));
    }

    /// Says that nothing more will come.
    pub fn finish(&self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Write);
    }

    /// The next line, or `None` at the end of the connection.
    #[track_caller]
    pub fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(0) => None,
            Ok(_) => Some(line),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => None,
            Err(error) => panic!("no answer: {error}"),
        }
    }

    /// The next message, or `None` at the end of the connection.
    #[track_caller]
    pub fn receive(&mut self) -> Option<Message> {
        self.line().map(|line| serde_json::from_str(&line).expect("answers are messages"))
    }

    /// The refusal that must come next.
    #[track_caller]
    pub fn refusal(&mut self) -> ErrorReply {
        match self.receive() {
            Some(Message::Error(error)) => error,
            other => panic!("not refused: {other:?}"),
        }
    }

    /// Everything that comes until the other end closes.
    #[track_caller]
    pub fn rest(&mut self) -> Vec<Message> {
        std::iter::from_fn(|| self.receive()).collect()
    }
}
