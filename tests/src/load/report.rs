//! Percentiles and small tables for the reports.

use std::fmt::Write as _;
use std::time::Duration;

/// Latencies of many single events.
#[derive(Debug, Clone, Default)]
pub struct Latencies(Vec<u64>);

impl Latencies {
    /// Takes one in nanoseconds.
    pub fn push(&mut self, nanos: u64) {
        self.0.push(nanos);
    }

    /// Takes several.
    pub fn extend_from(&mut self, latencies: impl Iterator<Item = Duration>) {
        self.0.extend(latencies.map(|it| u64::try_from(it.as_nanos()).unwrap_or(u64::MAX)));
    }

    /// Takes all of another's.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The value below which `percent` of all lie, in milliseconds.
    pub fn percentile(&mut self, percent: usize) -> f64 {
        self.0.sort_unstable();
        let last = self.0.len().saturating_sub(1);
        let nanos = self.0.get((self.0.len() * percent / 100).min(last)).copied().unwrap_or_default();
        Duration::from_nanos(nanos).as_secs_f64() * 1000.0
    }

    /// `p50`, `p99` and the largest in milliseconds, as cells of a table.
    pub fn cells(&mut self) -> Vec<String> {
        [50, 99, 100].iter().map(|percent| format!("{:.3}", self.percentile(*percent))).collect()
    }
}

/// A table in plain text, columns aligned.
#[derive(Debug, Clone, Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// With these headings.
    pub fn new(headings: &[&str]) -> Self {
        Self { rows: vec![headings.iter().map(ToString::to_string).collect()] }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The text, one line per row.
    pub fn text(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or_default();
        let width = |column: usize| {
            self.rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or_default()
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            for (cell, width) in row.iter().zip(&widths) {
                let _ = write!(text, "{cell:>width$}  ");
            }
            text.truncate(text.trim_end().len());
            text.push('\n');
        }
        text
    }
}

/// Bytes as kilobytes of 1000 bytes per one of `count`.
pub fn kb_each(bytes: i64, count: usize) -> String {
    format!("{:.2}", per(bytes, count) / 1000.0)
}

/// Bytes as megabytes of 1,000,000 bytes.
pub fn mb(bytes: u64) -> String {
    format!("{:.1}", per(i64::try_from(bytes).unwrap_or(i64::MAX), 1) / 1e6)
}

#[expect(clippy::cast_precision_loss, reason = "a report needs no exact numbers")]
fn per(bytes: i64, count: usize) -> f64 {
    bytes as f64 / count.max(1) as f64
}

/// Events per second.
#[expect(clippy::cast_precision_loss, reason = "a report needs no exact numbers")]
pub fn rate(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64().max(1e-9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occurred() {
        let mut latencies = Latencies::default();
        (1..=100).rev().for_each(|ms| latencies.push(ms * 1_000_000));
        assert_eq!(latencies.cells(), ["51.000", "100.000", "100.000"]);
        assert_eq!(Latencies::default().cells(), ["0.000", "0.000", "0.000"]);
    }

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&["a", "long"]);
        table.row(["123".to_owned(), "4".to_owned()]);
        assert_eq!(table.text(), "  a  long\n123     4\n");
    }
}
