//! What the figures were measured on. No names of machines or people.

use std::fs;

/// Prints the facts that figures depend on.
pub(crate) fn print(benchmark: &str) {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let build = if cfg!(debug_assertions) { "debug: figures mean nothing" } else { "release" };
    println!("# {benchmark}");
    println!();
    println!(
        "{}, {cores} cores, {} of memory; {} {}, kernel {}; {build} build",
        field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown processor".to_owned()),
        memory().unwrap_or_else(|| "unknown amount".to_owned()),
        std::env::consts::OS,
        std::env::consts::ARCH,
        fs::read_to_string("/proc/sys/kernel/osrelease")
            .map_or("unknown".to_owned(), |text| text.trim().to_owned()),
    );
}

/// The memory that this process has at present, in bytes.
pub(crate) fn resident_bytes() -> Option<u64> {
    let kib: u64 = field("/proc/self/status", "VmRSS")?.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn memory() -> Option<String> {
    let kib: u64 = field("/proc/meminfo", "MemTotal")?.split_whitespace().next()?.parse().ok()?;
    Some(format!("{:.0} GiB", kib as f64 / (1 << 20) as f64))
}
