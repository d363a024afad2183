//! Two engines by turns, and what they came to beside each other.

use crate::Failure;
use crate::figures::{REPEATS, Samples};
use crate::plot::Plot;
use crate::report::{Bound, Promise, Report, Table, group};

/// How much is done, how often, and where the report goes.
pub(crate) struct Sizes {
    /// Objects that the other replica lacks at first.
    pub(crate) objects: u64,
    /// Changes that follow.
    pub(crate) changes: u64,
    repeats: u64,
    pub(crate) folder: String,
}

impl Sizes {
    /// From arguments in this order; objects and changes are the defaults when nothing is said.
    pub(crate) fn parse(arguments: &[String], (objects, changes): (u64, u64)) -> Result<Self, Failure> {
        let number = |at: usize, default: u64| -> Result<u64, Failure> {
            Ok(arguments.get(at).map(|argument| argument.parse()).transpose()?.unwrap_or(default))
        };
        let (objects, changes) = (number(0, objects)?, number(1, changes)?);
        let repeats = number(2, REPEATS as u64)?.max(1);
        Ok(Self { objects, changes, repeats, folder: arguments.get(3).cloned().unwrap_or_default() })
    }
}

/// What each repeat came to.
pub(crate) struct Outcomes<O> {
    ours: Vec<O>,
    theirs: Vec<O>,
}

/// Does the work by turns.
pub(crate) fn alternate<O>(
    sizes: &Sizes,
    ours: impl AsyncFn() -> Result<O, Failure>,
    theirs: impl AsyncFn() -> Result<O, Failure>,
) -> Result<Outcomes<O>, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut outcomes = Outcomes { ours: Vec::new(), theirs: Vec::new() };
    for _ in 0..sizes.repeats {
        outcomes.ours.push(runtime.block_on(ours())?);
        outcomes.theirs.push(runtime.block_on(theirs())?);
    }
    Ok(outcomes)
}

/// One thing that was measured.
pub(crate) struct Row<O> {
    pub(crate) name: String,
    pub(crate) of: fn(&O) -> f64,
    /// How many times less it is promised to be than with the other engine.
    pub(crate) least: Option<f64>,
}

/// With what Comity is compared, and how it is shown.
pub(crate) struct Beside {
    pub(crate) name: &'static str,
    /// Heads the ratios.
    pub(crate) over: &'static str,
    /// The unit that rows must have to be in the picture.
    pub(crate) plotted: &'static str,
}

impl Beside {
    /// Puts everything into a report.
    pub(crate) fn tell<O>(
        &self,
        report: &mut Report,
        rows: impl IntoIterator<Item = Row<O>>,
        outcomes: &Outcomes<O>,
    ) {
        let columns = [("Comity", ""), (self.name, ""), (self.over, "")];
        let mut table = Table::new("Medians of alternating repeats:", "", &columns);
        let mut groups = Vec::new();
        for Row { name, of, least } in rows {
            let samples = |outcomes: &[O]| Samples(outcomes.iter().map(of).collect());
            let (ours, theirs) = (samples(&outcomes.ours), samples(&outcomes.theirs));
            let times = theirs.over(&ours);
            if let Some(least) = least {
                report.promises.push(Promise {
                    about: format!("{name}: times less than {}", self.name),
                    measured: times.median(),
                    bound: Bound::AtLeast(least),
                });
            }
            if name.ends_with(&format!(" {}", self.plotted)) {
                groups.push(group(name.clone(), &[&ours, &theirs]));
            }
            table.row(name, [ours.into(), theirs.into(), times.into()]);
        }
        report.tables.push(table);
        let title = format!("Comity and {}", self.name);
        let series = vec!["Comity".to_owned(), self.name.to_owned()];
        report.plot = Some(Plot { title, unit: self.plotted, series, groups });
    }
}
