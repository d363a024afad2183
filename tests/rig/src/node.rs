//! One replica as a process, on the library's public API: it answers the questions that come as lines.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use comity::{
    CommandError, DirectoryError, OpenError, OpenOptions, ReadError, Replica, RequestError, Role, Space,
    StoreError, StoreOptions, Ticket, Token, TransactError, TxError, Value, View, WatchError, WriteError,
};
use data_encoding::HEXLOWER;
use tokio::sync::{Semaphore, mpsc};

use crate::error::RigError;
use crate::lines::{Answer, Greeting, Question, State, Sums, Why, read_lines, say};

/// Questions answered at once; more wait in the pipe.
const QUESTIONS_MAX: usize = 64;
/// How long an operation waits for its session's token before the session is told to look elsewhere.
const TOKEN_WAIT: Duration = Duration::from_millis(700);
/// How long a read waits for what is applied to become durable, to name it in its token.
const SETTLING_MAX: Duration = Duration::from_secs(1);
/// How long joining may take.
const JOINING_MAX: Duration = Duration::from_secs(60);
/// Elements in one answer: a line stays far below what a pipe takes in one piece.
const ELEMENTS_MAX: usize = 100;
const SPACE_NAME: &str = "rig";

/// How a node is started.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// Its data directory.
    pub directory: PathBuf,
    /// Where it listens.
    pub listen: std::net::SocketAddr,
    /// Its number.
    pub node: usize,
    /// All nodes.
    pub nodes: usize,
    /// Length of a file of the log, in bytes; the library's default when none.
    pub log_file_bytes: Option<u64>,
}

/// Why a question was not answered as asked.
enum Refusal {
    Write(Box<WriteError>),
    Request(RequestError),
    Read(ReadError),
    Text(String),
}

impl From<WriteError> for Refusal {
    fn from(error: WriteError) -> Self {
        Self::Write(Box::new(error))
    }
}

impl From<RequestError> for Refusal {
    fn from(error: RequestError) -> Self {
        Self::Request(error)
    }
}

impl From<ReadError> for Refusal {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::Read(error.into())
    }
}

impl Refusal {
    fn answer(&self) -> Answer {
        match self {
            Self::Write(error) => of_write(error),
            Self::Request(RequestError::Command(error)) => {
                Answer::Refused(of_command(error), error.to_string())
            }
            Self::Request(error) => Answer::Refused(Why::Stopped, error.to_string()),
            Self::Read(ReadError::Store(error)) => Answer::Refused(of_store(error), error.to_string()),
            Self::Read(error) => Answer::Refused(Why::Other, error.to_string()),
            Self::Text(text) => Answer::Refused(Why::Other, text.clone()),
        }
    }
}

fn of_write(error: &WriteError) -> Answer {
    let text = error.to_string();
    match error {
        // What the closure read or wrote, or the commit of it.
        WriteError::Refused(TransactError::Refused(refused) | TransactError::Tx(refused)) => {
            let why = if let TxError::Store(error) = refused { of_store(error) } else { Why::Other };
            Answer::Refused(why, text)
        }
        WriteError::Indeterminate(error) => Answer::Unknown(of_command(error), text),
        WriteError::Stopped => Answer::Unknown(Why::Stopped, text),
        _ => Answer::Refused(Why::Other, text),
    }
}

fn of_store(error: &StoreError) -> Why {
    match error {
        StoreError::NoSpace => Why::NoSpace,
        StoreError::Overloaded => Why::Overloaded,
        StoreError::Failed { .. } | StoreError::Poisoned => Why::Storage,
        StoreError::Corrupt { .. } => Why::Damaged,
        _ => Why::Other,
    }
}

fn of_command(error: &CommandError) -> Why {
    match error {
        CommandError::Stale { .. } => Why::Stale,
        CommandError::Store(error) => of_store(error),
        _ => Why::Other,
    }
}

fn of_open(error: &OpenError) -> Why {
    match error {
        OpenError::Directory(DirectoryError::NoSpace { .. }) => Why::NoSpace,
        OpenError::Directory(DirectoryError::Damaged { .. } | DirectoryError::DataMissing { .. }) => {
            Why::Damaged
        }
        OpenError::Directory(DirectoryError::Io { .. }) => Why::Storage,
        OpenError::Store(error) => of_store(error),
        _ => Why::Other,
    }
}

/// Runs a node until standard input ends or it is told to stop.
///
/// # Errors
/// [`RigError`] when it has no runtime.
pub fn serve(options: NodeOptions) -> Result<(), RigError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.map_err(RigError::io("a runtime"))?.block_on(run(options));
    Ok(())
}

async fn run(options: NodeOptions) {
    let mut open = OpenOptions::default();
    let mut store = StoreOptions::default();
    if let Some(bytes) = options.log_file_bytes {
        store.log_file_bytes = bytes;
    }
    open.store = store;
    let replica = match Replica::open_with(&options.directory, open).await {
        Ok(replica) => replica,
        Err(error) => return say(&Greeting::Closed(of_open(&error), error.to_string()).to_string()),
    };
    let node = Arc::new(Node { replica, number: options.node, nodes: options.nodes });
    match node.recovered().await {
        Ok(sums) => say(&Greeting::Ready(sums, node.replica.damage().is_some()).to_string()),
        Err(refusal) => {
            let (why, text) = match refusal.answer() {
                Answer::Refused(why, text) | Answer::Unknown(why, text) => (why, text),
                other => (Why::Other, other.to_string()),
            };
            return say(&Greeting::Closed(why, text).to_string());
        }
    }
    if let Err(error) = node.replica.listen(options.listen).await {
        return say(&Greeting::Closed(Why::Other, error.to_string()).to_string());
    }
    answer_questions(node).await;
}

async fn answer_questions(node: Arc<Node>) {
    let (sender, mut lines) = mpsc::channel(QUESTIONS_MAX);
    // Nobody asks any more: end as after a kill.
    read_lines(move |line| sender.blocking_send(line).is_ok(), || std::process::exit(0));
    let room = Arc::new(Semaphore::new(QUESTIONS_MAX));
    while let Some(line) = lines.recv().await {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let node = Arc::clone(&node);
        let parsed = line.split_once(' ').and_then(|(number, question)| {
            Some((number.parse::<u64>().ok()?, question.parse::<Question>().ok()?))
        });
        let Some((number, question)) = parsed else {
            say(&format!("0 {}", Answer::Refused(Why::Other, format!("not understood: {line}"))));
            continue;
        };
        if question == Question::Stop {
            node.replica.clone().shutdown().await;
            return say(&format!("{number} {}", Answer::Done(None)));
        }
        tokio::spawn(async move {
            let answer = node.answer(number, question).await.unwrap_or_else(|refusal| refusal.answer());
            say(&format!("{number} {answer}"));
            drop(permit);
        });
    }
}

struct Node {
    replica: Replica,
    number: usize,
    nodes: usize,
}

impl Node {
    async fn space(&self) -> Result<Space, Refusal> {
        let spaces = self.replica.spaces().await?;
        let (id, _) = spaces.first().ok_or_else(|| Refusal::Text("there is no space yet".to_owned()))?;
        Ok(self.replica.space(*id).await?)
    }

    /// What is durable here before the network had a chance to bring anything.
    async fn recovered(&self) -> Result<Sums, Refusal> {
        match self.replica.spaces().await?.is_empty() {
            true => Ok(Sums { own: vec![0; self.nodes], ..Sums::default() }),
            false => Ok(self.sums(&self.space().await?.view()?)?),
        }
    }

    async fn answer(&self, number: u64, question: Question) -> Result<Answer, Refusal> {
        match question {
            Question::Found => {
                self.replica.create_space(SPACE_NAME).await?;
                Ok(Answer::Done(None))
            }
            Question::Invite(addr) => {
                let ticket = self.space().await?.invite_as(Role::Admin).await;
                Ok(ticket_by(&ticket.map_err(|error| Refusal::Text(error.to_string()))?, addr))
            }
            Question::Ticket(addr) => {
                let ticket = self.space().await?.ticket();
                Ok(ticket_by(&ticket.map_err(|error| Refusal::Text(error.to_string()))?, addr))
            }
            Question::Join(ticket) => self.join(&ticket).await,
            Question::Connect(ticket) => {
                self.replica.connect(&parse_ticket(&ticket)?).await?;
                Ok(Answer::Done(None))
            }
            Question::Write(key, value, token) => self.write(number, (key, value), token).await,
            Question::Read(key, token) => {
                let space = self.space().await?;
                let view = caught_up(&space, token).await?;
                let values = siblings(view.register("registers", &key.to_string())?.siblings());
                Ok(Answer::Values(encode(&seen(&space).await?), values))
            }
            Question::Add(element, token) => self.add(element, token).await,
            Question::Sums(token) => {
                let space = self.space().await?;
                let view = caught_up(&space, token).await?;
                let sums = self.sums(&view)?;
                Ok(Answer::Sums(encode(&seen(&space).await?), sums))
            }
            Question::Await(token, within_ms) => {
                let within = Duration::from_millis(within_ms);
                self.space().await?.at_within(&decode(&token)?, within).await?;
                Ok(Answer::Done(None))
            }
            Question::State => self.state().await,
            Question::Elements(after) => {
                let after = after.map(Value::from);
                let view = self.space().await?.view()?;
                let elements = view.set("writes", "all").elements(after.as_ref(), ELEMENTS_MAX)?;
                let text =
                    |value: &Value| if let Value::Text(text) = value { Some(text.clone()) } else { None };
                Ok(Answer::Elements(elements.iter().filter_map(text).collect()))
            }
            Question::Stop => unreachable!("it is answered by whoever reads the questions"),
        }
    }

    async fn join(&self, ticket: &str) -> Result<Answer, Refusal> {
        let space = self.replica.connect(&parse_ticket(ticket)?).await?;
        let mut watch = space.watch();
        let joining = async {
            loop {
                let status = space.status().await?;
                if status.members.iter().any(|(member, _)| *member == self.replica.id()) {
                    return Ok(Answer::Done(None));
                }
                match watch.next().await {
                    Ok(_) | Err(WatchError::Lagged { .. }) => {}
                    Err(WatchError::Stopped) => return Err(Refusal::Request(RequestError::Stopped)),
                    Err(error) => return Err(Refusal::Text(error.to_string())),
                }
            }
        };
        match tokio::time::timeout(JOINING_MAX, joining).await {
            Ok(joined) => joined,
            Err(_) => Err(Refusal::Text("it did not become a member in time".to_owned())),
        }
    }

    async fn write(&self, number: u64, write: (u32, u64), token: Option<String>) -> Result<Answer, Refusal> {
        let (space, (key, value)) = (self.space().await?, write);
        caught_up(&space, token).await?;
        let written = space.transact(move |tx| {
            let key = key.to_string();
            let mut register = tx.register("registers", &key);
            let replaced = register.read()?.siblings();
            // Said before anything is kept, so that whoever kills this process knows what it may have replaced.
            say(&format!("{number} {}", Answer::Replaces(siblings(replaced))));
            register.write(value as i64)
        });
        Ok(Answer::Done(Some(encode(&written.await?.token()))))
    }

    async fn add(&self, element: String, token: Option<String>) -> Result<Answer, Refusal> {
        let (space, own) = (self.space().await?, self.number.to_string());
        caught_up(&space, token).await?;
        let added = space.transact(move |tx| {
            tx.counter("sums", "all").add(1)?;
            tx.set("writes", "all").insert(element)?;
            tx.counter("sums", &own).add(1)
        });
        Ok(Answer::Done(Some(encode(&added.await?.token()))))
    }

    fn sums(&self, view: &View) -> Result<Sums, ReadError> {
        // No counter is negative here; one that is must not go unnoticed.
        let count = |key: &str| Ok(u64::try_from(view.counter("sums", key)?).unwrap_or(u64::MAX));
        let own = (0..self.nodes).map(|node| count(&node.to_string())).collect::<Result<_, ReadError>>()?;
        Ok(Sums { all: count("all")?, elements: view.set("writes", "all").len()?, own })
    }

    async fn state(&self) -> Result<Answer, Refusal> {
        let status = self.space().await?.status().await?;
        let token = |frontier| encode(&Token { space: status.space, frontier });
        Ok(Answer::State(State {
            frontier: token(status.frontier.clone()),
            durable: token(status.durable.clone()),
            digest: status.digest.to_string(),
            lanes: status.lanes.len(),
            frozen: status.lanes.iter().filter(|lane| lane.frozen.is_some()).count(),
            staged: status.lanes.iter().map(|lane| lane.staged).sum(),
            peers: self.replica.connected().len(),
        }))
    }
}

/// A view that shows at least what the session has seen.
async fn caught_up(space: &Space, token: Option<String>) -> Result<View, Refusal> {
    match token {
        None => Ok(space.view()?),
        Some(token) => Ok(space.at_within(&decode(&token)?, TOKEN_WAIT).await?),
    }
}

/// A token that covers every view taken so far. A view may show a sync of which the core has not heard yet, so
/// what is durable by the core's own account may be less than the client has seen; what is applied is not.
async fn seen(space: &Space) -> Result<Token, Refusal> {
    let status = space.status().await?;
    let applied = Token { space: space.id(), frontier: status.frontier };
    if applied.frontier == status.durable {
        return Ok(applied);
    }
    match space.at_within(&applied, SETTLING_MAX).await {
        Ok(_) => Ok(applied),
        // The disk is full: nothing was synced meanwhile, and of what was before the core knows by now.
        Err(RequestError::Command(CommandError::Stale { .. })) => Ok(space.token().await?),
        Err(error) => Err(error.into()),
    }
}

/// The written numbers among the siblings; anything else shows as a value that nobody wrote.
fn siblings(siblings: Vec<(comity::Dot, Value)>) -> Vec<u64> {
    let number = |value: Value| if let Value::I64(value) = value { value as u64 } else { u64::MAX };
    siblings.into_iter().map(|(_, value)| number(value)).collect()
}

fn ticket_by(ticket: &Ticket, addr: std::net::SocketAddr) -> Answer {
    Answer::Ticket(Ticket { addresses: vec![addr], ..ticket.clone() }.to_string())
}

fn parse_ticket(text: &str) -> Result<Ticket, Refusal> {
    text.parse().map_err(|error: comity::TicketError| Refusal::Text(error.to_string()))
}

fn encode(token: &Token) -> String {
    HEXLOWER.encode(&token.to_bytes())
}

fn decode(text: &str) -> Result<Token, Refusal> {
    let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|error| Refusal::Text(error.to_string()))?;
    Token::from_bytes(&bytes).map_err(|error| Refusal::Text(error.to_string()))
}
