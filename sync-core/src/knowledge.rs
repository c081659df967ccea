//! Events, vectors and rows: what a replica has, and what it knows of the others.
//!
//! The method is vector time pairs (Cox and Josephson, "File Synchronization with Vector Time Pairs",
//! MIT-CSAIL-TR-2005-014), completed; ARCHITECTURE.md tells the rules. Nothing here knows where rows are kept.

use crate::entry::Object;
use smallvec::SmallVec;
use std::fmt;
use std::sync::Arc;

/// A replica's random identity.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct ReplicaId(pub [u8; 16]);

impl ReplicaId {
    /// The first six hexadecimal digits: the label in names of conflict copies.
    #[must_use]
    pub fn short(&self) -> String {
        self.0[..3].iter().map(|b| format!("{b:02x}")).collect()
    }
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short())
    }
}

/// One change, made at one replica: (replica, counter).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Event {
    /// Where it was made.
    pub replica: ReplicaId,
    /// The replica's counter when it was made; starts at 1.
    pub counter: u64,
}

/// A map replica → counter: all events up to that counter. Ordered element-wise.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Vector(SmallVec<[(ReplicaId, u64); 1]>);

impl Vector {
    /// The empty vector.
    #[must_use]
    pub fn new() -> Vector {
        Vector::default()
    }

    /// The events of this vector, by replica.
    pub fn iter(&self) -> impl Iterator<Item = Event> + '_ {
        self.0.iter().map(|(replica, counter)| Event { replica: *replica, counter: *counter })
    }

    /// The counter known of a replica; 0 for none.
    #[must_use]
    pub fn get(&self, replica: ReplicaId) -> u64 {
        self.0.iter().find(|(id, _)| *id == replica).map_or(0, |(_, counter)| *counter)
    }

    /// Does the vector name nothing?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Number of replicas named.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Is every event of this vector covered by `other`?
    #[must_use]
    pub fn within(&self, other: &Vector) -> bool {
        self.0.iter().all(|(replica, counter)| other.get(*replica) >= *counter)
    }

    /// Raises this vector to cover one event.
    pub fn add(&mut self, event: Event) {
        match self.0.binary_search_by_key(&event.replica, |(id, _)| *id) {
            Ok(at) => self.0[at].1 = self.0[at].1.max(event.counter),
            Err(at) => self.0.insert(at, (event.replica, event.counter)),
        }
    }

    /// Raises this vector to cover `other`. True if it grew.
    pub fn join(&mut self, other: &Vector) -> bool {
        if other.within(self) {
            return false;
        }
        other.iter().for_each(|event| self.add(event));
        true
    }

    /// The least vector that covers both.
    #[must_use]
    pub fn joined(&self, other: &Vector) -> Vector {
        let mut sum = self.clone();
        sum.join(other);
        sum
    }
}

impl From<Event> for Vector {
    fn from(event: Event) -> Vector {
        Vector(SmallVec::from_buf([(event.replica, event.counter)]))
    }
}

impl FromIterator<Event> for Vector {
    fn from_iter<I: IntoIterator<Item = Event>>(events: I) -> Vector {
        let mut vector = Vector::new();
        events.into_iter().for_each(|event| vector.add(event));
        vector
    }
}

impl fmt::Debug for Vector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.iter().map(|(id, n)| (id, n))).finish()
    }
}

/// The creation events of an object. Only whether *some* of them is known matters, so per replica the
/// earliest is kept.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Creation(SmallVec<[(ReplicaId, u64); 1]>);

impl Creation {
    /// The creation events, one a replica.
    pub fn iter(&self) -> impl Iterator<Item = Event> + '_ {
        self.0.iter().map(|(replica, counter)| Event { replica: *replica, counter: *counter })
    }

    /// Is some creation event covered by `known`?
    #[must_use]
    pub fn meets(&self, known: &Vector) -> bool {
        self.0.iter().any(|(replica, counter)| known.get(*replica) >= *counter)
    }

    /// The union of two sets of creation events.
    #[must_use]
    pub fn united(&self, other: &Creation) -> Creation {
        let mut union = self.clone();
        other.iter().for_each(|event| union.add(event));
        union
    }

    fn add(&mut self, event: Event) {
        match self.0.binary_search_by_key(&event.replica, |(id, _)| *id) {
            Ok(at) => self.0[at].1 = self.0[at].1.min(event.counter),
            Err(at) => self.0.insert(at, (event.replica, event.counter)),
        }
    }
}

impl From<Event> for Creation {
    fn from(event: Event) -> Creation {
        Creation(SmallVec::from_buf([(event.replica, event.counter)]))
    }
}

impl FromIterator<Event> for Creation {
    fn from_iter<I: IntoIterator<Item = Event>>(events: I) -> Creation {
        let mut creation = Creation::default();
        events.into_iter().for_each(|event| creation.add(event));
        creation
    }
}

impl fmt::Debug for Creation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.iter().map(|(id, n)| (id, n))).finish()
    }
}

/// The current version of a live path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// What stands there.
    pub object: Object,
    /// Names the version: normally one event, that of the last writer.
    pub m: Vector,
    /// Creation events of the object.
    pub c: Creation,
}

/// What a replica keeps for a path that has, or had, rows below it: a directory, or a ghost with children.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// S: extra knowledge valid for the path and everything below it, names that do not exist included.
    pub s: Vector,
    /// M: upper bound of all versions and all deletion events at or below.
    pub bound: Arc<Vector>,
    /// D: digest of the live content below.
    pub digest: crate::entry::Digest,
}

/// Breaks one rule of the engine on purpose; the simulator must notice. Without the feature `mutations`
/// nothing can be broken and the checks compile to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Trap {
    GhostIsNothingToDo,
    KnowledgeReadAfterRows,
    KnowledgeRaisedWithoutBound,
    EqualContentKeepsOneVersion,
    NoGhosts,
    DirAttrsJoinedSilently,
    ConflictResolvedSilently,
    StaysDeletedSilently,
    GhostKnowledgeIgnored,
    NewRowWithEmptyBound,
    NoDigestCheck,
    CreationUnited,
    CreationKept,
    CompleteBeforeDone,
    DeletionWithoutBound,
    ForgottenStaysKnown,
}

/// Which [`Trap`] is active: none, outside tests of the simulator.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mutation {
    #[cfg(feature = "mutations")]
    trap: Option<Trap>,
}

impl Mutation {
    /// Activates one trap.
    #[cfg(feature = "mutations")]
    #[must_use]
    pub fn of(trap: Trap) -> Mutation {
        Mutation { trap: Some(trap) }
    }

    /// Is this rule broken?
    #[must_use]
    #[inline]
    pub fn broken(self, trap: Trap) -> bool {
        #[cfg(feature = "mutations")]
        return self.trap == Some(trap);
        #[cfg(not(feature = "mutations"))]
        {
            let _ = trap;
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> ReplicaId {
        ReplicaId([n; 16])
    }

    fn vector(events: &[(u8, u64)]) -> Vector {
        events.iter().map(|(r, t)| Event { replica: id(*r), counter: *t }).collect()
    }

    #[test]
    fn vectors_are_ordered_element_wise() {
        assert!(vector(&[(1, 2)]).within(&vector(&[(1, 2), (2, 1)])));
        assert!(!vector(&[(1, 3)]).within(&vector(&[(1, 2), (2, 1)])));
        assert!(Vector::new().within(&Vector::new()));
        let mut v = vector(&[(2, 1), (1, 2)]);
        assert!(!v.join(&vector(&[(1, 1)])));
        assert!(v.join(&vector(&[(3, 1)])));
        assert_eq!(v, vector(&[(1, 2), (2, 1), (3, 1)]));
    }

    #[test]
    fn a_creation_meets_what_covers_its_earliest_event() {
        let c: Creation = [Event { replica: id(1), counter: 5 }, Event { replica: id(1), counter: 3 }].into_iter().collect();
        assert!(c.meets(&vector(&[(1, 3)])));
        assert!(!c.meets(&vector(&[(1, 2), (2, 9)])));
    }
}
