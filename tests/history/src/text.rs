//! Histories as lines of text.

use std::fmt;
use std::str::FromStr;

use crate::history::{History, Operation, Outcome};

/// How many sessions a text may number: a typing error in a number must not fill the memory.
pub const TEXT_SESSIONS_MAX: usize = 65_536;

/// An operation as one line of a history's text, without the line's end.
#[derive(Clone, Copy, Debug)]
pub struct Line<'o> {
    session: usize,
    operation: &'o Operation,
}

/// Text that is no history. Its reader did not change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {reason}")]
pub struct ParseError {
    /// The line, from 1.
    pub line: usize,
    /// The byte of the line at which the trouble begins, from 1.
    pub column: usize,
    /// The trouble.
    pub reason: ParseErrorReason,
}

/// What is wrong with a line. Each is the fault of whoever wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseErrorReason {
    /// A field is missing at the end of the line.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A field is not a decimal number, or one too large for what it means.
    #[error("{0} is not a number in range")]
    Number(&'static str),
    /// The operation is neither `R` nor `W`.
    #[error("the operation is neither R nor W")]
    Operation,
    /// The outcome of a write is unheard of.
    #[error("the outcome is none of ok, unknown, unstated")]
    Outcome,
    /// The session's number is [`TEXT_SESSIONS_MAX`] or more.
    #[error("sessions are numbered from 0 to 65535")]
    Session,
    /// The text ends within a line: whoever wrote it may have meant to write more.
    #[error("the last line has no end")]
    Unended,
}

impl Operation {
    /// The operation as a line of text, for a process that writes down what it does as it does it.
    pub fn line(&self, session: usize) -> Line<'_> {
        Line { session, operation: self }
    }
}

impl History {
    /// Appends the operations of a text to the sessions that it numbers: histories may be written in several
    /// files, if each session is in one of them, or its operations are in the order of the files.
    ///
    /// # Errors
    ///
    /// [`ParseError`], and nothing was appended.
    pub fn append(&mut self, text: &str) -> Result<(), ParseError> {
        let mut operations = Vec::new();
        for (at, line) in text.split_inclusive('\n').enumerate() {
            let fail = |(column, reason)| ParseError { line: at + 1, column, reason };
            let Some(whole) = line.strip_suffix('\n') else {
                return Err(fail((line.len() + 1, ParseErrorReason::Unended)));
            };
            operations.extend(parse(whole).map_err(fail)?);
        }
        for (session, operation) in operations {
            if self.sessions.len() <= session {
                self.sessions.resize(session + 1, Vec::new());
            }
            self.sessions[session].push(operation);
        }
        Ok(())
    }
}

impl FromStr for History {
    type Err = ParseError;

    /// Reads what [`History`] displays as. Empty lines and those that begin with `#` are skipped.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let mut history = Self::default();
        history.append(text)?;
        Ok(history)
    }
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (session, operations) in self.sessions.iter().enumerate() {
            for operation in operations {
                writeln!(f, "{}", operation.line(session))?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ", self.session, self.operation.key())?;
        match self.operation {
            Operation::Write { value, outcome, .. } => write!(f, "W {value} {outcome}")?,
            Operation::Read { .. } => f.write_str("R")?,
        }
        self.operation.seen().iter().try_for_each(|value| write!(f, " {value}"))
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Acknowledged => "ok",
            Self::Unknown => "unknown",
            Self::Unstated => "unstated",
        })
    }
}

/// A column and what is wrong there.
type Fault = (usize, ParseErrorReason);

/// What is left of a line.
struct Fields<'l> {
    line: &'l str,
    at: usize,
}

fn parse(line: &str) -> Result<Option<(usize, Operation)>, Fault> {
    if line.starts_with('#') || line.trim_ascii().is_empty() {
        return Ok(None);
    }
    let mut fields = Fields { line, at: 0 };
    let (column, session) = fields.number("the session")?;
    if session >= TEXT_SESSIONS_MAX {
        return Err((column, ParseErrorReason::Session));
    }
    let (_, key) = fields.number("the key")?;
    let operation = match fields.required("the operation")? {
        (_, "R") => Operation::Read { key, values: fields.values()? },
        (_, "W") => {
            let (_, value) = fields.number("the value")?;
            let outcome = match fields.required("the outcome")? {
                (_, "ok") => Outcome::Acknowledged,
                (_, "unknown") => Outcome::Unknown,
                (_, "unstated") => Outcome::Unstated,
                (column, _) => return Err((column, ParseErrorReason::Outcome)),
            };
            Operation::Write { key, value, replaced: fields.values()?, outcome }
        }
        (column, _) => return Err((column, ParseErrorReason::Operation)),
    };
    Ok(Some((session, operation)))
}

impl<'l> Fields<'l> {
    /// The next field and its column.
    fn next(&mut self) -> Option<(usize, &'l str)> {
        let rest = &self.line[self.at..];
        let start = self.at + rest.len() - rest.trim_ascii_start().len();
        let field = self.line[start..].split_ascii_whitespace().next()?;
        self.at = start + field.len();
        Some((start + 1, field))
    }

    fn required(&mut self, name: &'static str) -> Result<(usize, &'l str), Fault> {
        self.next().ok_or((self.line.len() + 1, ParseErrorReason::Missing(name)))
    }

    fn number<N: FromStr>(&mut self, name: &'static str) -> Result<(usize, N), Fault> {
        let (column, field) = self.required(name)?;
        Ok((column, number(column, field, name)?))
    }

    /// All other fields.
    fn values(&mut self) -> Result<Vec<u64>, Fault> {
        let mut values = Vec::new();
        while let Some((column, field)) = self.next() {
            values.push(number(column, field, "a value")?);
        }
        Ok(values)
    }
}

fn number<N: FromStr>(column: usize, field: &str, name: &'static str) -> Result<N, Fault> {
    let digits = field.bytes().all(|byte| byte.is_ascii_digit());
    let number = field.parse().ok().filter(|_| digits);
    number.ok_or((column, ParseErrorReason::Number(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "0 7 W 1 ok\n0 7 R 1\n1 7 W 2 unknown 1\n1 8 R\n2 7 W 3 unstated 1 2\n";

    #[test]
    fn text_reads_back_as_the_history_that_it_displays() {
        let history: History = TEXT.parse().expect("the text is right");
        let last = Operation::Write { key: 7, value: 3, replaced: vec![1, 2], outcome: Outcome::Unstated };
        assert_eq!(history.sessions[2], [last]);
        assert_eq!(history.to_string(), TEXT);
    }

    #[test]
    fn the_largest_numbers_are_read() {
        let text = format!("65535 {} W {} ok {}\n", u32::MAX, u64::MAX, u64::MAX);
        assert_eq!(text.parse::<History>().map(|history| history.to_string()), Ok(text));
    }

    #[test]
    fn comments_empty_lines_and_wide_spaces_are_skipped() {
        assert_eq!("# seed 7\n\n 0  7 R  1 \r\n".parse::<History>(), "0 7 R 1\n".parse());
    }

    #[test]
    fn several_texts_make_one_history() {
        let mut history = History::default();
        history.append("1 7 R\n").expect("the text is right");
        history.append("0 7 R\n1 8 R\n").expect("the text is right");
        assert_eq!(history.to_string(), "0 7 R\n1 7 R\n1 8 R\n");
        assert!(history.append("0 9 R\n0 9 X\n").is_err());
        assert_eq!(history.to_string(), "0 7 R\n1 7 R\n1 8 R\n");
    }

    #[test]
    fn what_is_wrong_is_told_with_line_and_column() {
        use ParseErrorReason as Reason;
        for (text, line, column, reason) in [
            ("0 1 R\n0 1 X\n", 2, 5, Reason::Operation),
            ("x 1 R\n", 1, 1, Reason::Number("the session")),
            ("65536 1 R\n", 1, 1, Reason::Session),
            ("0 4294967296 R\n", 1, 3, Reason::Number("the key")),
            ("0 1 R 5 +6\n", 1, 9, Reason::Number("a value")),
            ("0 1 W 5\n", 1, 8, Reason::Missing("the outcome")),
            ("0 1 W 5 fine\n", 1, 9, Reason::Outcome),
            ("0 1\n", 1, 4, Reason::Missing("the operation")),
            ("0 1 R 12", 1, 9, Reason::Unended),
            ("0 é R\n", 1, 3, Reason::Number("the key")),
        ] {
            assert_eq!(text.parse::<History>(), Err(ParseError { line, column, reason }), "{text:?}");
        }
        let error = "0 1 W 5\n".parse::<History>().expect_err("the outcome is missing");
        assert_eq!(error.to_string(), "line 1, column 8: the outcome is missing");
    }
}
