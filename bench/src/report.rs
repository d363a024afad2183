//! What a benchmark came to: printed, and kept as Markdown for people, JSON for programs, and a picture.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::Failure;
use crate::figures::Samples;
use crate::machine::Machine;
use crate::plot::{Bar, Group, Plot, figure};

/// Where reports go when nothing else is said, beside the documents that speak of them.
const FOLDER: &str = "docs/benchmarks";
/// What others may use of the machine before figures mean little beyond their ratios.
const OTHERS_PART_MAX: f64 = 0.05;

/// A table of figures, each with its spread.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub(crate) title: String,
    /// What the rows are.
    pub(crate) head: &'static str,
    pub(crate) columns: Vec<Column>,
    pub(crate) rows: Vec<(String, Vec<Cell>)>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
}

#[derive(Clone, Debug)]
pub(crate) enum Cell {
    Figure(Samples),
    /// What does not apply, or is no figure.
    Text(String),
}

impl From<Samples> for Cell {
    fn from(samples: Samples) -> Self {
        Self::Figure(samples)
    }
}

impl From<f64> for Cell {
    fn from(sample: f64) -> Self {
        Self::Figure(Samples(vec![sample]))
    }
}

/// A promise and what came of it.
#[derive(Clone, Debug)]
pub(crate) struct Promise {
    pub(crate) about: String,
    pub(crate) measured: f64,
    pub(crate) bound: Bound,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Promise {
    pub(crate) fn is_kept(&self) -> bool {
        match self.bound {
            Bound::AtLeast(least) => self.measured >= least,
            Bound::AtMost(most) => self.measured <= most,
        }
    }

    fn bound(&self) -> String {
        match self.bound {
            Bound::AtLeast(least) => format!("≥ {}", figure(least)),
            Bound::AtMost(most) => format!("≤ {}", figure(most)),
        }
    }

    pub(crate) fn sentence(&self) -> String {
        format!("{}: {} instead of {}", self.about, figure(self.measured), self.bound())
    }
}

/// Everything that a benchmark came to.
pub(crate) struct Report {
    name: &'static str,
    machine: Machine,
    /// How it was measured, as sentences.
    pub(crate) about: String,
    pub(crate) tables: Vec<Table>,
    pub(crate) promises: Vec<Promise>,
    pub(crate) plot: Option<Plot>,
}

impl Report {
    /// Begins to watch what the machine does besides.
    pub(crate) fn begin(name: &'static str, about: &str) -> Self {
        let (tables, promises, plot) = (Vec::new(), Vec::new(), None);
        Self { name, machine: Machine::watch(), about: about.to_owned(), tables, promises, plot }
    }

    /// Prints the report and writes it to a folder; promises that were not kept are returned as sentences.
    pub(crate) fn finish(self, folder: &str) -> Result<Vec<String>, Failure> {
        let folder = if folder.is_empty() { Path::new(FOLDER) } else { Path::new(folder) };
        let body = self.body();
        println!("\n{body}");
        let markdown = format!("# {}\n\n{}\n\n{body}", self.name, self.machine.describe());
        fs::create_dir_all(folder)?;
        let file = |extension: &str| -> PathBuf { folder.join(format!("{}.{extension}", self.name)) };
        fs::write(file("md"), &markdown)?;
        fs::write(file("json"), serde_json::to_string_pretty(&self.to_json())? + "\n")?;
        if let Some(plot) = &self.plot {
            fs::write(file("svg"), plot.to_svg())?;
        }
        println!("written to {}", file("{md,json,svg}").display());
        Ok(self.promises.iter().filter(|promise| !promise.is_kept()).map(Promise::sentence).collect())
    }

    fn is_provisional(&self) -> bool {
        self.machine.others_part() > OTHERS_PART_MAX
    }

    /// All but the heading and what it was measured on, which are printed before anything is measured.
    fn body(&self) -> String {
        let mut text = format!("{}\n", self.about);
        if self.is_provisional() {
            let others = self.machine.others_part() * 100.0;
            let _ = writeln!(
                text,
                "\n**Provisional:** other work used {others:.0} % of the machine meanwhile. Ratios are of the same \
                 minutes; rates and times are not those of an idle machine."
            );
        }
        if self.plot.is_some() {
            let _ = writeln!(text, "\n![{}]({}.svg)", self.name, self.name);
        }
        for table in &self.tables {
            let _ = write!(text, "\n{}\n\n{}", table.title, table.to_markdown());
        }
        if !self.promises.is_empty() {
            let _ = writeln!(text, "\n| promise | bound | measured | |\n| --- | --- | --- | --- |");
            for promise in &self.promises {
                let verdict = if promise.is_kept() { "kept" } else { "**missed**" };
                let (about, bound, measured) = (&promise.about, promise.bound(), figure(promise.measured));
                let _ = writeln!(text, "| {about} | {bound} | {measured} | {verdict} |");
            }
        }
        text
    }

    fn to_json(&self) -> Value {
        let promise = |promise: &Promise| {
            let (bound, value) = match promise.bound {
                Bound::AtLeast(least) => ("at_least", least),
                Bound::AtMost(most) => ("at_most", most),
            };
            json!({
                "about": promise.about, bound: value, "measured": promise.measured, "kept": promise.is_kept(),
            })
        };
        json!({
            "name": self.name,
            "about": self.about,
            "machine": self.machine.to_json(),
            "provisional": self.is_provisional(),
            "tables": self.tables.iter().map(Table::to_json).collect::<Vec<_>>(),
            "promises": self.promises.iter().map(promise).collect::<Vec<_>>(),
        })
    }
}

impl Table {
    pub(crate) fn new(title: &str, head: &'static str, columns: &[(&'static str, &'static str)]) -> Self {
        let columns = columns.iter().map(|(name, unit)| Column { name, unit }).collect();
        Self { title: title.to_owned(), head, columns, rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, name: impl Into<String>, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push((name.into(), cells.into_iter().collect()));
    }

    fn to_markdown(&self) -> String {
        let mut text = format!("| {} |", self.head);
        for column in &self.columns {
            let separator = if column.unit.is_empty() { "" } else { ", " };
            let _ = write!(text, " {}{separator}{} |", column.name, column.unit);
        }
        let _ = writeln!(text, "\n|{}", " --- |".repeat(self.columns.len() + 1));
        for (name, cells) in &self.rows {
            let cells: Vec<String> = cells.iter().map(Cell::show).collect();
            let _ = writeln!(text, "| {name} | {} |", cells.join(" | "));
        }
        text
    }

    fn to_json(&self) -> Value {
        let cell = |cell: &Cell| match cell {
            Cell::Figure(samples) => json!({
                "median": samples.median(), "min": samples.min(), "max": samples.max(), "samples": samples.0,
            }),
            Cell::Text(text) => json!(text),
        };
        let row = |(name, cells): &(String, Vec<Cell>)| json!({ "name": name, "cells": cells.iter().map(cell).collect::<Vec<_>>() });
        let column = |column: &Column| json!({ "name": column.name, "unit": column.unit });
        json!({
            "title": self.title,
            "head": self.head,
            "columns": self.columns.iter().map(column).collect::<Vec<_>>(),
            "rows": self.rows.iter().map(row).collect::<Vec<_>>(),
        })
    }
}

impl Cell {
    fn show(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Figure(samples) if samples.0.len() < 2 => figure(samples.median()),
            Self::Figure(samples) => {
                format!("{} [{}–{}]", figure(samples.median()), figure(samples.min()), figure(samples.max()))
            }
        }
    }
}

/// A group of bars from what was sampled.
pub(crate) fn group(name: impl Into<String>, bars: &[&Samples]) -> Group {
    let bar = |samples: &&Samples| Bar { median: samples.median(), min: samples.min(), max: samples.max() };
    Group { name: name.into(), bars: bars.iter().map(bar).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_a_cell_for_each_column_with_its_spread() {
        let mut table = Table::new("t", "kind", &[("rate", "1/s"), ("note", "")]);
        table.row("counter", [Samples(vec![3_000.0, 1_000.0, 2_000.0]).into(), Cell::Text("—".to_owned())]);
        assert_eq!(
            table.to_markdown(),
            "| kind | rate, 1/s | note |\n| --- | --- | --- |\n| counter | 2,000 [1,000–3,000] | — |\n"
        );
    }

    #[test]
    fn a_promise_is_kept_on_its_side_of_the_bound() {
        let promise = |measured, bound| Promise { about: "a".to_owned(), measured, bound };
        assert!(promise(0.6, Bound::AtLeast(0.6)).is_kept());
        assert!(!promise(0.59, Bound::AtLeast(0.6)).is_kept());
        assert!(!promise(1.6, Bound::AtMost(1.5)).is_kept());
        assert_eq!(promise(1.6, Bound::AtMost(1.5)).sentence(), "a: 1.60 instead of ≤ 1.50");
    }
}
