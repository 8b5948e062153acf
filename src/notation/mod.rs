//! Documents as they are written: JSON and YAML, read so that nothing is guessed and nothing grows.
//!
//! Both become the same [`Value`], which the domain reads. Here is what a notation can get wrong by itself, with the
//! line and the column, and [`Places`]: where in the text a fault of the domain is.

mod json;
mod places;
mod yaml;

use std::fmt;

use serde_json::Value;

pub use places::{Place, Places};

/// Why a text is no document of its notation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed {
    /// With the place.
    pub detail: String,
    /// From 1, as is the column.
    pub line: u64,
    pub column: u64,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

/// Reads JSON in which every key stands once.
pub fn read_json(bytes: &[u8]) -> Result<Value, Malformed> {
    json::read(bytes)
}

/// Reads one document of YAML.
pub fn read_yaml(bytes: &[u8]) -> Result<Value, Malformed> {
    yaml::read(bytes, None)
}

/// The same, and where everything stands. JSON is YAML, too, as far as this is concerned.
pub fn read_yaml_with_places(bytes: &[u8]) -> Result<(Value, Places), Malformed> {
    let mut places = Places::default();
    let value = yaml::read(bytes, Some(&mut places))?;
    Ok((value, places))
}

/// A key as a JSON pointer writes it.
pub fn pointer_token(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}
