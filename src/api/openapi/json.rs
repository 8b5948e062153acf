//! JSON whose members keep their order: the page shows what comes first, first.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub(super) type Members = IndexMap<String, Json>;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Json {
    Object(Members),
    Array(Vec<Json>),
    Other(Value),
}

impl From<Value> for Json {
    fn from(it: Value) -> Self {
        match it {
            Value::Object(it) => {
                Self::Object(it.into_iter().map(|(name, it)| (name, it.into())).collect())
            }
            Value::Array(it) => Self::Array(it.into_iter().map(Into::into).collect()),
            other => Self::Other(other),
        }
    }
}

impl From<Members> for Json {
    fn from(it: Members) -> Self {
        Self::Object(it)
    }
}

impl From<&str> for Json {
    fn from(it: &str) -> Self {
        Self::Other(it.into())
    }
}

impl Json {
    pub(super) fn members(&self) -> Option<&Members> {
        if let Self::Object(it) = self { Some(it) } else { None }
    }

    pub(super) fn members_mut(&mut self) -> Option<&mut Members> {
        if let Self::Object(it) = self { Some(it) } else { None }
    }

    pub(super) fn text(&self) -> Option<&str> {
        if let Self::Other(it) = self { it.as_str() } else { None }
    }

    pub(super) fn get(&self, name: &str) -> Option<&Self> {
        self.members()?.get(name)
    }

    /// The member at this path; what is missing on the way is made.
    pub(super) fn at(&mut self, path: &[&str]) -> &mut Members {
        if self.members().is_none() {
            *self = Self::Object(Members::new());
        }
        let Self::Object(members) = self else { unreachable!("it was made one") };
        match path {
            [] => members,
            [name, rest @ ..] => {
                let empty = || Self::Object(Members::new());
                members.entry((*name).to_owned()).or_insert_with(empty).at(rest)
            }
        }
    }

    /// Members or items.
    pub(super) fn children(&self) -> impl Iterator<Item = &Self> {
        let (members, items) = match self {
            Self::Object(it) => (Some(it), None),
            Self::Array(it) => (None, Some(it)),
            Self::Other(_) => (None, None),
        };
        let members = members.into_iter().flat_map(IndexMap::values);
        members.chain(items.into_iter().flatten())
    }

    /// Members or items.
    pub(super) fn children_mut(&mut self) -> impl Iterator<Item = &mut Self> {
        let (members, items) = match self {
            Self::Object(it) => (Some(it), None),
            Self::Array(it) => (None, Some(it)),
            Self::Other(_) => (None, None),
        };
        let members = members.into_iter().flat_map(IndexMap::values_mut);
        members.chain(items.into_iter().flatten())
    }
}
