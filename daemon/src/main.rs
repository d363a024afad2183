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

/// Small pieces of memory come and go for every change; with this they take half the time of what the system has.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::run()
}
