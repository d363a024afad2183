//! The configuration: a TOML file, the environment and flags, later ones winning, all with the keys of one table.

mod schema;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::{Table, Value};

use crate::auth::{Scope, TokenEntry};
use schema::{Form, KEYS, Key, nearest};

/// A configuration file, bytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Variables that start as ours do and are not keys: those of the command line, and those that Kubernetes sets for a
/// service named `comity`.
const OTHER_VARIABLES: [&str; 4] = ["COMITY_CONFIG", "COMITY_TOKEN", "COMITY_URL", "COMITY_CA"];
const OTHER_PREFIXES: [&str; 2] = ["COMITY_SERVICE_", "COMITY_PORT"];

/// Why a configuration is none. Nothing was touched. Each sentence says where the fault is and what is right there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("cannot read the configuration {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("the configuration {} has {bytes} bytes; the limit is {bytes_max}", path.display())]
    TooLong { path: PathBuf, bytes: u64, bytes_max: u64 },
    #[error("the configuration {} is no TOML: {detail}", path.display())]
    Syntax { path: PathBuf, detail: String },
    #[error(
        "{origin}: there is no key {key:?}; the nearest one is {nearest:?} (`comity config` prints all of them)"
    )]
    Unknown { origin: String, key: String, nearest: String },
    #[error("{origin}: {key} must be {wanted}, and is {found}")]
    Form { origin: String, key: String, wanted: &'static str, found: String },
    #[error("{key} = {value:?}: {rule}")]
    Value { key: &'static str, value: String, rule: String },
    #[error("--set {text:?}: write KEY=VALUE")]
    Set { text: String },
}

/// What `comity serve` runs by.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) data_dir: PathBuf,
    pub(crate) region: Option<String>,
    pub(crate) drain_ms_max: u64,
    pub(crate) peers: Peers,
    pub(crate) http: Http,
    pub(crate) log: Log,
    pub(crate) journal: Journal,
    pub(crate) storage: Storage,
    pub(crate) ready: Ready,
}

#[derive(Clone, Debug)]
pub(crate) struct Peers {
    pub(crate) listen: Vec<SocketAddr>,
    pub(crate) advertise: Vec<SocketAddr>,
}

#[derive(Clone, Debug)]
pub(crate) struct Http {
    pub(crate) unix: Option<PathBuf>,
    pub(crate) listen: Vec<SocketAddr>,
    pub(crate) local_scope: Option<Scope>,
    pub(crate) hosts: Vec<String>,
    pub(crate) origins: Vec<String>,
    pub(crate) body_bytes_max: usize,
    pub(crate) connections_max: usize,
    pub(crate) streams_max: usize,
    pub(crate) header_ms_max: u64,
    pub(crate) request_ms_max: u64,
    /// Certificate chain and key.
    pub(crate) tls: Option<(PathBuf, PathBuf)>,
    pub(crate) tokens: Vec<TokenEntry>,
}

#[derive(Clone, Debug)]
pub(crate) struct Log {
    pub(crate) json: bool,
    pub(crate) filter: String,
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Journal {
    pub(crate) days_max: u64,
    pub(crate) bytes_max: u64,
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Storage {
    pub(crate) cache_bytes: usize,
    pub(crate) headroom_bytes: u64,
    pub(crate) log_days_max: u64,
    pub(crate) log_bytes_max: u64,
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Ready {
    pub(crate) lag_max: u64,
    pub(crate) peers_ms_max: u64,
}

/// The configuration as it is given, with defaults.
#[derive(Deserialize)]
struct Given {
    data_dir: PathBuf,
    region: Option<String>,
    drain_ms_max: u64,
    peers: GivenPeers,
    http: GivenHttp,
    log: GivenLog,
    journal: Journal,
    storage: Storage,
    ready: Ready,
}

#[derive(Deserialize)]
struct GivenPeers {
    listen: Vec<String>,
    advertise: Vec<String>,
}

#[derive(Deserialize)]
struct GivenHttp {
    unix: Option<String>,
    listen: Vec<String>,
    local_scope: String,
    plaintext: bool,
    hosts: Vec<String>,
    origins: Vec<String>,
    body_bytes_max: usize,
    connections_max: usize,
    streams_max: usize,
    header_ms_max: u64,
    request_ms_max: u64,
    #[serde(default)]
    tls: GivenTls,
    #[serde(default)]
    tokens: Vec<GivenToken>,
}

#[derive(Default, Deserialize)]
struct GivenTls {
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
}

#[derive(Deserialize)]
struct GivenToken {
    name: String,
    hash: String,
    scopes: Vec<String>,
    #[serde(default)]
    spaces: Vec<String>,
}

#[derive(Deserialize)]
struct GivenLog {
    format: String,
    filter: String,
}

/// What is put together, in this order: the defaults, a file, the environment, and what flags say.
#[derive(Default)]
pub(crate) struct Sources<'a> {
    pub(crate) file: Option<&'a Path>,
    pub(crate) environment: BTreeMap<String, String>,
    /// `KEY=VALUE` each.
    pub(crate) sets: Vec<String>,
}

impl Sources<'_> {
    /// The variables of this process.
    pub(crate) fn environment() -> BTreeMap<String, String> {
        std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| name.starts_with("COMITY_"))
            .collect()
    }

    /// The variables of this process that are keys, for commands that need only some of the configuration.
    pub(crate) fn known_environment() -> BTreeMap<String, String> {
        let mut environment = Self::environment();
        environment.retain(|name, _| KEYS.iter().any(|key| variable(key.path) == *name));
        environment
    }

    /// The configuration.
    ///
    /// # Errors
    /// [`ConfigError`]; nothing was touched.
    pub(crate) fn load(&self) -> Result<Config, ConfigError> {
        let mut table = Table::new();
        for key in KEYS.iter().filter(|key| !key.default.is_empty()) {
            let default: Table = format!("it = {}", key.default).parse().expect("the defaults are TOML");
            insert(&mut table, key.path, default["it"].clone());
        }
        if let Some(path) = self.file {
            let origin = path.display().to_string();
            take_table(&mut table, &origin, "", read(path)?)?;
        }
        self.take_environment(&mut table)?;
        for text in &self.sets {
            let (path, value) =
                text.split_once('=').ok_or_else(|| ConfigError::Set { text: text.clone() })?;
            let key = find("--set", path.trim())?;
            insert(&mut table, key.path, parse("--set", key, value.trim())?);
        }
        let given: Given =
            Value::Table(table).try_into().expect("every key was checked against the table of keys");
        given.check()
    }

    fn take_environment(&self, table: &mut Table) -> Result<(), ConfigError> {
        for (name, value) in &self.environment {
            let is_other = OTHER_VARIABLES.contains(&name.as_str());
            if is_other || OTHER_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
                continue;
            }
            let Some(key) = KEYS.iter().find(|key| variable(key.path) == *name) else {
                let by_distance = |key: &&Key| schema::distance(name, &variable(key.path));
                let nearest =
                    KEYS.iter().min_by_key(by_distance).map_or(String::new(), |key| variable(key.path));
                let origin = "the environment".to_owned();
                return Err(ConfigError::Unknown { origin, key: name.clone(), nearest });
            };
            insert(table, key.path, parse(name, key, value)?);
        }
        Ok(())
    }
}

/// The variable of a key: `COMITY_HTTP_LISTEN` for `http.listen`.
fn variable(path: &str) -> String {
    format!("COMITY_{}", path.to_ascii_uppercase().replace('.', "_"))
}

fn find(origin: &str, path: &str) -> Result<&'static Key, ConfigError> {
    KEYS.iter().find(|key| key.path == path).ok_or_else(|| unknown(origin, path))
}

fn unknown(origin: &str, path: &str) -> ConfigError {
    ConfigError::Unknown {
        origin: origin.to_owned(),
        key: path.to_owned(),
        nearest: nearest(path).to_owned(),
    }
}

fn read(path: &Path) -> Result<Table, ConfigError> {
    let failed = |source| ConfigError::Read { path: path.to_owned(), source };
    let bytes = std::fs::metadata(path).map_err(failed)?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(ConfigError::TooLong { path: path.to_owned(), bytes, bytes_max: FILE_BYTES_MAX });
    }
    let text = std::fs::read_to_string(path).map_err(failed)?;
    text.parse().map_err(|error: toml::de::Error| ConfigError::Syntax {
        path: path.to_owned(),
        detail: error.to_string(),
    })
}

/// Takes what a file says, and refuses what is no key.
fn take_table(into: &mut Table, origin: &str, prefix: &str, from: Table) -> Result<(), ConfigError> {
    for (name, value) in from {
        let path = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
        match (KEYS.iter().find(|key| key.path == path), value) {
            (Some(key), value) => {
                check_form(origin, key, &value)?;
                insert(into, key.path, value);
            }
            (None, Value::Table(inner)) if is_table(&path) => take_table(into, origin, &path, inner)?,
            (None, _) => return Err(unknown(origin, &path)),
        }
    }
    Ok(())
}

fn is_table(path: &str) -> bool {
    KEYS.iter().any(|key| key.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
}

fn wanted(form: Form) -> &'static str {
    match form {
        Form::Text => "a string",
        Form::Number => "a whole number from 0 on",
        Form::Truth => "true or false",
        Form::Texts => "an array of strings",
        Form::Tables(_) => "an array of tables",
    }
}

fn check_form(origin: &str, key: &Key, value: &Value) -> Result<(), ConfigError> {
    let fits = match (key.form, value) {
        (Form::Text, Value::String(_)) | (Form::Truth, Value::Boolean(_)) => true,
        (Form::Number, Value::Integer(number)) => *number >= 0,
        (Form::Texts, Value::Array(items)) => items.iter().all(Value::is_str),
        (Form::Tables(_), Value::Array(items)) => items.iter().all(Value::is_table),
        _ => false,
    };
    if !fits {
        let (origin, wanted) = (origin.to_owned(), wanted(key.form));
        return Err(ConfigError::Form { origin, key: key.path.to_owned(), wanted, found: value.to_string() });
    }
    let (Form::Tables(names), Value::Array(items)) = (key.form, value) else { return Ok(()) };
    for item in items.iter().filter_map(Value::as_table) {
        check_item(origin, key, names, item)?;
    }
    Ok(())
}

/// One table of an array of them; `name` and `hash` are strings, all others arrays of strings.
fn check_item(origin: &str, key: &Key, names: &[&str], item: &Table) -> Result<(), ConfigError> {
    for (name, value) in item {
        let path = format!("{}.{name}", key.path);
        if !names.contains(&name.as_str()) {
            let nearest = names.iter().min_by_key(|known| schema::distance(name, known));
            let nearest = format!("{}.{}", key.path, nearest.unwrap_or(&""));
            return Err(ConfigError::Unknown { origin: origin.to_owned(), key: path, nearest });
        }
        let form = if matches!(name.as_str(), "name" | "hash") { Form::Text } else { Form::Texts };
        let is_right = match form {
            Form::Text => value.is_str(),
            _ => value.as_array().is_some_and(|items| items.iter().all(Value::is_str)),
        };
        if !is_right {
            let (origin, found) = (origin.to_owned(), value.to_string());
            return Err(ConfigError::Form { origin, key: path, wanted: wanted(form), found });
        }
    }
    let missing = names.iter().find(|name| **name != "spaces" && !item.contains_key(**name));
    if let Some(name) = missing {
        let (origin, key) = (origin.to_owned(), format!("{}.{name}", key.path));
        return Err(ConfigError::Form { origin, key, wanted: "given", found: "missing".to_owned() });
    }
    Ok(())
}

/// A value as the environment and `--set` write it.
fn parse(origin: &str, key: &Key, text: &str) -> Result<Value, ConfigError> {
    let wrong = || ConfigError::Form {
        origin: origin.to_owned(),
        key: key.path.to_owned(),
        wanted: wanted(key.form),
        found: format!("{text:?}"),
    };
    match key.form {
        Form::Text => Ok(Value::String(text.to_owned())),
        Form::Number => {
            let number = text.parse::<i64>().ok().filter(|number| *number >= 0);
            number.map(Value::Integer).ok_or_else(wrong)
        }
        Form::Truth => text.parse().map(Value::Boolean).map_err(|_| wrong()),
        Form::Texts => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            Ok(Value::Array(items.map(|item| Value::String(item.to_owned())).collect()))
        }
        Form::Tables(_) => Err(wrong()),
    }
}

fn insert(table: &mut Table, path: &str, value: Value) {
    match path.split_once('.') {
        None => drop(table.insert(path.to_owned(), value)),
        Some((first, rest)) => {
            let inner = table.entry(first).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(inner) = inner {
                insert(inner, rest, value);
            }
        }
    }
}

impl Given {
    fn check(self) -> Result<Config, ConfigError> {
        let Self { data_dir, region, drain_ms_max, peers, http, log, journal, storage, ready } = self;
        let json = match log.format.as_str() {
            "json" => true,
            "human" => false,
            _ => return Err(wrong("log.format", &log.format, "write human or json")),
        };
        let peers = Peers {
            listen: addresses("peers.listen", &peers.listen)?,
            advertise: addresses("peers.advertise", &peers.advertise)?,
        };
        let http = http.check(&data_dir)?;
        let region = region.filter(|region| !region.is_empty());
        let log = Log { json, filter: log.filter };
        Ok(Config { data_dir, region, drain_ms_max, peers, http, log, journal, storage, ready })
    }
}

impl GivenHttp {
    fn check(self, data_dir: &Path) -> Result<Http, ConfigError> {
        let listen = addresses("http.listen", &self.listen)?;
        let unix = match self.unix.as_deref() {
            None => Some(data_dir.join("comity.sock")),
            Some("") => None,
            Some(path) => Some(PathBuf::from(path)),
        };
        let local_scope = match self.local_scope.as_str() {
            "none" => None,
            name => Some(scope("http.local_scope", name)?),
        };
        let tls = match (self.tls.certificate, self.tls.key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (given, _) => {
                let missing = if given.is_some() { "http.tls.key" } else { "http.tls.certificate" };
                return Err(wrong(missing, "", "give both the certificate and the key, or neither"));
            }
        };
        let tokens = self.tokens.into_iter().map(GivenToken::check).collect::<Result<Vec<_>, _>>()?;
        if let Some(open) = listen.iter().find(|address| !address.ip().is_loopback()) {
            let open = open.to_string();
            if tokens.is_empty() {
                let rule = "whoever reaches it could do everything: add a token (`comity token` makes one), or listen on 127.0.0.1";
                return Err(wrong("http.listen", &open, rule));
            }
            if tls.is_none() && !self.plaintext {
                let rule = "tokens would cross the network in the clear: give http.tls.certificate and http.tls.key, or set http.plaintext = true on a network that is trusted";
                return Err(wrong("http.listen", &open, rule));
            }
        }
        for (key, number) in [
            ("http.body_bytes_max", self.body_bytes_max),
            ("http.connections_max", self.connections_max),
            ("http.streams_max", self.streams_max),
        ] {
            if number == 0 || number > u32::MAX as usize {
                return Err(wrong(key, &number.to_string(), "it must be from 1 to 4294967295"));
            }
        }
        Ok(Http {
            unix,
            listen,
            local_scope,
            hosts: self.hosts.into_iter().map(|host| host.to_ascii_lowercase()).collect(),
            origins: self.origins.into_iter().map(|origin| origin.to_ascii_lowercase()).collect(),
            body_bytes_max: self.body_bytes_max,
            connections_max: self.connections_max,
            streams_max: self.streams_max,
            header_ms_max: self.header_ms_max,
            request_ms_max: self.request_ms_max,
            tls,
            tokens,
        })
    }
}

impl GivenToken {
    fn check(self) -> Result<TokenEntry, ConfigError> {
        let hash = blake3::Hash::from_hex(&self.hash);
        let hash = hash.map_err(|_| {
            wrong(
                "http.tokens.hash",
                &self.hash,
                "it must be 64 hexadecimal digits; `comity token` prints it",
            )
        })?;
        let scopes = self
            .scopes
            .iter()
            .map(|name| scope("http.tokens.scopes", name))
            .collect::<Result<Vec<_>, _>>()?;
        let scope = scopes.into_iter().max();
        let scope = scope
            .ok_or_else(|| wrong("http.tokens.scopes", "", "name at least one of read, write and admin"))?;
        let mut spaces = Vec::new();
        for text in &self.spaces {
            let space = crate::names::parse_space(text);
            spaces.push(
                space.ok_or_else(|| wrong("http.tokens.spaces", text, "it must be the id of a space"))?,
            );
        }
        Ok(TokenEntry { name: self.name, hash, scope, spaces })
    }
}

fn wrong(key: &'static str, value: &str, rule: &str) -> ConfigError {
    ConfigError::Value { key, value: value.to_owned(), rule: rule.to_owned() }
}

fn scope(key: &'static str, name: &str) -> Result<Scope, ConfigError> {
    Scope::parse(name).ok_or_else(|| wrong(key, name, "the scopes are read, write and admin"))
}

fn addresses(key: &'static str, texts: &[String]) -> Result<Vec<SocketAddr>, ConfigError> {
    let parse = |text: &String| {
        let parsed = text.parse::<SocketAddr>();
        parsed.map_err(|_| {
            wrong(key, text, "write an IP address and a port, as in \"127.0.0.1:4480\" or \"[::]:4433\"")
        })
    };
    texts.iter().map(parse).collect()
}

/// The whole schema as a configuration file: every key with its default, commented out.
pub(crate) fn documented() -> String {
    let mut out = String::from(
        "# The configuration of `comity serve`. Every key can also be given by the environment, as\n\
         # COMITY_ and its name in capitals with _ for each dot (COMITY_HTTP_LISTEN=127.0.0.1:4480; arrays are\n\
         # separated by commas), and by `--set KEY=VALUE`. Flags win over the environment, which wins over the file.\n",
    );
    let mut table = "";
    for key in KEYS {
        let (inside, name) = key.path.rsplit_once('.').unwrap_or(("", key.path));
        if let Form::Tables(names) = key.form {
            let _ = write!(out, "\n# {}\n# [[{}]]\n", key.about, key.path);
            for name in names {
                let _ = writeln!(
                    out,
                    "# {name} = {}",
                    if matches!(*name, "name" | "hash") { "\"…\"" } else { "[\"…\"]" }
                );
            }
            continue;
        }
        if inside != table {
            table = inside;
            let _ = write!(out, "\n[{table}]");
        }
        let default = if key.default.is_empty() { "…" } else { key.default };
        let _ = write!(out, "\n# {}\n# {name} = {default}\n", key.about);
    }
    out
}
