//! What the controller and a node say to each other, a line at a time. A question is `<number> <question>`, and
//! every answer to it `<number> <answer>`.

use std::fmt;
use std::io::{BufRead, Write};
use std::net::SocketAddr;
use std::str::FromStr;

use crate::error::RigError;

/// What stands for no token and for no element.
const NONE: &str = "-";

/// Says a line on standard output. Ends this process when nobody listens any more.
pub fn say(line: &str) {
    let mut stdout = std::io::stdout().lock();
    // One write, so that a kill cannot leave half a line that looks whole.
    if stdout.write_all(format!("{line}\n").as_bytes()).and_then(|()| stdout.flush()).is_err() {
        std::process::exit(1);
    }
}

/// Reads standard input on a thread of its own, until it ends or nobody takes its lines any more.
pub fn read_lines(
    mut take: impl FnMut(String) -> bool + Send + 'static,
    ended: impl FnOnce() + Send + 'static,
) {
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { break };
            if !take(line) {
                break;
            }
        }
        ended();
    });
}

/// What a client or the controller asks of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// Found the space.
    Found,
    /// A ticket that lets another replica in, by which it dials the address.
    Invite(SocketAddr),
    /// Take part by such a ticket; answered once the replica knows that it is a member.
    Join(String),
    /// A ticket for a member that dials the address.
    Ticket(SocketAddr),
    /// Keep a connection by such a ticket.
    Connect(String),
    /// Once the token is reached, read the siblings of the register and write the value over them.
    Write(u32, u64, Option<String>),
    /// Once the token is reached, all siblings of the register.
    Read(u32, Option<String>),
    /// Once the token is reached, one change set: one more in the sum of all and in the node's own, the element
    /// in the set.
    Add(String, Option<String>),
    /// Once the token is reached, what is counted.
    Sums(Option<String>),
    /// Wait for the token, in milliseconds.
    Await(String, u64),
    /// How the node sees the space.
    State,
    /// Elements of the set after the given one.
    Elements(Option<String>),
    /// Shut down in order.
    Stop,
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let optional = |text: &Option<String>| text.clone().unwrap_or_else(|| NONE.to_owned());
        match self {
            Self::Found => f.write_str("found"),
            Self::Invite(addr) => write!(f, "invite {addr}"),
            Self::Join(ticket) => write!(f, "join {ticket}"),
            Self::Ticket(addr) => write!(f, "ticket {addr}"),
            Self::Connect(ticket) => write!(f, "connect {ticket}"),
            Self::Write(key, value, token) => write!(f, "write {key} {value} {}", optional(token)),
            Self::Read(key, token) => write!(f, "read {key} {}", optional(token)),
            Self::Add(element, token) => write!(f, "add {element} {}", optional(token)),
            Self::Sums(token) => write!(f, "sums {}", optional(token)),
            Self::Await(token, within_ms) => write!(f, "await {token} {within_ms}"),
            Self::State => f.write_str("state"),
            Self::Elements(after) => write!(f, "elements {}", optional(after)),
            Self::Stop => f.write_str("stop"),
        }
    }
}

impl Question {
    /// Whether an answer that it is done acknowledges a write.
    pub fn is_write(&self) -> bool {
        matches!(self, Self::Write(..) | Self::Add(..))
    }
}

impl FromStr for Question {
    type Err = RigError;

    fn from_str(line: &str) -> Result<Self, RigError> {
        let words: Vec<&str> = line.split(' ').collect();
        let optional = |text: &str| (text != NONE).then(|| text.to_owned());
        let question = match *words {
            ["found"] => Some(Self::Found),
            ["invite", addr] => addr.parse().ok().map(Self::Invite),
            ["join", ticket] => Some(Self::Join(ticket.to_owned())),
            ["ticket", addr] => addr.parse().ok().map(Self::Ticket),
            ["connect", ticket] => Some(Self::Connect(ticket.to_owned())),
            ["write", key, value, token] => {
                let parsed = key.parse().ok().zip(value.parse().ok());
                parsed.map(|(key, value)| Self::Write(key, value, optional(token)))
            }
            ["read", key, token] => key.parse().ok().map(|key| Self::Read(key, optional(token))),
            ["add", element, token] => Some(Self::Add(element.to_owned(), optional(token))),
            ["sums", token] => Some(Self::Sums(optional(token))),
            ["await", token, within] => {
                within.parse().ok().map(|within_ms| Self::Await(token.to_owned(), within_ms))
            }
            ["state"] => Some(Self::State),
            ["elements", after] => Some(Self::Elements(optional(after))),
            ["stop"] => Some(Self::Stop),
            _ => None,
        };
        question.ok_or_else(|| RigError::line(line))
    }
}

/// Why a node did not do as asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// Its disk is full.
    NoSpace,
    /// Its disk does not keep up.
    Overloaded,
    /// Its storage failed, now or earlier.
    Storage,
    /// It lacks what the token names.
    Stale,
    /// It is shut down.
    Stopped,
    /// Its stored data is damaged.
    Damaged,
    /// Anything else; never expected.
    Other,
}

impl Why {
    const ALL: [(Self, &str); 7] = [
        (Self::NoSpace, "no-space"),
        (Self::Overloaded, "overloaded"),
        (Self::Storage, "storage"),
        (Self::Stale, "stale"),
        (Self::Stopped, "stopped"),
        (Self::Damaged, "damaged"),
        (Self::Other, "other"),
    ];

    fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == name).map(|(why, _)| *why)
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = Self::ALL.iter().find(|(why, _)| why == self);
        f.write_str(named.map_or(NONE, |(_, name)| name))
    }
}

/// What a node counts, in one view.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// All additions.
    pub all: u64,
    /// The elements of the set.
    pub elements: u64,
    /// The additions made at each node.
    pub own: Vec<u64>,
}

/// How a node sees the space.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// What it has applied, as a token.
    pub frontier: String,
    /// What of it is durable, as a token.
    pub durable: String,
    /// The digest of the state.
    pub digest: String,
    /// Lanes.
    pub lanes: usize,
    /// Lanes that are not followed any further.
    pub frozen: usize,
    /// Entries received and not applied.
    pub staged: u64,
    /// Peers connected.
    pub peers: usize,
}

/// What a node answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The write is about to replace these values; another answer follows.
    Replaces(Vec<u64>),
    /// Done, and durable; what the client saw.
    Done(Option<String>),
    /// The siblings, and what the client saw.
    Values(String, Vec<u64>),
    /// What is counted, and what the client saw.
    Sums(String, Sums),
    /// A ticket.
    Ticket(String),
    /// How the node sees the space.
    State(State),
    /// Some elements; none when there are no more.
    Elements(Vec<String>),
    /// Not done; nothing of it was kept.
    Refused(Why, String),
    /// Whether it will be durable is not known.
    Unknown(Why, String),
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Replaces(values) => write!(f, "replaces {}", joined(values)),
            Self::Done(token) => write!(f, "done {}", token.as_deref().unwrap_or(NONE)),
            Self::Values(token, values) => write!(f, "values {token} {}", joined(values)),
            Self::Sums(token, Sums { all, elements, own }) => {
                write!(f, "sums {token} {all} {elements} {}", joined(own))
            }
            Self::Ticket(ticket) => write!(f, "ticket {ticket}"),
            Self::State(State { frontier, durable, digest, lanes, frozen, staged, peers }) => {
                write!(f, "state {frontier} {durable} {digest} {lanes} {frozen} {staged} {peers}")
            }
            Self::Elements(elements) => write!(f, "elements {}", joined(elements)),
            Self::Refused(why, text) => write!(f, "refused {why} {text}"),
            Self::Unknown(why, text) => write!(f, "unknown {why} {text}"),
        }
    }
}

fn joined<T: ToString>(items: &[T]) -> String {
    if items.is_empty() {
        return NONE.to_owned();
    }
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn parted<T: FromStr>(text: &str) -> Option<Vec<T>> {
    if text == NONE {
        return Some(Vec::new());
    }
    text.split(',').map(|item| item.parse().ok()).collect()
}

impl FromStr for Answer {
    type Err = RigError;

    fn from_str(line: &str) -> Result<Self, RigError> {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        let words: Vec<&str> = rest.split(' ').collect();
        let why = || {
            let (why, text) = rest.split_once(' ').unwrap_or((rest, ""));
            Why::named(why).map(|why| (why, text.to_owned()))
        };
        let answer = match (verb, words.as_slice()) {
            ("replaces", [values]) => parted(values).map(Self::Replaces),
            ("done", [token]) => Some(Self::Done((*token != NONE).then(|| (*token).to_owned()))),
            ("values", [token, values]) => {
                parted(values).map(|values| Self::Values((*token).to_owned(), values))
            }
            ("sums", [token, words @ ..]) => sums(words).map(|sums| Self::Sums((*token).to_owned(), sums)),
            ("ticket", [ticket]) => Some(Self::Ticket((*ticket).to_owned())),
            ("state", words) => state(words).map(Self::State),
            ("elements", [elements]) => parted(elements).map(Self::Elements),
            ("refused", _) => why().map(|(why, text)| Self::Refused(why, text)),
            ("unknown", _) => why().map(|(why, text)| Self::Unknown(why, text)),
            _ => None,
        };
        answer.ok_or_else(|| RigError::line(line))
    }
}

fn sums(words: &[&str]) -> Option<Sums> {
    let [all, elements, own] = words else { return None };
    Some(Sums { all: all.parse().ok()?, elements: elements.parse().ok()?, own: parted(own)? })
}

fn state(words: &[&str]) -> Option<State> {
    let [frontier, durable, digest, lanes, frozen, staged, peers] = words else { return None };
    Some(State {
        frontier: (*frontier).to_owned(),
        durable: (*durable).to_owned(),
        digest: (*digest).to_owned(),
        lanes: lanes.parse().ok()?,
        frozen: frozen.parse().ok()?,
        staged: staged.parse().ok()?,
        peers: peers.parse().ok()?,
    })
}

/// The first line of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Greeting {
    /// The directory is open; what was durable in it, and whether anything durable was lost.
    Ready(Sums, bool),
    /// The directory could not be opened.
    Closed(Why, String),
}

impl fmt::Display for Greeting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready(Sums { all, elements, own }, is_damaged) => {
                write!(f, "ready {all} {elements} {} {is_damaged}", joined(own))
            }
            Self::Closed(why, text) => write!(f, "closed {why} {text}"),
        }
    }
}

impl FromStr for Greeting {
    type Err = RigError;

    fn from_str(line: &str) -> Result<Self, RigError> {
        let greeting = match line.split_once(' ') {
            Some(("ready", rest)) => {
                let words: Vec<&str> = rest.split(' ').collect();
                words
                    .split_last()
                    .and_then(|(damaged, words)| Some(Self::Ready(sums(words)?, damaged.parse().ok()?)))
            }
            Some(("closed", rest)) => {
                let (why, text) = rest.split_once(' ').unwrap_or((rest, ""));
                Why::named(why).map(|why| Self::Closed(why, text.to_owned()))
            }
            _ => None,
        };
        greeting.ok_or_else(|| RigError::line(line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_survive_being_written_as_lines() {
        let addr = "10.77.1.101:4433".parse().unwrap();
        let token = Some("00ff".to_owned());
        let questions = [
            Question::Found,
            Question::Invite(addr),
            Question::Join("comity1abc".to_owned()),
            Question::Ticket(addr),
            Question::Connect("comity1abc".to_owned()),
            Question::Write(3, 77, token.clone()),
            Question::Write(3, 77, None),
            Question::Read(3, token.clone()),
            Question::Add("e-1-2".to_owned(), None),
            Question::Sums(None),
            Question::Await("00ff".to_owned(), 500),
            Question::State,
            Question::Elements(Some("e-1-2".to_owned())),
            Question::Elements(None),
            Question::Stop,
        ];
        for question in questions {
            assert_eq!(question.to_string().parse::<Question>().unwrap(), question);
        }
        assert!("write 1".parse::<Question>().is_err());
    }

    #[test]
    fn answers_survive_being_written_as_lines() {
        let sums = Sums { all: 3, elements: 3, own: vec![1, 2] };
        let state = State {
            frontier: "aa".to_owned(),
            durable: "bb".to_owned(),
            digest: "cc".to_owned(),
            lanes: 2,
            frozen: 0,
            staged: 1,
            peers: 1,
        };
        let answers = [
            Answer::Replaces(vec![]),
            Answer::Replaces(vec![1, 2]),
            Answer::Done(None),
            Answer::Done(Some("00ff".to_owned())),
            Answer::Values("00ff".to_owned(), vec![7]),
            Answer::Sums("00ff".to_owned(), sums.clone()),
            Answer::Ticket("comity1abc".to_owned()),
            Answer::State(state),
            Answer::Elements(vec!["a".to_owned()]),
            Answer::Elements(vec![]),
            Answer::Refused(Why::NoSpace, "no space left for it".to_owned()),
            Answer::Unknown(Why::Storage, "the log: input/output error".to_owned()),
        ];
        for answer in answers {
            assert_eq!(answer.to_string().parse::<Answer>().unwrap(), answer);
        }
        for greeting in [Greeting::Ready(sums, false), Greeting::Closed(Why::NoSpace, "full".to_owned())] {
            assert_eq!(greeting.to_string().parse::<Greeting>().unwrap(), greeting);
        }
    }
}
