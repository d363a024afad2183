//! The command line.

mod args;

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use crate::auth::{Scope, fresh_token, hash};
use crate::config::{Log, Sources, documented};
use crate::serve;
use args::{Args, Command, ServeArgs};

/// Reads the arguments and does what they say.
pub(crate) fn run() -> ExitCode {
    let Args { config, command } = Args::parse();
    match command {
        Command::Serve(serve) => run_serve(config.as_deref(), serve),
        Command::Config => {
            print!("{}", documented());
            ExitCode::SUCCESS
        }
        Command::Token { name, scope } => print_token(&name, scope),
    }
}

/// Says what went wrong, and ends with 1.
fn fail(error: impl std::fmt::Display) -> ExitCode {
    eprintln!("comity: {error}");
    ExitCode::FAILURE
}

fn run_serve(file: Option<&Path>, args: ServeArgs) -> ExitCode {
    let sources = Sources { file, environment: Sources::environment(), sets: args.sets() };
    let config = match sources.load() {
        Ok(config) => config,
        Err(error) => return fail(error),
    };
    if let Err(error) = start_log(&config.log) {
        return fail(error);
    }
    match with_runtime(serve::run(config)) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => fail(format!("cannot start: {error}.")),
        Err(error) => fail(format!("cannot start threads: {error}")),
    }
}

/// Runs something to its end on a runtime of its own.
pub(crate) fn with_runtime<R>(what: impl Future<Output = R>) -> std::io::Result<R> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    Ok(runtime.block_on(what))
}

fn start_log(log: &Log) -> Result<(), String> {
    let filter =
        EnvFilter::try_new(&log.filter).map_err(|error| format!("log.filter = {:?}: {error}", log.filter))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if log.json {
        builder.json().flatten_event(true).init();
    } else {
        builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init();
    }
    Ok(())
}

/// Prints a token once, and the lines by which a daemon knows it.
fn print_token(name: &str, scope: Scope) -> ExitCode {
    let token = fresh_token();
    println!("# The token, which is shown only now:\n# {token}\n#\n# For the configuration of the daemon:");
    println!(
        "[[http.tokens]]\nname = {name:?}\nhash = \"{}\"\nscopes = [\"{}\"]",
        hash(&token).to_hex(),
        scope.name()
    );
    ExitCode::SUCCESS
}
