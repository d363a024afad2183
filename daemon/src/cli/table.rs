//! Tables for people.

use std::io::{self, IsTerminal, Write};

use serde_json::Value;

/// Rows under a heading, printed in columns as wide as they need.
pub(crate) struct Table {
    heading: Vec<String>,
    rows: Vec<Vec<String>>,
    empty: &'static str,
}

impl Table {
    pub(crate) fn new(heading: &[&str]) -> Self {
        Self { heading: heading.iter().map(ToString::to_string).collect(), rows: Vec::new(), empty: "" }
    }

    /// Says this to people when there are no rows.
    pub(crate) fn or(self, empty: &'static str) -> Self {
        Self { empty, ..self }
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Prints it; the heading only where a person reads it.
    pub(crate) fn print(&self, out: &mut dyn Write, is_for_people: bool) -> io::Result<()> {
        if self.rows.is_empty() && is_for_people && !self.empty.is_empty() {
            return writeln!(out, "{}", self.empty);
        }
        let heading = Some(&self.heading).filter(|_| is_for_people);
        let width = |column: usize| {
            let cells = heading.into_iter().chain(&self.rows).filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.heading.len()).map(width).collect();
        for row in heading.into_iter().chain(&self.rows) {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(cell);
                let pad = width.saturating_sub(cell.chars().count()) + 2;
                line.extend(std::iter::repeat_n(' ', pad));
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Where what a command found is printed, and how.
pub(crate) struct Printer {
    pub(crate) json: bool,
}

impl Printer {
    /// Prints what the daemon said: as it is for machines, otherwise as `human` makes it.
    pub(crate) fn show(&self, body: &Value, human: impl FnOnce(&Value) -> Table) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if self.json {
            return writeln!(out, "{body}");
        }
        human(body).print(&mut out, io::stdout().is_terminal())
    }

    /// Prints as many lines as there are.
    pub(crate) fn lines(&self, body: &Value, human: impl FnOnce(&Value) -> Vec<String>) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if self.json {
            return writeln!(out, "{body}");
        }
        human(body).iter().try_for_each(|line| writeln!(out, "{line}"))
    }

    /// Prints one line.
    pub(crate) fn line(&self, body: &Value, human: impl FnOnce(&Value) -> String) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if self.json { writeln!(out, "{body}") } else { writeln!(out, "{}", human(body)) }
    }
}

/// A member as text: strings bare, all else as JSON; empty where there is none.
pub(crate) fn text(value: &Value, name: &str) -> String {
    bare(value.get(name).unwrap_or(&Value::Null))
}

/// A value as text.
pub(crate) fn bare(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The items of a member that is a list.
pub(crate) fn items<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The first characters of an id, enough to tell them apart.
pub(crate) fn short(id: &str) -> String {
    id.chars().take(12).collect()
}

/// A moment as people write it, in UTC. The calendar is Hinnant's `civil_from_days`.
pub(crate) fn moment(ms: u64) -> String {
    let (days, seconds) = (ms / 86_400_000, ms / 1_000 % 86_400);
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hours, minutes) = (seconds / 3_600, seconds / 60 % 60);
    format!("{year:04}-{month:02}-{day:02} {hours:02}:{minutes:02}:{:02}", seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_of_the_calendar() {
        assert_eq!(moment(0), "1970-01-01 00:00:00");
        assert_eq!(moment(951_782_399_000), "2000-02-28 23:59:59");
        assert_eq!(moment(951_868_799_999), "2000-02-29 23:59:59");
        assert_eq!(moment(1_795_763_922_852), "2026-11-27 07:18:42");
        assert_eq!(moment(4_102_444_800_000), "2100-01-01 00:00:00");
    }

    #[test]
    fn only_people_are_told_that_there_is_nothing() {
        let printed = |is_for_people| {
            let mut out = Vec::new();
            Table::new(&["a"]).or("nothing is there").print(&mut out, is_for_people).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!((printed(true).as_str(), printed(false).as_str()), ("nothing is there\n", ""));
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["a", "long"]);
        table.row(vec!["müde".to_owned(), "x".to_owned()]);
        let mut out = Vec::new();
        table.print(&mut out, true).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "a     long\nmüde  x\n");
    }
}
