//! Every key of the configuration, in one table: the file, the environment, `--set`, the error for a key that is
//! none, and `comity config` are all made of it.

/// What a key holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// A string.
    Text,
    /// A whole number from 0 on.
    Number,
    /// `true` or `false`.
    Truth,
    /// An array of strings; in the environment, separated by commas.
    Texts,
    /// An array of tables; only in the file.
    Tables(&'static [&'static str]),
}

/// One key.
pub(super) struct Key {
    /// Its table and name, separated by dots.
    pub(super) path: &'static str,
    pub(super) form: Form,
    /// What holds where it is not given, as TOML; empty where nothing does.
    pub(super) default: &'static str,
    /// One sentence or two for `comity config`.
    pub(super) about: &'static str,
}

const fn key(path: &'static str, form: Form, default: &'static str, about: &'static str) -> Key {
    Key { path, form, default, about }
}

/// All keys, in the order in which `comity config` prints them. Those without a table come first, as TOML needs.
pub(super) const KEYS: &[Key] = &[
    key(
        "data_dir",
        Form::Text,
        "\"comity-data\"",
        "The directory of the replica. It is made when it is missing.",
    ),
    key(
        "region",
        Form::Text,
        "",
        "Where this replica is, such as \"eu-west\". Others see it in conflicts and changes.",
    ),
    key("drain_ms_max", Form::Number, "20000", "How long requests under way may take after SIGTERM, ms."),
    key(
        "peers.listen",
        Form::Texts,
        "[]",
        "UDP addresses on which other replicas are awaited, such as \"0.0.0.0:4433\".",
    ),
    key(
        "peers.advertise",
        Form::Texts,
        "[]",
        "Addresses to put into invitations instead, for a replica behind a forwarded port.",
    ),
    key(
        "http.unix",
        Form::Text,
        "",
        "The Unix socket of the API; DATA_DIR/comity.sock when it is not given, none when it is \"\".",
    ),
    key(
        "http.listen",
        Form::Texts,
        "[\"127.0.0.1:4480\"]",
        "TCP addresses of the API. Others than loopback need tokens and TLS.",
    ),
    key(
        "http.local_scope",
        Form::Text,
        "\"admin\"",
        "What a request without a token may do on loopback and the Unix socket: admin, write, read or none.",
    ),
    key(
        "http.plaintext",
        Form::Truth,
        "false",
        "Allows addresses other than loopback without TLS, for a network that is trusted as a whole.",
    ),
    key(
        "http.hosts",
        Form::Texts,
        "[]",
        "Names under which the API may be asked for, besides localhost and the addresses listened on.",
    ),
    key(
        "http.origins",
        Form::Texts,
        "[]",
        "Web origins whose pages may use the API, such as \"https://desk.example\". Others are refused.",
    ),
    key("http.body_bytes_max", Form::Number, "4194304", "The longest body of a request, bytes."),
    key(
        "http.connections_max",
        Form::Number,
        "1024",
        "Connections at one time on each socket; more wait to be accepted.",
    ),
    key("http.streams_max", Form::Number, "256", "Change feeds open at one time."),
    key(
        "http.header_ms_max",
        Form::Number,
        "10000",
        "How long the head of a request may take to arrive, ms.",
    ),
    key(
        "http.request_ms_max",
        Form::Number,
        "60000",
        "How long a request may take in all, ms; change feeds and downloads are exempt.",
    ),
    key("http.tls.certificate", Form::Text, "", "The certificate chain of the API, a PEM file."),
    key("http.tls.key", Form::Text, "", "Its private key, a PEM file."),
    key(
        "http.tokens",
        Form::Tables(&["name", "hash", "scopes", "spaces"]),
        "",
        "Bearer tokens, stored as hashes; `comity token` makes one.",
    ),
    key("log.format", Form::Text, "\"human\"", "human or json; one JSON object a line."),
    key("log.filter", Form::Text, "\"info\"", "What is logged: a level, or as in \"info,comity=debug\"."),
    key(
        "journal.days_max",
        Form::Number,
        "90",
        "How long the journal of a space keeps what was set aside, days.",
    ),
    key("journal.bytes_max", Form::Number, "67108864", "How much the journal of a space keeps, bytes."),
    key("storage.cache_bytes", Form::Number, "33554432", "Memory for pages of the data file, bytes."),
    key(
        "storage.headroom_bytes",
        Form::Number,
        "4194304",
        "Space on the disk that writes leave free, bytes.",
    ),
    key(
        "storage.log_days_max",
        Form::Number,
        "7",
        "How long the log keeps what every writer has announced to have applied, days.",
    ),
    key(
        "storage.log_bytes_max",
        Form::Number,
        "0",
        "How much of that is kept of each space, bytes; 0 for any.",
    ),
    key(
        "ready.lag_max",
        Form::Number,
        "1000",
        "Change sets that a ready daemon may lack of what connected peers have.",
    ),
    key(
        "ready.peers_ms_max",
        Form::Number,
        "10000",
        "How long readiness waits for the first peer after a start, ms.",
    ),
];

/// The key most like `unknown`, for an error: fewest letters to insert, delete or exchange; with a table's name left
/// off it is found as well.
pub(super) fn nearest(unknown: &str) -> &'static str {
    let distance_to = |key: &Key| {
        let name = key.path.rsplit('.').next().unwrap_or(key.path);
        let whole = distance(unknown, key.path);
        let leaf = distance(unknown.rsplit('.').next().unwrap_or(unknown), name) + 1;
        whole.min(leaf)
    };
    KEYS.iter().min_by_key(|key| distance_to(key)).map_or("data_dir", |key| key.path)
}

/// Levenshtein's distance in characters. O(a · b).
pub(super) fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let exchanged = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = exchanged.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
