//! What can be said on the command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::auth::Scope;

/// A multi-leader, geo-replicated database of CRDTs: the regional daemon, and its command line.
#[derive(Parser)]
#[command(name = "comity", version, arg_required_else_help = true)]
pub(super) struct Args {
    /// The configuration file.
    #[arg(short, long, global = true, env = "COMITY_CONFIG", value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Subcommand)]
pub(super) enum Command {
    /// Run the daemon until SIGTERM
    Serve(ServeArgs),
    /// Print every key of the configuration, as a file with the defaults
    Config,
    /// Make a bearer token, and print the lines by which a daemon knows it
    Token {
        /// A name for the log
        name: String,
        /// What it may do: read, write or admin
        #[arg(long, default_value = "write", value_parser = parse_scope)]
        scope: Scope,
    },
}

fn parse_scope(text: &str) -> Result<Scope, String> {
    Scope::parse(text).ok_or_else(|| "the scopes are read, write and admin".to_owned())
}

/// Flags of `serve`; each is a key of the configuration too.
#[derive(clap::Args)]
pub(super) struct ServeArgs {
    /// The directory of the replica (data_dir)
    #[arg(short, long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Where this replica is (region)
    #[arg(long, value_name = "NAME")]
    region: Option<String>,
    /// A UDP address on which other replicas are awaited (peers.listen); may be repeated
    #[arg(long, value_name = "ADDR")]
    listen: Vec<String>,
    /// A TCP address of the API (http.listen); may be repeated
    #[arg(long, value_name = "ADDR")]
    http: Vec<String>,
    /// human or json (log.format)
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// Any key of the configuration; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
}

impl ServeArgs {
    /// The flags as settings of keys, those by their own flags last.
    pub(super) fn sets(self) -> Vec<String> {
        let mut sets = self.set;
        let mut one =
            |key: &str, value: Option<String>| sets.extend(value.map(|value| format!("{key}={value}")));
        one("data_dir", self.data_dir);
        one("region", self.region);
        one("log.format", self.log_format);
        one("peers.listen", Some(self.listen.join(",")).filter(|list| !list.is_empty()));
        one("http.listen", Some(self.http.join(",")).filter(|list| !list.is_empty()));
        sets
    }
}
