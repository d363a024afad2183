//! Markdown tables and the figures in them.

/// Prints a table with a heading row.
pub(crate) fn print(heads: &[&str], rows: &[Vec<String>]) {
    let line = |cells: &[String]| println!("| {} |", cells.join(" | "));
    println!();
    line(&heads.iter().map(|head| (*head).to_owned()).collect::<Vec<_>>());
    line(&vec!["---".to_owned(); heads.len()]);
    rows.iter().for_each(|row| line(row));
    println!();
}

/// Bytes as MiB.
pub(crate) fn mib(bytes: u64) -> String {
    format!("{:.3}", bytes as f64 / (1 << 20) as f64)
}
