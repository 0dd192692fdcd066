//! Connections of clients, from their arrival to a thread that serves them.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::Shared;
use super::limits::DataPlaneLimits;
use crate::runtime::web::guarded::ConnectionState;
use crate::runtime::web::refusal::Refusal;
use crate::runtime::web::server::{Client, Place, Receive, serve};
use crate::runtime::web::workers::Workers;

/// Receiver of connections, each for the thread with the fewest.
pub(super) fn receiver(shared: &Arc<Shared>, workers: &Arc<Workers>) -> Receive {
    let (shared, workers) = (Arc::clone(shared), Arc::clone(workers));
    let loads: Arc<[AtomicUsize]> = (0..workers.count()).map(|_| AtomicUsize::new(0)).collect();
    Box::new(move |stream, from| {
        let DataPlaneLimits { connections, connections_of_one, .. } = shared.limits;
        let Some(place) = shared.places.take(from.ip(), connections, connections_of_one) else {
            shared.counters.refused_busy.add(1);
            turn_away(&stream);
            return;
        };
        shared.counters.connections.add(1);
        let least = (0..loads.len()).min_by_key(|at| loads[*at].load(Ordering::Relaxed));
        let worker = least.unwrap_or(0);
        loads[worker].fetch_add(1, Ordering::Relaxed);
        let (shared, loads) = (Arc::clone(&shared), Arc::clone(&loads));
        workers.handle(worker).spawn(async move {
            converse(shared, stream, from, worker, place).await;
            loads[worker].fetch_sub(1, Ordering::Relaxed);
        });
    })
}

/// Serves one connection to its end.
async fn converse(
    shared: Arc<Shared>,
    stream: TcpStream,
    from: SocketAddr,
    worker: usize,
    place: Place,
) {
    let made = stream.set_nonblocking(true).and_then(|()| tokio::net::TcpStream::from_std(stream));
    let Ok(stream) = made else { return };
    let _ = stream.set_nodelay(true);
    let limits = &shared.limits;
    let timeouts = limits.timeouts();
    let settings = (timeouts, Arc::clone(&shared.counters.clients));
    let stopping = shared.stopping.subscribe();
    let state = ConnectionState::new();
    match &shared.tls {
        None => {
            let client = Client { from, is_tls: false, worker, state, _place: place };
            serve(stream, client, Arc::clone(&shared), settings, stopping).await;
        }
        Some(tls) => {
            let accepted = tokio::time::timeout(limits.head, tls.acceptor().accept(stream)).await;
            let Ok(Ok(stream)) = accepted else {
                shared.counters.clients.refuse(0);
                return;
            };
            let client = Client { from, is_tls: true, worker, state, _place: place };
            serve(stream, client, Arc::clone(&shared), settings, stopping).await;
        }
    }
}

/// Refuses a connection. It may not cost as much as a served one: no task and no waiting.
fn turn_away(stream: &TcpStream) {
    let body = Refusal::new(503, "busy", "too many connections; try again in a moment").json();
    let text = format!(
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n\
         Retry-After: 1\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let flags = rustix::net::SendFlags::DONTWAIT | rustix::net::SendFlags::NOSIGNAL;
    let _ = rustix::net::send(stream, text.as_bytes(), flags);
}
