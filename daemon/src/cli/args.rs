//! What can be said on the command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use super::failure::EXIT_CODES;
use crate::auth::Scope;

/// A multi-leader, geo-replicated database of CRDTs: the regional daemon, and its command line.
#[derive(Parser)]
#[command(name = "comity", version, arg_required_else_help = true, after_help = EXIT_CODES)]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// Where the daemon is, and how answers are printed.
#[derive(clap::Args)]
pub(super) struct Global {
    /// The configuration file
    #[arg(short, long, global = true, env = "COMITY_CONFIG", value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// The directory of the replica (data_dir)
    #[arg(short, long, global = true, value_name = "DIR")]
    pub(super) data_dir: Option<String>,
    /// The daemon's address instead of its Unix socket: http://HOST:PORT or https://HOST:PORT
    #[arg(long, global = true, env = "COMITY_URL", value_name = "URL")]
    pub(super) url: Option<String>,
    /// The daemon's Unix socket (http.unix)
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "url")]
    pub(super) socket: Option<String>,
    /// A bearer token
    #[arg(long, global = true, env = "COMITY_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub(super) token: Option<String>,
    /// Certificates to trust, a PEM file; those of the system otherwise
    #[arg(long, global = true, env = "COMITY_CA", value_name = "FILE")]
    pub(super) ca: Option<PathBuf>,
    /// Print JSON for machines
    #[arg(long, global = true)]
    pub(super) json: bool,
}

/// An object.
#[derive(clap::Args)]
pub(super) struct ObjectArgs {
    /// The space, by its id or its name
    pub(super) space: String,
    /// counter, bounded-counter, set, remove-wins-set, flag, disable-wins-flag, register, map or document
    pub(super) kind: String,
    /// The collection
    pub(super) collection: String,
    /// The key
    pub(super) key: String,
}

/// What the keys of a map lead to.
#[derive(clap::Args)]
pub(super) struct WithinArgs {
    /// Maps: a key that leads on; may be repeated
    #[arg(long)]
    pub(super) path: Vec<String>,
    /// Maps: the kind of what the path leads to
    #[arg(long, value_name = "KIND")]
    pub(super) within: Option<String>,
}

/// What a write asks for.
#[derive(clap::Args)]
pub(super) struct Ensure {
    /// How durable it must be: local, remote=N, quorum, all, regions=NAME,NAME
    #[arg(long, value_name = "LEVEL")]
    pub(super) durability: Option<String>,
    /// How long to wait for other replicas, ms
    #[arg(long, value_name = "MS")]
    pub(super) wait_ms: Option<u32>,
    /// A token of what must have been seen before
    #[arg(long, value_name = "TOKEN")]
    pub(super) after: Option<String>,
    /// An id under which the write can be repeated without being made twice
    #[arg(long, value_name = "ID")]
    pub(super) idempotency_key: Option<String>,
}

/// What is to be left of a conflict.
#[derive(clap::Args)]
#[group(required = true, multiple = false)]
pub(super) struct ChoiceArgs {
    /// Keep the value with this dot
    #[arg(long, value_name = "DOT")]
    pub(super) keep: Option<String>,
    /// Write this value instead; JSON, or a string
    #[arg(long, value_name = "JSON")]
    pub(super) value: Option<String>,
    /// Of several kinds, keep this one
    #[arg(long = "keep-kind", value_name = "KIND")]
    pub(super) kind_kept: Option<String>,
}

#[derive(Subcommand)]
pub(super) enum Command {
    /// Make the directory of a replica, and perhaps its first space
    Init {
        /// Found a space of this name
        #[arg(long, value_name = "NAME")]
        space: Option<String>,
    },
    /// Run the daemon until SIGTERM
    Serve(ServeArgs),
    /// Run three regions on this machine, with a page to try them in: cut links, diverge, heal, resolve
    Demo {
        /// The port of the page on this machine; 0 for any that is free
        #[arg(long, value_name = "PORT", default_value_t = crate::demo::PORT_DEFAULT)]
        port: u16,
        /// Keep the regions' data in this directory, and go on from there
        #[arg(long, value_name = "DIR")]
        keep: Option<PathBuf>,
    },
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
    /// List the spaces, or found one
    Spaces {
        /// Found a space of this name
        #[arg(long, value_name = "NAME")]
        create: Option<String>,
    },
    /// Print a ticket that makes one replica a member
    Invite {
        /// The space, by its id or its name
        space: String,
        /// follower, writer or admin
        #[arg(long, default_value = "writer")]
        role: String,
    },
    /// Take part in the space that a ticket names
    Join {
        /// The ticket, or - for standard input
        ticket: String,
    },
    /// List the members of a space
    Members {
        /// The space, by its id or its name
        space: String,
    },
    /// Make a replica a member, or give a member another role
    Grant {
        /// The space, by its id or its name
        space: String,
        /// The replica's id
        replica: String,
        /// follower, writer or admin
        role: String,
    },
    /// Remove a member; its connections are cut at once
    Revoke {
        /// The space, by its id or its name
        space: String,
        /// The replica's id
        replica: String,
    },
    /// Take no part in a space any more
    Leave {
        /// The space, by its id or its name
        space: String,
        /// Delete what is held of it here instead, telling nobody
        #[arg(long)]
        delete: bool,
    },
    /// List the collections of a space, or the keys of one
    List {
        /// The space, by its id or its name
        space: String,
        /// Of this kind only
        kind: Option<String>,
        /// The keys of this collection
        collection: Option<String>,
        /// Keys that start with this
        #[arg(long)]
        prefix: Option<String>,
        /// Names after this one
        #[arg(long)]
        after: Option<String>,
        /// At most so many
        #[arg(long)]
        limit: Option<usize>,
    },
    /// Read an object
    Get {
        #[command(flatten)]
        object: ObjectArgs,
        /// Documents: a JSON Pointer
        #[arg(long)]
        pointer: Option<String>,
        #[command(flatten)]
        within: WithinArgs,
        /// Documents: without tags for what JSON lacks
        #[arg(long)]
        plain: bool,
        /// A token of what must have been seen
        #[arg(long, value_name = "TOKEN")]
        at: Option<String>,
    },
    /// Write a register, a flag or a document, also within a map
    Put {
        #[command(flatten)]
        object: ObjectArgs,
        /// JSON, or a string; - for standard input
        value: String,
        /// Documents: a JSON Pointer
        #[arg(long)]
        pointer: Option<String>,
        #[command(flatten)]
        within: WithinArgs,
        #[command(flatten)]
        ensure: Ensure,
    },
    /// Add to a counter, a bounded counter or a set, also within a map
    Add {
        #[command(flatten)]
        object: ObjectArgs,
        /// A number; for sets JSON, or a string
        #[arg(allow_negative_numbers = true)]
        value: String,
        #[command(flatten)]
        within: WithinArgs,
        #[command(flatten)]
        ensure: Ensure,
    },
    /// Edit a document in $EDITOR, or by a patch
    Edit {
        /// The space, by its id or its name
        space: String,
        /// The collection
        collection: String,
        /// The key
        key: String,
        /// A merge patch (RFC 7396); - for standard input
        #[arg(long, value_name = "JSON", conflicts_with = "patch")]
        merge: Option<String>,
        /// A JSON patch (RFC 6902); - for standard input
        #[arg(long, value_name = "JSON")]
        patch: Option<String>,
        #[command(flatten)]
        ensure: Ensure,
    },
    /// Remove an object, an element of a set, or a key of a map
    Rm {
        #[command(flatten)]
        object: ObjectArgs,
        /// The element, or the keys that lead to it in a map, separated by /
        element: Option<String>,
        #[command(flatten)]
        ensure: Ensure,
    },
    /// Print or set the policy under which the registers of a collection are read
    Policy {
        /// The space, by its id or its name
        space: String,
        /// The collection
        collection: String,
        /// lww, siblings, union, min, max, first or custom:NAME:VERSION
        policy: Option<String>,
        #[command(flatten)]
        ensure: Ensure,
    },
    /// Print what changes in a space, until interrupted
    Watch {
        /// The space, by its id or its name
        space: String,
        /// Of this collection only
        #[arg(long)]
        collection: Option<String>,
        /// Go on after this token
        #[arg(long, value_name = "TOKEN")]
        from: Option<String>,
        /// What becomes of the conflict inbox instead
        #[arg(long, conflicts_with = "collection")]
        conflicts: bool,
    },
    /// List what people have to decide
    Conflicts {
        /// The space, by its id or its name
        space: String,
        /// After this place
        #[arg(long)]
        after: Option<String>,
        /// At most so many
        #[arg(long)]
        limit: Option<usize>,
    },
    /// Decide a conflict
    Resolve {
        #[command(flatten)]
        object: ObjectArgs,
        /// A key that leads on through a map; may be repeated
        #[arg(long)]
        path: Vec<String>,
        #[command(flatten)]
        choice: ChoiceArgs,
        /// The dot of a value that was seen; all that are there otherwise. May be repeated
        #[arg(long, value_name = "DOT")]
        seen: Vec<String>,
        #[command(flatten)]
        ensure: Ensure,
    },
    /// List what was set aside, or write some of it again
    Journal {
        /// The space, by its id or its name
        space: String,
        /// The page that goes on where another one said
        #[arg(long, value_name = "PLACE")]
        next: Option<String>,
        /// At most so many
        #[arg(long)]
        limit: Option<usize>,
        /// Write the value of the entry with this dot again
        #[arg(long, value_name = "DOT")]
        restore: Option<String>,
        #[command(flatten)]
        ensure: Ensure,
    },
    /// Print the daemon's state in short
    Status,
    /// List the connected replicas
    Peers,
    /// Print who is behind whom, and what for
    Lag,
    /// Copy everything into a directory while the daemon goes on
    Backup {
        /// The directory, missing or empty
        directory: PathBuf,
    },
    /// Make the directory of a replica from a backup; it goes on under a new incarnation
    Restore {
        /// What `comity backup` wrote
        backup: PathBuf,
    },
    /// Check everything that is stored: chains, signatures, digests and indexes
    Verify {
        /// This backup instead of the replica
        #[arg(long, value_name = "DIR")]
        backup: Option<PathBuf>,
    },
    /// Print a completion script
    Completions {
        /// bash, elvish, fish, powershell or zsh
        shell: clap_complete::Shell,
    },
}

fn parse_scope(text: &str) -> Result<Scope, String> {
    Scope::parse(text).ok_or_else(|| "the scopes are read, write and admin".to_owned())
}

/// Flags of `serve`; each is a key of the configuration too.
#[derive(clap::Args)]
pub(super) struct ServeArgs {
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
        one("region", self.region);
        one("log.format", self.log_format);
        one("peers.listen", Some(self.listen.join(",")).filter(|list| !list.is_empty()));
        one("http.listen", Some(self.http.join(",")).filter(|list| !list.is_empty()));
        sets
    }
}
