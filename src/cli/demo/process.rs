//! A process that a demo has started.

use std::process::{Child, ChildStdin};

/// A running process; killed when dropped.
pub(super) struct DemoProcess {
    pub(super) child: Child,
    pub(super) stdin: Option<ChildStdin>,
}

impl Drop for DemoProcess {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
