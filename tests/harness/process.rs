//! Programs that a test starts beside its servers.
//!
//! Owns their end. It must not know what they are.

use std::ops::{Deref, DerefMut};
use std::process::Child;

use rustix::process::{Pid, Signal, kill_process};

/// A process that ends with the test at the latest.
#[derive(Debug)]
pub struct KillOnDrop(pub Child);

impl KillOnDrop {
    /// # Panics
    ///
    /// When the process has ended.
    #[track_caller]
    pub fn signal(&self, kind: Signal) {
        signal(&self.0, kind);
    }
}

/// Sends a signal to a process that is there.
#[track_caller]
pub(crate) fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_child(child);
    kill_process(pid, signal).unwrap_or_else(|e| panic!("signal {signal:?}: {e}"));
}

impl Deref for KillOnDrop {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.0
    }
}

impl DerefMut for KillOnDrop {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        // Fails when it has ended already, which is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
