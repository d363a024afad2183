//! What is committed but not yet durable, over what is, and the hand-over when a sync completes.
//!
//! A read takes the layers and what is durable in one step under the lock. A completed sync moves the layer
//! it wrote from the one to the other in one step under the same lock. So a read finds every row, and never an
//! older one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use comity_engine::{Batch, Position, StoreError};

use crate::durable::Durable;
use crate::layer::{Layer, batch_bytes};

/// The answer to a commit at the overlay's bound: nothing was changed, and it may be tried again after a
/// sync.
const OVERLOADED: StoreError = StoreError::Overloaded;

/// The layers over what is durable.
pub(crate) struct Overlay {
    stack: Mutex<Stack>,
    bytes_max: usize,
}

struct Stack {
    active: Arc<Layer>,
    flushing: Option<Arc<Layer>>,
    durable: Arc<Durable>,
    committed: Position,
    synced: Position,
}

/// The layers as they were at one moment, the newest first.
pub(crate) struct View {
    pub(crate) active: Arc<Layer>,
    pub(crate) flushing: Option<Arc<Layer>>,
    pub(crate) durable: Arc<Durable>,
}

/// A layer to be written, and the last batch in it.
pub(crate) struct Flush {
    pub(crate) layer: Arc<Layer>,
    pub(crate) through: Position,
}

/// What waits to be written.
pub(crate) struct Waiting {
    pub(crate) rows: usize,
    pub(crate) bytes: usize,
}

impl Overlay {
    pub(crate) fn new(durable: Arc<Durable>, bytes_max: usize) -> Self {
        let stack = Stack {
            active: Arc::default(),
            flushing: None,
            durable,
            committed: Position(0),
            synced: Position(0),
        };
        Self { stack: Mutex::new(stack), bytes_max }
    }

    /// Adds a batch. The caller is the only one who commits, and holds no view.
    pub(crate) fn commit(&self, batch: Batch) -> Result<Position, StoreError> {
        let mut stack = self.lock();
        let flushing = stack.flushing.as_ref().map_or(0, |layer| layer.bytes());
        let held = stack.active.bytes() + flushing;
        // One batch alone is always taken, however large: refusing it would refuse it for ever.
        if held > 0 && held + batch_bytes(&batch) > self.bytes_max {
            return Err(OVERLOADED);
        }
        let active = Arc::get_mut(&mut stack.active)
            .expect("only the handle that commits takes views of the active layer, and it is borrowed");
        active.apply(batch);
        stack.committed.0 += 1;
        Ok(stack.committed)
    }

    pub(crate) fn view(&self) -> View {
        let stack = self.lock();
        View {
            active: Arc::clone(&stack.active),
            flushing: stack.flushing.clone(),
            durable: Arc::clone(&stack.durable),
        }
    }

    /// What the layers say of a key, `None` where it is deleted; `Err` holds what was durable at the same moment where
    /// they say nothing.
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Arc<Durable>> {
        let stack = self.lock();
        let recent = stack.active.get(key).or_else(|| stack.flushing.as_ref()?.get(key));
        recent.ok_or_else(|| Arc::clone(&stack.durable))
    }

    pub(crate) fn waiting(&self) -> Waiting {
        let stack = self.lock();
        Waiting { rows: stack.active.row_count(), bytes: stack.active.bytes() }
    }

    /// Takes what is to be written next; reads go on seeing it. `Err` holds the position up to which all is
    /// synced when there is nothing to write.
    pub(crate) fn begin_flush(&self) -> Result<Flush, Position> {
        let mut stack = self.lock();
        assert!(stack.flushing.is_none(), "one sync at a time, and none after a failed one");
        if stack.active.is_empty() {
            stack.synced = stack.committed;
            return Err(stack.synced);
        }
        let layer = std::mem::take(&mut stack.active);
        stack.flushing = Some(Arc::clone(&layer));
        Ok(Flush { layer, through: stack.committed })
    }

    /// Moves the written layer to what is durable, which is returned.
    pub(crate) fn end_flush(&self, through: Position) -> Arc<Durable> {
        let mut stack = self.lock();
        if let Some(layer) = stack.flushing.take() {
            stack.durable = Arc::new(stack.durable.with(layer));
        }
        stack.synced = through;
        Arc::clone(&stack.durable)
    }

    /// Goes on over something that holds the same.
    pub(crate) fn rebase(&self, durable: Arc<Durable>) {
        let old = std::mem::replace(&mut self.lock().durable, durable);
        // Freeing many rows takes long; the core waits for the lock meanwhile.
        drop(old);
    }

    fn lock(&self) -> MutexGuard<'_, Stack> {
        // Nothing under the lock leaves the stack half changed but an allocation failure, which aborts.
        self.stack.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
