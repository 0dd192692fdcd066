//! Server of connections of a dialect whose engine may not exist yet.

use std::sync::{Arc, OnceLock};

use crate::runtime::driver::options::{Connection, Serve};

/// Passes connections to a server as soon as there is one; before, they are closed.
#[derive(Default)]
pub(in crate::cli) struct LateServer(OnceLock<Arc<dyn Serve>>);

impl LateServer {
    /// Sets the server of all further connections. The first server stays.
    pub(in crate::cli) fn open(&self, server: Arc<dyn Serve>) {
        let _ = self.0.set(server);
    }
}

impl Serve for LateServer {
    fn serve(&self, connection: Connection) {
        if let Some(server) = self.0.get() {
            server.serve(connection);
        }
    }
}
