//! The command line.

mod args;
mod client;
mod commands;
mod failure;
mod offline;
mod table;
mod watch;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use serde_json::json;
use tracing_subscriber::EnvFilter;

use crate::auth::{Scope, fresh_token, hash};
use crate::config::{Config, Log, Sources, documented};
use crate::demo;
use crate::serve;
use args::{Args, Command, Global};
use client::Client;
use commands::Session;
use failure::Failure;
use table::Printer;

/// Reads the arguments and does what they say.
pub(crate) fn run() -> ExitCode {
    let Args { global, command } = Args::parse();
    match act(&global, command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if global.json {
                println!("{}", json!({"error": failure.to_string(), "exit_code": failure.code()}));
            }
            eprintln!("comity: {failure}");
            ExitCode::from(failure.code())
        }
    }
}

fn act(global: &Global, command: Command) -> Result<(), Failure> {
    match command {
        Command::Serve(args) => {
            let config = global.load(args.sets(), Sources::environment())?;
            start_log(&config.log)?;
            let ran = with_runtime(serve::run(config))?;
            ran.map_err(|error| Failure::other(format!("cannot start: {error}.")))
        }
        Command::Demo { port, keep } => {
            // The demo is configured by nothing but its own flags.
            start_log(&Log { json: false, filter: "warn".to_owned() })?;
            let ran = with_runtime(demo::run(demo::Demo { port, keep }))?;
            ran.map_err(|error| Failure::other(error.to_string()))
        }
        Command::Config => {
            print!("{}", documented());
            Ok(())
        }
        Command::Token { name, scope } => {
            print_token(&name, scope);
            Ok(())
        }
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Args::command(), "comity", &mut std::io::stdout());
            Ok(())
        }
        Command::Init { space } => with_runtime(offline::init(global.known()?, space, global.printer()))?,
        Command::Backup { directory } => with_runtime(offline::back_up(
            global.known()?,
            global.session()?,
            &directory,
            global.is_remote(),
        ))?,
        Command::Restore { backup } => {
            with_runtime(offline::restore(global.known()?, &backup, global.printer()))?
        }
        Command::Verify { backup } => {
            let session = global.session()?;
            with_runtime(offline::verify(global.known()?, session, backup.as_deref(), global.is_remote()))?
        }
        command => with_runtime(global.session()?.run(command))?,
    }
}

impl Global {
    /// The configuration, with what flags say.
    fn load(&self, mut sets: Vec<String>, environment: BTreeMap<String, String>) -> Result<Config, Failure> {
        sets.extend(self.data_dir.as_ref().map(|dir| format!("data_dir={dir}")));
        sets.extend(self.socket.as_ref().map(|socket| format!("http.unix={socket}")));
        let sources = Sources { file: self.config.as_deref(), environment, sets };
        sources.load().map_err(Failure::usage)
    }

    /// As much of it as commands need that do not serve.
    fn known(&self) -> Result<Config, Failure> {
        self.load(Vec::new(), Sources::known_environment())
    }

    fn printer(&self) -> Printer {
        Printer { json: self.json }
    }

    /// Whether a daemon is meant that may be elsewhere.
    fn is_remote(&self) -> bool {
        self.url.is_some()
    }

    fn session(&self) -> Result<Session, Failure> {
        // Where a URL says which daemon is meant, the configuration of a daemon here does not matter.
        let socket = match &self.url {
            Some(_) => PathBuf::new(),
            None => self.known()?.http.unix.ok_or_else(|| {
                Failure::usage("http.unix is \"\", so there is no socket: say where the daemon is with --url")
            })?,
        };
        let client = Client::new(self.url.as_deref(), &socket, self.token.clone(), self.ca.clone())?;
        Ok(Session { client, printer: self.printer() })
    }
}

/// Runs something to its end on a runtime of its own.
fn with_runtime<R>(what: impl Future<Output = R>) -> Result<R, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::other(format!("cannot start threads: {error}")))?;
    Ok(runtime.block_on(what))
}

fn start_log(log: &Log) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(&log.filter);
    let filter = filter.map_err(|error| Failure::usage(format!("log.filter = {:?}: {error}", log.filter)))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if log.json {
        builder.json().flatten_event(true).init();
    } else {
        builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init();
    }
    Ok(())
}

/// Prints a token once, and the lines by which a daemon knows it.
fn print_token(name: &str, scope: Scope) {
    let token = fresh_token();
    println!("# The token, which is shown only now:\n# {token}\n#\n# For the configuration of the daemon:");
    println!(
        "[[http.tokens]]\nname = {name:?}\nhash = \"{}\"\nscopes = [\"{}\"]",
        hash(&token).to_hex(),
        scope.name()
    );
}
