//! `--option value` pairs.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use crate::Failure;

/// What was said on the command line, and what of it was asked for.
#[derive(Debug)]
pub(crate) struct Options {
    given: BTreeMap<String, String>,
    read: RefCell<Vec<&'static str>>,
}

impl Options {
    pub(crate) fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, Failure> {
        let mut given = BTreeMap::new();
        while let Some(argument) = arguments.next() {
            let name = argument.strip_prefix("--").ok_or_else(|| format!("{argument} is no option"))?;
            let value = arguments.next().ok_or_else(|| format!("--{name} needs a value"))?;
            given.insert(name.to_owned(), value);
        }
        Ok(Self { given, read: RefCell::default() })
    }

    /// The option `name`, or `default` where it was not given.
    pub(crate) fn value<T: FromStr<Err: Display>>(
        &self,
        name: &'static str,
        default: T,
    ) -> Result<T, Failure> {
        self.read.borrow_mut().push(name);
        let Some(given) = self.given.get(name) else { return Ok(default) };
        given.parse().map_err(|error| format!("--{name} {given}: {error}").into())
    }

    /// Refuses options that the benchmark does not have.
    pub(crate) fn check_all_read(&self) -> Result<(), Failure> {
        let read = self.read.borrow();
        match self.given.keys().find(|name| !read.contains(&name.as_str())) {
            Some(unknown) => Err(format!("there is no option --{unknown}").into()),
            None => Ok(()),
        }
    }
}
