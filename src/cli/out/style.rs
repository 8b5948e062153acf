//! Colours, where somebody sees them.

use std::ffi::OsStr;
use std::str::FromStr;

/// What a word means, which its colour says too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    Good,
    Bad,
    Odd,
}

impl Style {
    pub(super) fn paint(self, text: &str) -> String {
        let code = match self {
            Self::Good => 32,
            Self::Bad => 31,
            Self::Odd => 33,
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Color {
    #[default]
    Auto,
    Always,
    Never,
}

impl Color {
    pub(super) fn wanted(self, terminal: bool) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => terminal && !is_set(std::env::var_os("NO_COLOR").as_deref()),
        }
    }
}

impl FromStr for Color {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "always" => Ok(Self::Always),
            "never" => Ok(Self::Never),
            _ => Err("write \"auto\", \"always\" or \"never\"".to_owned()),
        }
    }
}

/// <https://no-color.org>: set, and not to nothing.
fn is_set(value: Option<&OsStr>) -> bool {
    value.is_some_and(|it| !it.is_empty())
}

/// Whether the terminal knows how to move its cursor.
pub(super) fn is_capable() -> bool {
    std::env::var_os("TERM").is_none_or(|it| it != "dumb")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_color_is_a_word_and_not_its_absence() {
        assert!(!is_set(None));
        assert!(!is_set(Some(OsStr::new(""))));
        assert!(is_set(Some(OsStr::new("1"))));
        assert!(!Color::Auto.wanted(false));
        assert!(Color::Always.wanted(false));
        assert!(!Color::Never.wanted(true));
        assert_eq!(Style::Bad.paint("x"), "\u{1b}[31mx\u{1b}[0m");
    }
}
