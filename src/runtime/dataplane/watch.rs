//! Watch over the servers: those that could not be reached, or say when they are ready, are asked
//! beside the requests.

use std::sync::Arc;
use std::time::Duration;

use super::Shared;
use super::pool::Server;
use crate::runtime::web::client::exchange;

/// Interval between two looks at a server.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Time-out of an answer.
const WITHIN: Duration = Duration::from_secs(2);

/// Time-out of a version's answer before a vote: votes have two seconds.
const PROBE_WITHIN: Duration = Duration::from_millis(1500);

/// Looks at all servers until the data plane ends.
pub(super) async fn run(shared: Arc<Shared>) {
    loop {
        let versions = shared.versions();
        let mut looks = tokio::task::JoinSet::new();
        for server in versions.values().flat_map(|it| &it.servers) {
            server.tidy(false);
            let server = Arc::clone(server);
            let ready_path = shared.ready_path.clone();
            if ready_path.is_some() || server.is_lost() {
                looks.spawn(async move { look(&server, ready_path.as_deref()).await });
            }
        }
        drop(versions);
        looks.join_all().await;
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn look(server: &Server, ready_path: Option<&str>) {
    let Some(path) = ready_path else {
        let called = server.connector.connect::<super::request_body::RequestBody>(WITHIN).await;
        server.set_ready(called.is_ok().then_some(true));
        return;
    };
    let answer = exchange(&server.connector, &server.address, path, None, WITHIN).await;
    server.set_ready(answer.ok().map(|it| (200..300).contains(&it.status)));
}

/// Asks a server whether it can answer.
pub(super) async fn probe(server: &Server, ready_path: Option<&str>) -> Result<(), String> {
    let body = ready_path.is_none().then(|| b"{}".to_vec());
    let path = ready_path.unwrap_or("/predict");
    let target = server.address.target(path).filter(|_| ready_path.is_none());
    let target = target.as_deref().unwrap_or(path);
    let asked = exchange(&server.connector, &server.address, target, body, PROBE_WITHIN).await?;
    match asked.status {
        502..=504 => Err(format!("it answers with {}", asked.status)),
        200..=299 => Ok(()),
        _ if ready_path.is_none() => Ok(()),
        status => Err(format!("it answers with {status} at {path}")),
    }
}
