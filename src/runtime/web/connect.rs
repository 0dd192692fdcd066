//! Connections to a server: all addresses of its name are tried within the time for it (RFC 8305),
//! then TLS is agreed on.

use std::error::Error;
use std::io::{self, ErrorKind, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body, Bytes};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName as TlsName;

use super::address::Upstream;
use super::resolver::ServerName;
use super::tls::Trust;

/// Time after which the next address is tried while the last has not answered (RFC 8305, 5).
const NEXT_ADDRESS: Duration = Duration::from_millis(250);

/// Body of a request that is sent.
pub(crate) trait SentBody:
    Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + Unpin + 'static
{
}

impl<B> SentBody for B where
    B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + Unpin + 'static
{
}

/// Connection to a server; ends when dropped, in the middle of whatever it does.
pub(crate) struct Wire<B> {
    /// Sender of requests.
    pub(crate) sender: SendRequest<B>,
    task: AbortHandle,
}

impl<B> Drop for Wire<B> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Maker of connections to one server.
pub(crate) struct Connector {
    name: Arc<ServerName>,
    /// TLS, with the name that the certificate must have.
    tls: Option<(TlsConnector, TlsName<'static>)>,
}

impl Connector {
    /// A maker of connections to `server`.
    ///
    /// # Errors
    /// Fails if the server is asked by TLS, and its host cannot be in a certificate or nobody is
    /// trusted.
    pub(crate) fn new(server: &Upstream, trust: &Trust) -> Result<Self, String> {
        let name = ServerName::new(server.host(), server.port());
        let tls = match server.is_tls() {
            false => None,
            true => {
                let name = TlsName::try_from(server.host().to_owned());
                let name = name.map_err(|_| format!("{server} has no name for TLS"))?;
                Some((trust.connector()?, name))
            }
        };
        Ok(Self { name, tls })
    }

    /// Connects, and begins HTTP/1.1.
    ///
    /// # Errors
    /// Fails with the reason, for people, if that does not succeed within the time.
    pub(crate) async fn connect<B: SentBody>(&self, within: Duration) -> Result<Wire<B>, String> {
        let late = || format!("it cannot be reached within {within:?}");
        tokio::time::timeout(within, self.try_to_connect()).await.unwrap_or_else(|_| Err(late()))
    }

    async fn try_to_connect<B: SentBody>(&self) -> Result<Wire<B>, String> {
        let stream = self.reach().await?;
        match &self.tls {
            None => begin(stream).await,
            Some((tls, name)) => {
                let stream = tls.connect(name.clone(), stream).await;
                begin(stream.map_err(|error| format!("TLS with it failed: {error}"))?).await
            }
        }
    }

    /// Calls all addresses, each a moment after the one before or as soon as that has failed; the
    /// first that answers wins.
    async fn reach(&self) -> Result<TcpStream, String> {
        let addresses = self.name.addresses().await?;
        if let [address] = addresses[..] {
            return open(address).await.map_err(|error| format!("{address}: {error}"));
        }
        let (mut calls, mut faults) = (JoinSet::new(), Vec::new());
        let mut rest = addresses.into_iter();
        loop {
            let is_last = match rest.next() {
                Some(address) => {
                    calls.spawn(async move { open(address).await.map_err(|it| (address, it)) });
                    false
                }
                None => true,
            };
            let next = tokio::time::sleep(NEXT_ADDRESS);
            tokio::pin!(next);
            loop {
                tokio::select! {
                    biased;
                    joined = calls.join_next() => match joined {
                        Some(Ok(Ok(stream))) => return Ok(stream),
                        Some(Ok(Err((address, error)))) => {
                            faults.push(format!("{address}: {error}"));
                            if !is_last {
                                break;
                            }
                        }
                        Some(Err(_)) => {}
                        None if is_last => return Err(faults.join("; ")),
                        None => break,
                    },
                    () = next.as_mut(), if !is_last => break,
                }
            }
        }
    }
}

/// A socket that is still read when it takes no more bytes: a server that answers before it has
/// read the request, and closes, is heard.
struct Patient<S> {
    stream: S,
    /// True if the other end takes no more bytes; those written since are lost.
    is_ended: bool,
}

impl<S> Patient<S> {
    fn bear<T>(&mut self, written: Poll<io::Result<T>>, instead: T) -> Poll<io::Result<T>> {
        match written {
            Poll::Ready(Err(error)) if is_end(&error) => {
                self.is_ended = true;
                Poll::Ready(Ok(instead))
            }
            Poll::Ready(_) | Poll::Pending => written,
        }
    }
}

fn is_end(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_ended {
            return Poll::Ready(Ok(buf.len()));
        }
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.bear(written, buf.len())
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let len = bufs.iter().map(|it| it.len()).sum();
        if self.is_ended {
            return Poll::Ready(Ok(len));
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.bear(written, len)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.bear(flushed, ())
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.bear(shut, ())
    }
}

async fn open(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn begin<S, B>(stream: S) -> Result<Wire<B>, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    B: SentBody,
{
    let mut builder = http1::Builder::new();
    builder.title_case_headers(true).max_headers(200);
    let begun = builder.handshake(TokioIo::new(Patient { stream, is_ended: false })).await;
    let (sender, connection) = begun.map_err(|error| error.to_string())?;
    // Its faults are those of its requests.
    let task = tokio::spawn(async move { drop(connection.with_upgrades().await) });
    Ok(Wire { sender, task: task.abort_handle() })
}
