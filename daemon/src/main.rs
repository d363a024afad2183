//! `comity`: a regional daemon with an HTTP API, and its command line.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test"))]

mod auth;
mod backup;
mod cli;
mod config;
mod demo;
mod http;
mod names;
mod serve;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
