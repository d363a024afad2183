//! What the figures were measured on, and what else it did meanwhile. No names of machines or people.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

/// Ticks of the operating system's clock in a second, as `/proc` counts them.
const TICKS_PER_SECOND: f64 = 100.0;

/// The machine, and what it was busy with when the watch began.
pub(crate) struct Machine {
    processor: String,
    cores: usize,
    memory: String,
    kernel: String,
    busy_ticks: f64,
    all_ticks: f64,
    own_ticks: f64,
}

impl Machine {
    pub(crate) fn watch() -> Self {
        let (busy_ticks, all_ticks) = system_ticks().unwrap_or_default();
        Self {
            processor: field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown processor".to_owned()),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory: memory().unwrap_or_else(|| "unknown amount".to_owned()),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
                .map_or("unknown".to_owned(), |text| text.trim().to_owned()),
            busy_ticks,
            all_ticks,
            own_ticks: own_ticks(),
        }
    }

    /// The facts that figures depend on.
    pub(crate) fn describe(&self) -> String {
        let Self { processor, cores, memory, kernel, .. } = self;
        let build =
            if cfg!(debug_assertions) { "debug build: figures mean nothing" } else { "release build" };
        let (os, architecture) = (std::env::consts::OS, std::env::consts::ARCH);
        let date = date();
        format!(
            "{date}; {processor}, {cores} cores, {memory} of memory; {os} {architecture}, kernel {kernel}; {build}"
        )
    }

    /// What part of the machine others used since the watch began; 0 where it is not told.
    pub(crate) fn others_part(&self) -> f64 {
        let (busy, all) = system_ticks().unwrap_or_default();
        let (busy, all) = (busy - self.busy_ticks, all - self.all_ticks);
        let others = busy - (own_ticks() - self.own_ticks);
        if all > 0.0 { (others / all).clamp(0.0, 1.0) } else { 0.0 }
    }

    pub(crate) fn to_json(&self) -> Value {
        json!({
            "date": date(),
            "processor": self.processor,
            "cores": self.cores,
            "memory": self.memory,
            "kernel": self.kernel,
            "release": !cfg!(debug_assertions),
            "used_by_others": self.others_part(),
        })
    }
}

/// Prints the facts that figures depend on.
pub(crate) fn print(benchmark: &str) {
    println!("# {benchmark}");
    println!();
    println!("{}", Machine::watch().describe());
}

/// Processor time of this process and of those it waited for, seconds; 0 where it is not told.
pub(crate) fn cpu_seconds() -> f64 {
    own_ticks() / TICKS_PER_SECOND
}

fn own_ticks() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    (11..=14).map(ticks).sum()
}

/// Ticks in which some processor did something or was taken away, and all.
fn system_ticks() -> Option<(f64, f64)> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let ticks: Vec<f64> =
        stat.lines().next()?.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    // What guests use is in the first two already.
    let all: f64 = ticks.iter().take(8).sum();
    let idle: f64 = ticks.get(3)? + ticks.get(4)?;
    Some((all - idle, all))
}

/// The memory that this process has at present, bytes; 0 where it is not told.
pub(crate) fn resident_bytes() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4_096
}

/// The day, in UTC.
fn date() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (year, month, day) = civil(seconds / 86_400);
    format!("{year}-{month:02}-{day:02}")
}

/// Year, month and day of a number of days after 1970-01-01 (Hinnant, "chrono-compatible low-level date algorithms").
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let (day, month) = (of_year - (153 * shifted + 2) / 5 + 1, (shifted + 2) % 12 + 1);
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
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

#[cfg(test)]
mod tests {
    use super::civil;

    #[test]
    fn days_are_dated_through_leap_years() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(11_016), (2000, 2, 29));
        assert_eq!(civil(20_783), (2026, 11, 26));
    }
}
