//! What can be done to an object: the same words in a request of its own and in a transaction.

mod apply;

use comity::{Dot, ExpandMark, Kind, ReplicaId, Value, limits};
use serde::Deserialize;
use serde_json::Value as Json;
use utoipa::ToSchema;

use super::problem::{Problem, Trouble};
use super::value::from_json;
use crate::names;

/// One thing to do to an object. Which of them fit depends on its kind.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(tag = "op", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Action {
    /// Counters: adds; negative numbers take away.
    Add { by: i64 },
    /// Bounded counters: raises it.
    Increase { by: u64 },
    /// Bounded counters: lowers it, by rights that are held here. By itself, outside a transaction, it asks peers for
    /// rights where those here are too few.
    Decrease { by: u64 },
    /// Bounded counters: hands rights to another replica.
    Transfer {
        /// The replica's id.
        to: String,
        amount: u64,
    },
    /// Sets: adds an element.
    Insert { element: Json },
    /// Sets: removes an element.
    Remove { element: Json },
    /// Flags.
    Enable,
    /// Flags.
    Disable,
    /// Registers: writes, replacing every value visible here.
    Write { value: Json },
    /// Registers: writes, replacing only the values that were seen.
    Resolve {
        value: Json,
        /// Their dots, as reading gives them.
        seen: Vec<String>,
    },
    /// Documents: makes what is at a JSON Pointer equal to a value; only what differs is written.
    Put {
        #[serde(default)]
        pointer: String,
        value: Json,
    },
    /// Documents: a merge patch (RFC 7396) of what is at a JSON Pointer.
    Merge {
        #[serde(default)]
        pointer: String,
        value: Json,
    },
    /// Documents: a JSON patch (RFC 6902), all of it or nothing.
    Patch { operations: Vec<Json> },
    /// Documents: adds to the counter at a JSON Pointer.
    Increment { pointer: String, by: i64 },
    /// Documents: replaces code points of the text at a JSON Pointer.
    Splice {
        pointer: String,
        position: usize,
        #[serde(default)]
        delete: usize,
        #[serde(default)]
        insert: String,
    },
    /// Documents: marks a range of the text at a JSON Pointer.
    Mark {
        pointer: String,
        name: String,
        value: Json,
        start: usize,
        end: usize,
        /// `before`, `after`, `both` or `none`: at which edges it takes in what is inserted there.
        #[serde(default)]
        expand: Expand,
    },
    /// Documents: removes the marks of a name from a range.
    Unmark { pointer: String, name: String, start: usize, end: usize },
    /// Documents: makes it equal to an old version by a new edit.
    Restore {
        /// The hashes that name the version.
        heads: Vec<String>,
    },
    /// Maps: does something to what is under a key, through at most four keys.
    #[schema(no_recursion)]
    Within {
        /// The keys that lead there.
        path: Vec<String>,
        /// What is there: counter, set, register, flag or map.
        kind: String,
        /// What to do to it.
        r#do: Box<Action>,
    },
    /// Maps: removes what is under a key, of whatever kind.
    RemoveKey {
        /// The keys that lead there.
        path: Vec<String>,
    },
    /// Any kind: removes all that is seen of it here.
    Clear,
}

/// At which edges a mark grows.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Expand {
    Before,
    #[default]
    After,
    Both,
    None,
}

impl From<Expand> for ExpandMark {
    fn from(expand: Expand) -> Self {
        match expand {
            Expand::Before => Self::Before,
            Expand::After => Self::After,
            Expand::Both => Self::Both,
            Expand::None => Self::None,
        }
    }
}

/// An action that was checked against the kind of its object, with its values.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Counter(CounterStep),
    Bounded(BoundedStep),
    Set(SetStep),
    Flag(FlagStep),
    Register(RegisterStep),
    Map(MapStep),
    Document(DocumentStep),
}

#[derive(Clone, Debug)]
pub(crate) enum CounterStep {
    Add(i64),
    Clear,
}

#[derive(Clone, Debug)]
pub(crate) enum BoundedStep {
    Increase(u64),
    Decrease(u64),
    Transfer(ReplicaId, u64),
    Clear,
}

#[derive(Clone, Debug)]
pub(crate) enum SetStep {
    Insert(Value),
    Remove(Value),
    Clear,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum FlagStep {
    Enable,
    Disable,
    Clear,
}

#[derive(Clone, Debug)]
pub(crate) enum RegisterStep {
    Write(Value),
    Resolve(Value, Vec<Dot>),
    Clear,
}

#[derive(Clone, Debug)]
pub(crate) enum MapStep {
    Within(Vec<String>, Nested),
    RemoveKey(Vec<String>),
    Clear,
}

/// What is done to what a map holds.
#[derive(Clone, Debug)]
pub(crate) enum Nested {
    Counter(CounterStep),
    Set(SetStep),
    Flag(FlagStep),
    Register(RegisterStep),
    Map(Box<MapStep>),
}

/// What is done to a document.
#[derive(Clone, Debug)]
pub(crate) enum DocumentStep {
    Put(String, Json),
    Merge(String, Json),
    Patch(Json),
    Increment(String, i64),
    Splice { pointer: String, position: usize, delete: usize, insert: String },
    Mark { pointer: String, mark: comity::DocumentMark, expand: ExpandMark },
    Unmark { pointer: String, name: String, start: usize, end: usize },
    Restore(Vec<[u8; 32]>),
    Clear,
}

fn value(json: &Json) -> Result<Value, Problem> {
    from_json(json).map_err(|error| Trouble::BadRequest.because(error))
}

/// The dots in a request.
pub(crate) fn dots(texts: &[String]) -> Result<Vec<Dot>, Problem> {
    let parse = |text: &String| {
        names::parse_dot(text)
            .ok_or_else(|| Trouble::BadRequest.because(format!("{text:?} is no dot; reading gives them")))
    };
    texts.iter().map(parse).collect()
}

/// The hashes in a request.
pub(crate) fn hashes<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Vec<[u8; 32]>, Problem> {
    let parse = |text: &str| {
        let hash = names::parse_hash(text);
        hash.ok_or_else(|| {
            Trouble::BadRequest.because(format!("{text:?} is no hash of a change: 64 hexadecimal digits"))
        })
    };
    texts.into_iter().map(parse).collect()
}

impl Action {
    /// Checks that it fits the kind, and reads its values.
    ///
    /// # Errors
    /// A [`Problem`] that names the kind and what fits it.
    pub(crate) fn check(self, kind: Kind) -> Result<Step, Problem> {
        match kind {
            Kind::Counter => self.on_counter().map(Step::Counter),
            Kind::BoundedCounter => self.on_bounded().map(Step::Bounded),
            Kind::Set | Kind::RwSet => self.on_set(kind).map(Step::Set),
            Kind::Flag | Kind::DwFlag => self.on_flag(kind).map(Step::Flag),
            Kind::Register => self.on_register().map(Step::Register),
            Kind::Map => self.on_map().map(Step::Map),
            Kind::Document => self.on_document().map(Step::Document),
            _ => Err(misfit(kind, "nothing")),
        }
    }

    fn on_counter(self) -> Result<CounterStep, Problem> {
        match self {
            Self::Add { by } => Ok(CounterStep::Add(by)),
            Self::Clear => Ok(CounterStep::Clear),
            _ => Err(misfit(Kind::Counter, "add, clear")),
        }
    }

    fn on_bounded(self) -> Result<BoundedStep, Problem> {
        match self {
            Self::Increase { by } => Ok(BoundedStep::Increase(by)),
            Self::Decrease { by } => Ok(BoundedStep::Decrease(by)),
            Self::Transfer { to, amount } => {
                let replica = names::parse_replica(&to);
                let replica = replica
                    .ok_or_else(|| Trouble::BadRequest.because(format!("{to:?} is no id of a replica")))?;
                Ok(BoundedStep::Transfer(replica, amount))
            }
            Self::Clear => Ok(BoundedStep::Clear),
            _ => Err(misfit(Kind::BoundedCounter, "increase, decrease, transfer, clear")),
        }
    }

    fn on_set(self, kind: Kind) -> Result<SetStep, Problem> {
        match self {
            Self::Insert { element } => Ok(SetStep::Insert(value(&element)?)),
            Self::Remove { element } => Ok(SetStep::Remove(value(&element)?)),
            Self::Clear => Ok(SetStep::Clear),
            _ => Err(misfit(kind, "insert, remove, clear")),
        }
    }

    fn on_flag(&self, kind: Kind) -> Result<FlagStep, Problem> {
        match self {
            Self::Enable => Ok(FlagStep::Enable),
            Self::Disable => Ok(FlagStep::Disable),
            Self::Clear => Ok(FlagStep::Clear),
            _ => Err(misfit(kind, "enable, disable, clear")),
        }
    }

    fn on_register(self) -> Result<RegisterStep, Problem> {
        match self {
            Self::Write { value: json } => Ok(RegisterStep::Write(value(&json)?)),
            Self::Resolve { value: json, seen } => Ok(RegisterStep::Resolve(value(&json)?, dots(&seen)?)),
            Self::Clear => Ok(RegisterStep::Clear),
            _ => Err(misfit(Kind::Register, "write, resolve, clear")),
        }
    }

    fn on_map(self) -> Result<MapStep, Problem> {
        match self {
            Self::Within { path, kind, r#do } => {
                check_path(&path)?;
                let nested = match names::parse_kind(&kind) {
                    Some(Kind::Counter) => Nested::Counter(r#do.on_counter()?),
                    Some(Kind::Set) => Nested::Set(r#do.on_set(Kind::Set)?),
                    Some(Kind::Flag) => Nested::Flag(r#do.on_flag(Kind::Flag)?),
                    Some(Kind::Register) => Nested::Register(r#do.on_register()?),
                    Some(Kind::Map) => Nested::Map(Box::new(r#do.on_map()?)),
                    _ => {
                        let detail =
                            format!("a map holds no {kind:?}; it holds counter, set, register, flag, map");
                        return Err(Trouble::BadRequest.because(detail));
                    }
                };
                Ok(MapStep::Within(path, nested))
            }
            Self::RemoveKey { path } => {
                check_path(&path)?;
                Ok(MapStep::RemoveKey(path))
            }
            Self::Clear => Ok(MapStep::Clear),
            _ => Err(misfit(Kind::Map, "within, remove-key, clear")),
        }
    }

    fn on_document(self) -> Result<DocumentStep, Problem> {
        Ok(match self {
            Self::Put { pointer, value } => DocumentStep::Put(pointer, value),
            Self::Merge { pointer, value } => DocumentStep::Merge(pointer, value),
            Self::Patch { operations } => DocumentStep::Patch(Json::Array(operations)),
            Self::Increment { pointer, by } => DocumentStep::Increment(pointer, by),
            Self::Splice { pointer, position, delete, insert } => {
                DocumentStep::Splice { pointer, position, delete, insert }
            }
            Self::Mark { pointer, name, value, start, end, expand } => {
                let mark = comity::DocumentMark { name, value, start, end };
                DocumentStep::Mark { pointer, mark, expand: expand.into() }
            }
            Self::Unmark { pointer, name, start, end } => DocumentStep::Unmark { pointer, name, start, end },
            Self::Restore { heads } => DocumentStep::Restore(hashes(heads.iter().map(String::as_str))?),
            Self::Clear => DocumentStep::Clear,
            _ => {
                let fitting = "put, merge, patch, increment, splice, mark, unmark, restore, clear";
                return Err(misfit(Kind::Document, fitting));
            }
        })
    }
}

fn check_path(path: &[String]) -> Result<(), Problem> {
    if path.is_empty() || path.len() > limits::MAP_DEPTH_MAX {
        let detail =
            format!("the path has {} keys; 1 to {} lead through a map", path.len(), limits::MAP_DEPTH_MAX);
        return Err(Trouble::BadRequest.because(detail));
    }
    Ok(())
}

fn misfit(kind: Kind, fitting: &str) -> Problem {
    Trouble::BadRequest.because(format!("this cannot be done to a {kind}; what can is: {fitting}"))
}
