//! Sessions as the test sees them: two ends, and a wire in each direction with one queue per stream.

use std::collections::{BTreeMap, VecDeque};

use comity_crdts::ReplicaId;
use comity_engine::Class;

/// What went over one session in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    pub(crate) frames: usize,
    pub(crate) bytes: usize,
}

/// Who is at one end of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// A core of this world.
    Node(usize),
    /// The test, in somebody's name.
    Ghost(ReplicaId),
}

impl End {
    pub(crate) fn is_node(self) -> bool {
        matches!(self, Self::Node(_))
    }
}

/// One direction of one session.
#[derive(Default)]
pub(crate) struct Wire {
    /// What is on its way.
    pub(crate) queues: BTreeMap<Class, VecDeque<Vec<u8>>>,
    /// What was ever sent.
    pub(crate) log: Vec<(Class, Vec<u8>)>,
}

impl Wire {
    pub(crate) fn send(&mut self, class: Class, frame: Vec<u8>) {
        self.log.push((class, frame.clone()));
        self.queues.entry(class).or_default().push_back(frame);
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.queues.values().all(VecDeque::is_empty)
    }

    /// The next frame of the first stream that has one.
    pub(crate) fn next(&mut self, order: &[Class]) -> Option<Vec<u8>> {
        order.iter().find_map(|class| self.queues.get_mut(class)?.pop_front())
    }

    pub(crate) fn traffic(&self) -> Traffic {
        Traffic { frames: self.log.len(), bytes: self.log.iter().map(|(_, frame)| frame.len()).sum() }
    }
}

/// One session.
pub(crate) struct Link {
    pub(crate) ends: [End; 2],
    /// What the first end sends, what the second end sends.
    pub(crate) wires: [Wire; 2],
    /// Nothing arrives until this is lifted.
    pub(crate) stalled: bool,
}

impl Link {
    pub(crate) fn new(ends: [End; 2]) -> Self {
        Self { ends, wires: [Wire::default(), Wire::default()], stalled: false }
    }

    fn side(&self, node: usize) -> usize {
        usize::from(self.ends[0] != End::Node(node))
    }

    pub(crate) fn other_end(&self, node: usize) -> End {
        self.ends[1 - self.side(node)]
    }

    /// What a node sends.
    pub(crate) fn sent_mut(&mut self, node: usize) -> &mut Wire {
        let side = self.side(node);
        &mut self.wires[side]
    }

    /// What a node sent.
    pub(crate) fn sent(&self, node: usize) -> &Wire {
        &self.wires[self.side(node)]
    }
}
