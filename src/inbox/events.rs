//! Conflicts as they open and are settled, by watching the space.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use comity_crdts::{Dot, Hlc, Kind, Policy, PolicyRegistry, ReplicaId};
use comity_engine::{ChangeEvent, Conflict, Did, Location, StoreError, Token};
use comity_store::Reader;

use crate::documents::Documents;
use crate::error::WatchError;
use crate::space::Space;
use crate::view::View;
use crate::watch::Watch;

/// What became of the conflict inbox.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum ConflictEvent {
    /// A change set touched the place, and there is this conflict now. It may be there since long before.
    Open(Conflict),
    /// A write replaced several values that were concurrent, or removed one of them of which its author had not
    /// seen the others, and there is no conflict in that place now.
    #[non_exhaustive]
    Settled {
        /// The place.
        location: Location,
        /// Who wrote.
        by: ReplicaId,
        /// The region of that replica, when it says one.
        region: Option<String>,
        /// When it was written.
        hlc: Hlc,
        /// The values that were replaced.
        replaced: Vec<Dot>,
    },
    /// The policy of a collection was set, so that any of its registers may be in conflict now or not. List the
    /// inbox again.
    #[non_exhaustive]
    PolicySet {
        /// The collection.
        collection: String,
        /// Its policy now.
        policy: Policy,
        /// Who set it.
        by: ReplicaId,
    },
}

/// What becomes of the conflict inbox, in the order in which change sets become visible here.
///
/// Each change set that touches a register or a map is looked at once it is visible: every place it touches that is in
/// conflict by then is [`Open`](ConflictEvent::Open), with the conflict as it is then and not as it was. Where a
/// register that several writers had written holds one value again, it is [`Settled`](ConflictEvent::Settled); not in
/// collections whose policy always decides, where it never was in conflict. That a key of a map leads to one kind
/// again is not told.
///
/// It is a [`Watch`]: it waits in the log on disk, and it goes on from a [`Token`] after a restart or at another
/// replica. In memory it holds what a watch holds, and the places of one change set.
///
/// ```no_run
/// # async fn example(space: comity::Space) -> Result<(), Box<dyn std::error::Error>> {
/// use comity::ConflictEvent;
///
/// let mut events = space.conflict_events();
/// loop {
///     match events.next().await? {
///         ConflictEvent::Open(conflict) => println!("{} waits for a decision", conflict.location),
///         ConflictEvent::Settled { location, by, .. } => println!("{by} decided about {location}"),
///         ConflictEvent::PolicySet { collection, policy, .. } => println!("{collection} is under {policy}"),
///         _ => {}
///     }
/// }
/// # }
/// ```
pub struct ConflictEvents {
    watch: Watch,
    reader: Reader,
    registry: Arc<PolicyRegistry>,
    documents: Arc<Documents>,
    looking: Option<Looking>,
}

/// A change set whose places are looked at.
struct Looking {
    /// What was delivered before it.
    before: Token,
    author: ReplicaId,
    region: Option<String>,
    hlc: Hlc,
    places: VecDeque<(Location, Touch)>,
}

/// What a change set did to a place.
#[derive(Default)]
struct Touch {
    /// Values of others that it replaced or removed.
    replaced: Vec<Dot>,
    is_cleared: bool,
    is_policy: bool,
}

impl ConflictEvents {
    fn new(space: &Space, watch: Watch) -> Self {
        let shared = &space.replica().shared;
        let (registry, documents) = (Arc::clone(&shared.registry), Arc::clone(&shared.documents));
        Self { watch, reader: shared.reader.clone(), registry, documents, looking: None }
    }

    /// How far behind this may be before it is told; as [`Watch::lag_max`].
    #[must_use]
    pub fn lag_max(mut self, entries: u64) -> Self {
        self.watch = self.watch.lag_max(entries);
        self
    }

    /// The next event. Waits where there is none yet.
    ///
    /// Cancel safe: what was not returned is returned by the next call. Must be called on a tokio runtime. Reads
    /// O(kinds + siblings) rows for each place on the calling thread.
    ///
    /// # Errors
    /// [`WatchError`]; as [`Watch::next`].
    pub async fn next(&mut self) -> Result<ConflictEvent, WatchError> {
        loop {
            if let Some(event) = self.look()? {
                return Ok(event);
            }
            let before = self.watch.token();
            let event = self.watch.next().await?;
            let places = places(&event).into_iter().collect();
            let ChangeEvent { author, region, hlc, .. } = event;
            self.looking = Some(Looking { before, author, region, hlc, places });
        }
    }

    /// What was delivered so far, to go on from. A change set of which only a part was delivered is not in it, so
    /// that all of its events are delivered again.
    pub fn token(&self) -> Token {
        match &self.looking {
            Some(looking) if !looking.places.is_empty() => looking.before.clone(),
            _ => self.watch.token(),
        }
    }

    /// Goes on after everything that the token has seen; as [`Watch::skip_to`].
    ///
    /// # Errors
    /// [`WatchError::OtherSpace`], with nothing changed.
    pub fn skip_to(&mut self, token: &Token) -> Result<(), WatchError> {
        self.watch.skip_to(token)?;
        self.looking = None;
        Ok(())
    }

    /// Looks at places of the change set until there is something to tell of one.
    fn look(&mut self) -> Result<Option<ConflictEvent>, StoreError> {
        let space = self.watch.token().space;
        let Some(looking) = &mut self.looking else { return Ok(None) };
        while let Some((location, touch)) = looking.places.front() {
            let snapshot = self.reader.snapshot()?;
            comity_engine::check_readable(&snapshot, &space)?;
            let view = View::new(snapshot, space, (&self.registry, &self.documents));
            let event = told(&view, looking, location, touch)?;
            looking.places.pop_front();
            if event.is_some() {
                return Ok(event);
            }
        }
        Ok(None)
    }
}

/// What there is to tell of a place.
fn told(
    view: &View,
    looking: &Looking,
    location: &Location,
    touch: &Touch,
) -> Result<Option<ConflictEvent>, StoreError> {
    if touch.is_policy {
        let (collection, by) = (location.object.key().to_owned(), looking.author);
        let policy = view.policy_of(&collection)?;
        return Ok(Some(ConflictEvent::PolicySet { collection, policy, by }));
    }
    if let Some(conflict) = view.conflict_at(location)? {
        return Ok(Some(ConflictEvent::Open(conflict)));
    }
    let was_several = match touch.replaced.len() {
        0 => false,
        // Whoever removed one value alone may have left another that it had not seen.
        1 => touch.is_cleared && view.holds_value_of(location, &looking.before.frontier)?,
        _ => true,
    };
    if !was_several || always_decides(&view.policy_of(location.object.collection())?) {
        return Ok(None);
    }
    Ok(Some(ConflictEvent::Settled {
        location: location.clone(),
        by: looking.author,
        region: looking.region.clone(),
        hlc: looking.hlc,
        replaced: touch.replaced.clone(),
    }))
}

/// Whether a policy shows one value whatever there is.
fn always_decides(policy: &Policy) -> bool {
    matches!(policy, Policy::Lww | Policy::First | Policy::Min | Policy::Max)
}

/// The places that a change set touches and that can be in conflict, in their order.
fn places(event: &ChangeEvent) -> BTreeMap<Location, Touch> {
    let mut places: BTreeMap<Location, Touch> = BTreeMap::new();
    for change in &event.changes {
        let object = &change.object;
        for did in &change.did {
            match (object.kind(), did) {
                (Kind::Register, did) => {
                    places.entry(object.clone().into()).or_default().note(event, did);
                }
                (Kind::Map, Did::Within { path, did }) => {
                    let at = |path: &[String]| Location { object: object.clone(), path: path.to_vec() };
                    // The keys on the way may lead to something of another kind too.
                    for depth in 1..path.len() {
                        places.entry(at(&path[..depth])).or_default();
                    }
                    places.entry(at(path)).or_default().note(event, did);
                }
                (Kind::Settings, _) if object.collection() == "policy" => {
                    places.entry(object.clone().into()).or_default().is_policy = true;
                }
                _ => {}
            }
        }
    }
    places
}

impl Touch {
    fn note(&mut self, event: &ChangeEvent, did: &Did) {
        let dots = match did {
            Did::Written { replaced, .. } => replaced,
            Did::Cleared { removed } => {
                self.is_cleared = true;
                removed
            }
            _ => return,
        };
        let is_of_others = |dot: &&Dot| (dot.origin, dot.seq) != (event.origin, event.seq);
        self.replaced.extend(dots.iter().filter(is_of_others));
    }
}

impl Space {
    /// What becomes of the conflict inbox from now on. List [`Space::conflicts`] after this for what is there.
    pub fn conflict_events(&self) -> ConflictEvents {
        ConflictEvents::new(self, self.watch())
    }

    /// What became of the conflict inbox by everything that the token has not seen: the token of other conflict
    /// events, a watch, a view or a receipt, taken here or at another replica.
    ///
    /// # Errors
    /// [`WatchError::OtherSpace`].
    pub fn conflict_events_from(&self, token: &Token) -> Result<ConflictEvents, WatchError> {
        Ok(ConflictEvents::new(self, self.watch_from(token)?))
    }
}
