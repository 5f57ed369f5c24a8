//! The running tasks of Dify, which a stop call can end.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::gate::Gate;

/// All running tasks.
#[derive(Debug, Clone, Default)]
pub(super) struct Stops(Arc<Mutex<HashMap<String, Gate>>>);

impl Stops {
    /// This task runs until what is returned is dropped.
    pub(super) fn enter(&self, task: String) -> Running {
        let gate = Gate::new();
        self.0.lock().insert(task.clone(), gate.clone());
        Running { stops: self.clone(), task, gate }
    }

    /// Asks a task to stop. A task that does not run is ignored.
    pub(super) fn stop(&self, task: &str) {
        if let Some(gate) = self.0.lock().get(task) {
            gate.open();
        }
    }
}

/// A task that runs.
#[derive(Debug)]
pub(super) struct Running {
    stops: Stops,
    task: String,
    gate: Gate,
}

impl Running {
    /// Opens when the task is to stop.
    pub(super) fn gate(&self) -> Gate {
        self.gate.clone()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stops.0.lock().remove(&self.task);
    }
}
