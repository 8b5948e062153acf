//! How commands print what the service sent: for people, or as JSON.

use std::io;
use std::str::FromStr;

use serde_json::Value;

use super::out;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Format {
    #[default]
    Table,
    Json,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "table" => Ok(Self::Table),
            "json" => Ok(Self::Json),
            _ => Err("write \"json\" or \"table\"".to_owned()),
        }
    }
}

/// `--output` of the commands that show something.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct FormatArgs {
    /// How to print: "table" for people, "json" for programs
    #[arg(long, value_name = "json|table", default_value = "table")]
    pub(crate) output: Format,
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Table => "table",
            Self::Json => "json",
        })
    }
}

pub(crate) fn json(value: &Value) -> io::Result<()> {
    out::text(format_args!("{value:#}"))
}

/// Columns under their headings, as wide as their widest cell.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(headings: &[&str]) -> Self {
        Self { rows: vec![headings.iter().map(ToString::to_string).collect()] }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|it| printable(&it)).collect());
    }

    pub(crate) fn print(&self) -> io::Result<()> {
        out::data(self.to_string().as_bytes())
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).map(|it| it.chars().count()).max()
        };
        let widths: Vec<usize> = (0..columns).map(|it| width(it).unwrap_or(0)).collect();
        for row in &self.rows {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            let line = cells.collect::<Vec<_>>().join("  ");
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// To the second: what people compare.
pub(crate) fn time(at: jiff::Timestamp) -> String {
    format!("{at:.0}")
}

/// Names and messages come from anywhere: on a terminal an escape sequence would act.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|it| if it.is_control() { '\u{fffd}' } else { it }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_nothing_trails() {
        let mut table = Table::new(&["NAME", "STATE"]);
        table.row(["zählen".to_owned(), "ok".to_owned()]);
        table.row(["a".to_owned(), "\u{1b}[31mred".to_owned()]);
        table.row(["b".to_owned(), String::new()]);
        assert_eq!(table.to_string(), "NAME    STATE\nzählen  ok\na       \u{fffd}[31mred\nb\n");
    }
}
