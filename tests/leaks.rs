//! Replicas that come and go leave no thread and no file open. Alone in its binary, since it counts those of the
//! whole process.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod regions;

use std::fs;

use regions::{converge, eventually, pair};

/// What the process has open now: threads, and file descriptors.
fn open_now() -> (usize, usize) {
    let count = |directory: &str| fs::read_dir(directory).unwrap().count();
    (count("/proc/self/task"), count("/proc/self/fd"))
}

/// Threads of the runtime's pool for blocking work come and go on their own time.
const POOL_THREADS_MAX: usize = 4;

async fn come_and_go(is_shut_down: impl Fn(usize) -> bool, times: usize) {
    for round in 0..times {
        let (here, there) = pair().await;
        here.replica.connect(&there.ticket()).await.unwrap();
        here.add_one().await.unwrap();
        converge(&[&here, &there]).await;
        if is_shut_down(round) {
            here.replica.shutdown().await;
            there.replica.shutdown().await;
        }
    }
}

#[test]
fn opening_and_closing_leaves_no_thread_and_no_file_open() {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime =
        runtime.worker_threads(2).max_blocking_threads(POOL_THREADS_MAX).enable_all().build().unwrap();
    runtime.block_on(async {
        come_and_go(|_| true, 2).await;
        let (threads, files) = open_now();
        println!("{threads} threads and {files} files before");
        come_and_go(|_| true, 20).await;
        come_and_go(|round| round % 3 == 0, 20).await;
        eventually("threads and files are back where they were", async || {
            let (threads_now, files_now) = open_now();
            threads_now <= threads + POOL_THREADS_MAX && files_now <= files
        })
        .await;
    });
    let (threads, files) = open_now();
    println!("{threads} threads and {files} files after");
}
